"""The registry of what exists and where it came from: store, catalog, datasets, bases, adapters.

Start reading at store/objects.py, the files, and catalog/catalog.py, the index over them; then
datasets/ and models/, what is stored. intake/ and publish/ are the ways in and out.
"""
