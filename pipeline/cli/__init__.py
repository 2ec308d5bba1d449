"""The command line: typer, options in, exit code out; no work is done here.

Start reading at main.py, the stages; verb.py is what all verbs share.
"""
