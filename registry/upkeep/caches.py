"""The check of the caches: what is kept there is what was written, or is made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.datasets.versions.append_index import check_index, indexes
from registry.errors import StoreError
from registry.store.kept import SUFFIX, kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.store.objects import Store


def damaged_caches(store: Store) -> Iterator[tuple[Path, str]]:
    """Yield each kept file, or folder of an index, that isn't what was written, and why."""
    again = "it is made again when it is needed"
    home = store.root / "cache"
    for path in sorted(home.rglob(f"*{SUFFIX}")):
        if kept(path) is None:
            yield path, f"its SHA-256 is another: {again}"
    for folder in indexes(store):
        try:
            check_index(folder)
        except StoreError as error:
            yield folder, f"{str(error).partition('. ')[0]}: {again}"
