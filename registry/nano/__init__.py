"""The built-in base model `nano`: its files, and the recipe that makes it.

Start reading at README.md, what it can do; recipe/ makes the files again.
"""
