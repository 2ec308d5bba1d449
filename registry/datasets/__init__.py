"""Datasets: from files to immutable versions and back.

Start reading at spec.py, a dataset as gapmend.yaml says it. The rooms are in the order that a
row takes: readers (file to record), formats (record to content), sources (a dataset's files to
columns of rows), duplicates, versions; history and export are what people ask of versions.
"""
