"""The intake of what others made: copied, then checked, before any library reads it.

Start reading at copy.py, then adapter.py; model.py, changed.py and rows.py check the other kinds.
"""
