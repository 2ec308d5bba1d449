"""The DuckDB index of what is committed; the objects are the truth, this can be made again.

Start reading at catalog.py, what everyone else uses. open.py is the one way into the file,
database.py attaches and migrates it, tables.py derives the tables, views.py the SQL views.
"""
