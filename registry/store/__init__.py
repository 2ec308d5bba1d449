"""The content-addressed store: immutable objects on disk, named by their SHA-256.

Start reading at objects.py: `Store.put` writes an object whole or not at all. filenames.py says
where things lie, kinds.py what each kind's manifest says; disk.py turns a full disk into one line.
"""
