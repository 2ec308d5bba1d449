"""Immutable versions: collect, place in splits, write, append, read back.

Start reading at make.py, which goes from sources to a version; read.py is the one way back.
The files append*.py make a version from the one before it and the new files alone.
"""
