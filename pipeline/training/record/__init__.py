"""The record of a run: checkpoints, metrics, trackers.

Start reading at checkpoint.py; watch.py validates and stops early, metrics.py has a line a step.
"""
