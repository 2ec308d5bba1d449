"""Formats: a record to a row's content (messages, alpaca, preference and others), knowing no file.

Start reading at format.py; shapes.py lists each format's parts, detect.py tells them apart,
content.py is what a row says and how it is hashed.
"""
