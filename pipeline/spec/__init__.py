"""gapmend.yaml to frozen models, with the line of each error.

Start reading at spec.py; subjects.py lists what is measured.
"""
