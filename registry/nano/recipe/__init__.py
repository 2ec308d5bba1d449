"""The recipe of `nano`: words, tasks, corpus, tokenizer, training.

`python -m registry.nano.recipe --out DIR` writes the whole model folder. Nothing is read from
outside: every text is generated here, from a seed. The quickstart's data come from the same task
generators with other words (see `words.lexicon`). Start reading at corpus.py, then train.py.
"""
