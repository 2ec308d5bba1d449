"""Talking to a workspace's models: by name, by the recorded template, an answer kept as a row.

Start reading at talk.py, which the terminal and the local page stand on; the server takes who.py
and voice.py alone.
"""
