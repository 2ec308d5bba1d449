"""What is seen before the first step: preflight, estimate, dry run.

Start reading at preflight.py.
"""
