"""Models elsewhere: what export and push say about using one, GGUF files, and what they cost."""
