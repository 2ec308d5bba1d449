"""One subject, one split, one prompt, one model to scores; and the gates of promotion.

Start reading at measure.py.
"""
