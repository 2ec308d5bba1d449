"""The capabilities that the pool can't teach, by the datasets' versions: no row is read for it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.spec import pool
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.spec.spec import Spec


def untaught(spec: Spec, store: Store, versions: Mapping[str, str]) -> dict[str, str]:
    """Return each capability that no row of the pool can teach, with the reason.

    Args:
        spec: with capabilities, pool and objective.
        store: where the versions are.
        versions: dataset -> id of its version; one without is taken to have rows.
    """
    wanted = [name for name in pool.pool_of(spec) if name in versions]
    return pool.untaught(spec, {name: rows_of(store.root, versions[name]) for name in wanted})


@lru_cache(maxsize=64)
def rows_of(root: Path, version_id: str) -> pool.DatasetRows:
    """Return how many rows a version has in each split, and of which kinds those in train are."""
    from registry.datasets.versions.read import VersionReader

    reader = VersionReader(Store(root), version_id)
    return pool.DatasetRows(reader.counts(), reader.kinds("train"))
