"""What a model can and cannot do: capabilities, prompts, scorers, engine, statistics, verdicts."""
