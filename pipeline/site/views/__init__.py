"""The pages, a module for each kind: what was asked in, a page out."""
