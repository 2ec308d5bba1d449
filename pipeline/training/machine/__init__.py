"""This machine: memory, rates, processes.

Start reading at memory.py.
"""
