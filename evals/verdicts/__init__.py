"""Verdicts: intervals, tests, what is a gap and what was forgotten; pure, imports nothing of ours.

Start reading at gap.py and forgetting.py; stats.py holds the arithmetic.
"""
