"""Measurements: one subject, split, prompt and model to scores; and the gates of promotion.

Start reading at measure.py, which every stage measures by; gates.py decides on the findings.
"""
