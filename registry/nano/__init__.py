"""The built-in base model `nano`: its files, and the recipe that makes it."""
