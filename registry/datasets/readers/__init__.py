"""Readers: a file, packed or not, to records with their line numbers, knowing nothing of meaning.

Start reading at read.py, which chooses the reader by the file's name.
"""
