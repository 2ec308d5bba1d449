"""One evaluation: ask, score, keep the samples.

Start reading at evaluate.py.
"""
