"""Training examples: rows tokenized, labelled and collated into packed batches.

Start reading at encode.py (tokens and labels; pairs.py has them for preferences); packing.py
plans the batches, layout.py says how a batch is attended.
"""
