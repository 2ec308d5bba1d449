"""Pages: what the records say of an adapter, told in words, tables and pictures.

`account` gathers it, `words` and `charts` tell it, `html` and `markdown` write it down.
"""
