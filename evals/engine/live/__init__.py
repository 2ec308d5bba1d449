"""Answers token by token, for chat and serving: requests join and leave between two steps.

Start reading at worker.py, whose `Live` owns a loaded model; ask.py has what it is asked and what
comes back, and is light to import.
"""
