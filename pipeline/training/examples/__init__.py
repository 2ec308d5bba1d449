"""Training examples: rows tokenized, labelled and collated into packed batches.

Start reading at encode.py (tokens and labels; spans.py says which of them are trained, pairs.py
does it for preferences); packing.py plans the batches, layout.py says how a batch is attended.
"""
