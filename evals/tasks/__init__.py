"""Tasks: capabilities, prompts, scorers, lm-eval's tasks.

Start reading at capability.py; prompts.py says how it is asked, scorers.py how a generated answer
counts, task.py makes an lm-eval task of it. installed.py is for tasks that lm-eval has.
"""
