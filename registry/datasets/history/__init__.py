"""The history of versions: names and tags, facts, what changed between two.

Start reading at names.py; facts.py says what is known of a version, diff.py compares two.
"""
