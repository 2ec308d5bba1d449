"""The contents of a workspace, its spec unread: enough to list, name and trace, quick to open."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the dataclass's own
from typing import TYPE_CHECKING, Self

from registry.catalog.catalog import Catalog
from registry.errors import SPEC_FILE, StoreRequestError, UserError
from registry.models.adapters import is_tuned
from registry.store.filenames import STATE
from registry.store.objects import Store

if TYPE_CHECKING:
    from registry.store.manifest import Manifest, Meta

CHAMPION = "champion"
_NEWEST = """
SELECT id FROM catalog.adapters ANTI JOIN catalog.removals ON removals.adapter_id = adapters.id
ORDER BY created_at DESC, id DESC LIMIT 1
"""


@dataclass(frozen=True)
class WorkspaceStore:
    """The store and the catalog of a workspace."""

    root: Path
    store: Store
    catalog: Catalog
    # where it is true, a stage that has not run raises WouldRunError
    dry: bool = field(default=False, kw_only=True)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open what the workspace in `root` keeps.

        Raises:
            UserError: `root` has no `gapmend.yaml`.
        """
        root = find(root)
        return cls(root, Store(root / STATE), Catalog(root / STATE))

    @property
    def state(self) -> Path:
        """Return the folder of store and catalog, `.gapmend`."""
        return self.root / STATE


def find(root: Path) -> Path:
    """Return the whole path of a workspace.

    Raises:
        UserError: `root` has no `gapmend.yaml`.
    """
    root = root.resolve()
    if not (root / SPEC_FILE).is_file():
        raise UserError(
            f"no {SPEC_FILE} here",
            where=str(root),
            expected="a workspace",
            fix="name one with --workspace DIR, or make one with: gapmend init DIR",
        )
    return root


def adapter_named(kept: WorkspaceStore, name: str | None) -> str:
    """Return the full id of the adapter that an id, a prefix of one or an alias names.

    Without a name it is the newest.

    Raises:
        UserError: there is none of that name, or none at all, or it was set aside.
    """
    if name is None:
        with kept.catalog.reading() as connection:
            newest = connection.execute(_NEWEST).fetchone()
        if newest is None:
            raise StoreRequestError("no adapter is there yet", fix="train one: gapmend train")
        return str(newest[0])
    target = kept.catalog.alias(name)
    if target is None and name == CHAMPION:
        raise StoreRequestError("no adapter is champion yet", fix="promote one: gapmend promote")
    manifest = kept.catalog.manifest(target or name)
    if not is_tuned(manifest):
        raise StoreRequestError(f"'{name}' is a {manifest.kind}", expected="an adapter")
    refuse_removed(kept, manifest)
    return manifest.id


def weights_named(kept: WorkspaceStore, name: str) -> Manifest[Meta]:
    """Return the manifest of the adapter or merged model that an id, a prefix or an alias names.

    Raises:
        UserError: there is none of that name, it was set aside, or it is something else.
    """
    manifest = kept.catalog.manifest(kept.catalog.alias(name) or name)
    refuse_removed(kept, manifest)
    if manifest.kind not in ("adapter", "model"):
        raise StoreRequestError(
            f"'{name}' is a {manifest.kind}", expected="an adapter or merged model"
        )
    return manifest


def refuse_removed(kept: WorkspaceStore, manifest: Manifest[Meta]) -> None:
    """Raise UserError where a thing was set aside."""
    from registry.store.kinds import RemovalMeta

    if removal := kept.catalog.find(RemovalMeta, object=manifest.id):
        why = f": {removal.meta.reason}" if removal.meta.reason else ""
        what = f"{manifest.kind} {manifest.id[:12]}"
        raise StoreRequestError(f"{what} was set aside{why}", expected="another one")
