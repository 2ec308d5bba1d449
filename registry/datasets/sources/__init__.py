"""Sources: the files behind a dataset (local, Hub, SQL, LLaMA-Factory), and their rows as columns.

Start reading at resolve.py, then chunks.py.
"""
