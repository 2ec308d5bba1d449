"""The upkeep of a store over the years: check, make again, collect garbage, copy, erase.

Start reading at fsck.py; erase.py is what takes rows out for good.
"""
