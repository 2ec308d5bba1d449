"""How a base is spoken to: its chat template, what is asked by it, and what is trained by it.

Start reading at chat.py; turns.py has the rule that training and asking share.
"""
