"""Bases and what is put on them: identity, loading, tokenizer, adapters, changed tensors.

Start reading at base.py, what a base is and which one it is; load.py loads it, adapters.py
publishes what was trained.
"""
