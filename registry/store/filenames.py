"""Names of files and folders in a workspace and its store, each spelled here alone.

Names that are part of a kind's own format and used in one module stay there.
"""

from __future__ import annotations

import re

STATE = ".gapmend"
"""The folder of store, catalog and caches in a workspace."""

REPORTS = "reports"
"""Reports that people read, in the state folder; they can be made again, and an erasure does away
with them, as they quote rows."""

# ------------------------------------------------------------------------------ of objects

MANIFEST = "manifest.json"
"""Says what an object is; in every object's folder."""

ROWS = "rows.parquet"
"""Contents (kind `rows`), or what was picked (kind `selection`)."""
REFS = "refs.parquet"
"""Where a version's rows stand; an append adds `refs-2.parquet` and so on, see versions/refs.py."""
REFS_FILE = re.compile(r"refs(?:-([0-9]+))?\.parquet")
"""Any of these names, with its number."""
REJECTS = "rejects.parquet"
"""What could not be used, and why: of a version, an evaluation or a selection."""
PLACES = "places.parquet"
"""Where another dataset has a version's rows."""
SAMPLES = "samples.parquet"
"""An evaluation, item by item."""
BITMAPS = "bitmaps.parquet"
"""The rows of a selection as bits."""
METRICS = "metrics.parquet"
"""The figures of a training run."""
ERASED = "erased.parquet"
"""What is known of erased rows."""

# ------------------------------------------------------------------ of adapters and models

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CHANGED_CONFIG = "changed.json"
CHANGED_WEIGHTS = "changed.safetensors"
MODEL_CONFIG = "config.json"
MODEL_WEIGHTS = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
