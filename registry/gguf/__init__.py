"""GGUF: a model's folder as the one file that llama.cpp and Ollama read, with proof of parity.

Inside these modules `import gguf` is the library of that name, as everywhere: imports are absolute.
"""
