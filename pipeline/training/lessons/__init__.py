"""Rows to tokens, labels and packed batches.

Start reading at encode.py; spans.py says which tokens are trained, packing.py fills the batches.
"""
