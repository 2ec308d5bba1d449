"""Tasks: capabilities, prompts, scorers, lm-eval's tasks.

Start reading at capability.py, then task.py.
"""
