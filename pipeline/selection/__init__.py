"""Selection of training rows: budget, candidates, choice, replay, what is held out.

Start reading at assemble.py, which puts a selection together; candidates.py says what may be in it,
budget.py and choose.py decide and are pure, judge/ says which rows are kept out, selection.py is
the stored object.
"""
