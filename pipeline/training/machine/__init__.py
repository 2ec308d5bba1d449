"""This machine: memory, rates, processes.

Start reading at memory.py, what a run takes; free_memory.py is what there is, rates.py how fast the
device is, processes.py the run in several processes.
"""
