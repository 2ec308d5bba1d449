"""Methods, by which weights are trained: LoRA and its kin, freeze, full.

Start reading at methods.py.
"""
