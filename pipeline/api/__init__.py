"""The Python API: the verbs as methods of a `Workspace`, for notebooks and for the command line.

Start reading at workspace.py, the loop; records.py is what needs no spec.
"""
