"""The capabilities that the pool can't teach, by the datasets' versions."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.measure.held_items import held_datasets
from pipeline.spec import pool
from registry.store.objects import Store

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workspace.resolved import Resolved


def untaught(ws: Resolved) -> dict[str, str]:
    """Return each capability that no row of the pool can teach, with the reason.

    A dataset without a version is taken to have rows.

    Raises:
        UserError: an lm-eval task that can't be loaded.
    """
    wanted = [name for name in pool.pool_of(ws.spec) if name in ws.versions]
    rows = {name: rows_of(ws.store.root, ws.versions[name]) for name in wanted}
    held = held_datasets(ws)
    return pool.untaught(
        ws.spec, {name: replace(one, held=held.get(name, {})) for name, one in rows.items()}
    )


@lru_cache(maxsize=64)
def rows_of(root: Path, version_id: str) -> pool.DatasetRows:
    """Return how many rows a version has in each split, and of which kinds those in train are."""
    from registry.datasets.versions.read import VersionReader

    reader = VersionReader(Store(root), version_id)
    return pool.DatasetRows(reader.counts(), reader.kinds("train"))
