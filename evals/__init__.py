"""Evals: capabilities, prompts, scorers, engine, statistics, verdicts.

Start reading at tasks/capability.py, what is measured. scoring/ asks a model and keeps what it
answered, engine/ is what computes the answers, verdicts/ judges the scores.
"""
