"""What is chosen by name on the command line; it stands alone, so that `--help` loads no more."""

from __future__ import annotations

from typing import Literal

FormName = Literal["parquet", "jsonl", "datasets", "llamafactory", "trl"]
"""The forms that a dataset is written out in."""

Group = Literal["added", "removed", "changed", "moved", "annotated"]
"""The groups of a diff: what became of a row that isn't the same in both versions."""
