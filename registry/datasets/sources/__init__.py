"""A dataset's spec to its files (local, Hub, SQL, LLaMA-Factory) and these to columns of rows.

Start reading at resolve.py, then chunks.py.
"""
