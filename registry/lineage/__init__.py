"""Lineage: where a thing came from and what became of it, down to the row.

Start reading at graph.py; rows.py and reach.py answer for rows, bitmaps.py keeps selections small.
"""
