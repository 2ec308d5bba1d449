"""Exact and near-duplicates, and the overlap of what is trained with what is measured.

Start reading at near_duplicates.py; bands.py is the MinHash index behind it, hash_index.py the
one of row hashes.
"""
