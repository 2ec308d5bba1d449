"""Merges of adapters into a base, by each rule, with proof that the logits are the same.

Start reading at one.py (one adapter), then several.py; proof.py compares.
"""
