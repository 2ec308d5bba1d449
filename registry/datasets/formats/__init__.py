"""A record to the content of a row: messages, alpaca, preference and the rest; knows no file.

Start reading at format.py; shapes.py lists each format's parts, detect.py tells them apart,
content.py is what a row says and how it is hashed.
"""
