"""A version as files for other trainers.

Start reading at export.py; forms.py holds the formats that can be written.
"""
