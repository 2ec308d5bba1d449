"""Judgements on rows of the pool: which are like the gap, which look wrong, which answers hold.

likeness.py, mislabelled.py and answers.py are pure; readings.py has the base read the rows, once.
"""
