"""Selection of training rows: budget, candidates, choice, replay, what is held out.

Start reading at selection.py; budget.py and choose.py decide and are pure.
"""
