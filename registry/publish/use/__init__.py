"""How to use it elsewhere: snippets that are true for this very adapter, model or GGUF file.

Start reading at page.py, which writes `USE.md` and the section of a card, from usage.py.
"""
