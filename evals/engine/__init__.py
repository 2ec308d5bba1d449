"""Answers from a model: the packed engine under lm-eval's `LM` interface, vLLM, the journal.

Start reading at packed.py; tree.py and layout.py say how contexts and choices share one row,
kv.py how a few-shot prefix is computed once.
"""
