"""GGUF: a model's folder as the one file that llama.cpp and Ollama read, with proof of parity.

Start reading at proof.py, which writes the file (convert.py, vocabulary.py) and reads it back.
Inside these modules `import gguf` is the library of that name, as everywhere: imports are absolute.
"""
