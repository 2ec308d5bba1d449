"""What a run leaves behind: checkpoints, metrics, trackers.

Start reading at checkpoint.py.
"""
