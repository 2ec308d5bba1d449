"""The content-addressed store: immutable objects on disk, named by their SHA-256.

Start reading at objects.py: `Store.put` writes an object whole or not at all. paths.py and the
names in it say where things lie; disk.py turns a full disk into one line.
"""
