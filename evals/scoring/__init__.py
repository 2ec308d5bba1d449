"""One evaluation: ask, score, keep the samples.

Start reading at evaluate.py: plan.py decides who is asked what, score.py runs that with an engine,
results.py is the file of it. installed.py does the same for lm-eval's own tasks.
"""
