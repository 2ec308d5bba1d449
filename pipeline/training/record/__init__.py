"""The record of a run: checkpoints, metrics, trackers.

Start reading at checkpoint.py.
"""
