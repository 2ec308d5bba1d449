"""The rebuild of the catalog from the manifests in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.catalog.database import CATALOG_NAME, create_catalog, refuse_when_open_elsewhere
from registry.catalog.recovery import PENDING, drop, put_in_place, saying_that_it_is_decided
from registry.errors import StoreError
from registry.store.disk import one_line_when_full
from registry.store.locks import catalog_lock
from registry.store.objects import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.catalog.catalog import Catalog
    from registry.store.objects import ManifestJson, Store


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """How many objects the new catalog has, and the folders whose manifest cannot be read."""

    objects: int
    unreadable: tuple[str, ...]


def rebuild(
    store: Store, catalog: Catalog, advance: Callable[[int], None] = lambda _: None
) -> RebuildReport:
    """Index every manifest in the store anew and put the result in the old catalog's place.

    Finished files that no commit has reached, because the process was killed or the catalog was
    held by another program, are in it afterwards. Drafts of killed processes are removed.

    Args:
        store: the objects.
        catalog: what is made anew.
        advance: told the number of manifests that were read since the last call.

    Raises:
        UserError: when the catalog is in use, or the disk is full.
    """
    root, wait_s = catalog.root, catalog.wait_s
    with catalog_lock(root, wait_s), one_line_when_full(root):
        refuse_when_open_elsewhere(root / CATALOG_NAME, wait_s=wait_s)
        pending = (root / PENDING).exists()
        if pending:  # an erasure that was decided, and killed before its end
            with saying_that_it_is_decided(root):
                put_in_place(root)
        manifests: list[ManifestJson] = []
        unreadable: list[str] = []
        for folder in store.folders():
            advance(1)
            try:
                manifests.append(read_manifest(folder))
            except StoreError as error:
                unreadable.append(str(error))
        create_catalog(root, manifests)
        if pending:
            drop(store)
        store.sweep()
    return RebuildReport(len(manifests), tuple(unreadable))
