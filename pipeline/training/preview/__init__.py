"""The preview of a run before its first step: preflight, estimate, dry run.

Start reading at preflight.py.
"""
