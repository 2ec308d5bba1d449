"""The history of versions: names and tags, facts, what changed between two.

Start reading at names.py.
"""
