"""The registry of what exists and where it came from: store, catalog, datasets, bases, adapters."""
