"""Evals: capabilities, prompts, scorers, engine, statistics, verdicts."""
