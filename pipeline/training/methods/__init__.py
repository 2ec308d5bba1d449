"""Methods, by which weights are trained: LoRA and its kin, freeze, full.

Start reading at methods.py, which chooses; lora.py puts LoRA in, whole.py trains the base's own.
"""
