"""Training: from rows to an adapter, packed, checked before the first step, exact on resume.

Start reading at fit.py, then trainer.py. The rooms: examples (rows to packed batches), methods
(which weights), losses, machine (memory, processes), preview (before the first step) and record
(checkpoints, metrics, trackers).
"""
