"""The catalog: which objects are acknowledged, and SQL over all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.attach import index_manifest, open_catalog
from registry.errors import StoreError, UserError
from registry.hashing import canonical_json, digest
from registry.store import ObjectRef, Parent, Store, read_manifest
from registry.views import QueryResult, SqlSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

    from registry.store import Manifest

__all__ = ["ANY", "Catalog", "QueryResult"]


@dataclass(frozen=True)
class _AnyTarget:
    """Type of `ANY`: the alias may point anywhere."""


ANY = _AnyTarget()
_NEWEST = "ORDER BY created_at DESC, id DESC LIMIT 1"


class Catalog:
    """The index over one store; opened for each call and closed again before it returns."""

    def __init__(self, root: Path, *, wait_s: float = 30) -> None:
        """Remember where the store is.

        Args:
            root: the store's folder, `<workspace>/.gapmend`.
            wait_s: seconds that a call waits for another process before it gives up.
        """
        self.root = Path(root)
        self.wait_s = wait_s

    def commit(self, refs: Sequence[ObjectRef]) -> None:
        """Acknowledge objects, all or none; on return they survive a crash.

        Objects that are committed already stay as they are. One that was put before, by a run
        that never came to commit it, is given the parents of this put.

        Raises:
            StoreError: when an object's files are not there, or a parent is neither committed
                nor among `refs`.
            UserError: when the catalog is held by another program, or the disk is full.
        """
        manifests = [_checked_manifest(ref) for ref in refs]
        store = Store(self.root)
        with open_catalog(self.root, wait_s=self.wait_s, write=True) as connection:
            for position, (ref, manifest) in enumerate(zip(refs, manifests, strict=True)):
                if not _is_committed(connection, ref.id) and _was_put_before(ref, manifest):
                    manifests[position] = store.adopt(ref)
            _insert(connection, manifests)

    def find(self, kind: str, **values: Any) -> Manifest | None:
        """Newest committed object of a kind whose identity or meta has all these values."""
        # Both sides are canonical JSON text.
        matches = ["(? IN ((manifest->'identity')->?, (manifest->'meta')->?))" for _ in values]
        condition = " AND ".join(["kind = ?", *matches])
        parameters: list[str] = [kind]
        for key, value in values.items():
            parameters += [canonical_json(value).decode(), key, key]
        found = self._manifests(f"{condition} {_NEWEST}", parameters)
        return found[0] if found else None

    def find_run(self, stage: str, key: str) -> Manifest | None:
        """The committed run of a stage under a key, if that has succeeded before."""
        return self._by_id(digest({"kind": "run", "identity": {"stage": stage, "key": key}}))

    def manifest(self, id_or_prefix: str) -> Manifest:
        """Manifest of the committed object whose id starts so.

        Raises:
            UserError: when there is none, or more than one.
        """
        found = self._manifests("starts_with(id, ?) ORDER BY id LIMIT 3", [id_or_prefix.lower()])
        if not found or not id_or_prefix:
            raise UserError(
                f"nothing in the store has the id {id_or_prefix!r}",
                fix='list ids with `gapmend sql "select kind, id from objects"`',
            )
        if len(found) > 1:
            ids = ", ".join(f"{manifest['kind']} {manifest['id'][:16]}" for manifest in found)
            raise UserError(f"the id {id_or_prefix!r} fits several objects: {ids}, …")
        return found[0]

    def committed(self, kind: str) -> list[Manifest]:
        """Manifests of a kind's committed objects, oldest first."""
        return self._manifests("kind = ? ORDER BY created_at, id", [kind])

    def query(self, sql: str, params: Sequence[Any] = ()) -> QueryResult:
        """Run our own SELECT over the views."""
        with SqlSession(self.root, wait_s=self.wait_s) as session:
            return session.run(sql, params)

    def sql(self, sql: str, params: Sequence[Any] = (), max_rows: int | None = None) -> QueryResult:
        """Run a user's SELECT over the views, with no way to write or to reach other files.

        Args:
            sql: one SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE, SHOW TABLES).
            params: values for its `?`.
            max_rows: stop after so many rows and say so in the result.

        Raises:
            UserError: with DuckDB's message, in one line.
        """
        with SqlSession(self.root, wait_s=self.wait_s) as session:
            return session.run_guarded(sql, params, max_rows)

    def reserve_uids(self, count: int) -> int:
        """Set aside `count` row uids that no other call will get; returns the first.

        A reservation is an object of its own (kind `uids`), so that a rebuilt catalog never
        gives the same uids away again.
        """
        if count < 1:
            message = f"cannot reserve {count} uids"
            raise ValueError(message)
        with open_catalog(self.root, wait_s=self.wait_s, write=True) as connection:
            row = connection.execute(
                "SELECT coalesce(max((manifest->>'$.identity.first')::BIGINT"
                " + (manifest->>'$.identity.count')::BIGINT), 0)"
                " FROM catalog.objects WHERE kind = 'uids'"
            ).fetchone()
            first = int(row[0]) if row else 0
            ref = Store(self.root).put("uids", None, identity={"first": first, "count": count})
            index_manifest(connection, read_manifest(ref.path))
        return first

    def move_alias(
        self,
        store: Store,
        name: str,
        target: str,
        *,
        expect: str | _AnyTarget | None = ANY,
        reason: str = "",
    ) -> None:
        """Point an alias at a committed object; its history is kept.

        Args:
            store: where the move is written.
            name: the alias, such as `champion`.
            target: full id of a committed object.
            expect: what it must point at now (None: nothing yet); by default anything.
            reason: why, for the history.

        Raises:
            StoreError: when the target is not committed, or the alias is not where expected.
        """
        with open_catalog(self.root, wait_s=self.wait_s, write=True) as connection:
            now, moves = _alias_state(connection, name)
            if not isinstance(expect, _AnyTarget) and now != expect:
                message = f"alias {name} points at {now}, not at {expect}: it was moved meanwhile"
                raise StoreError(message)
            ref = store.put(
                "alias",
                None,
                identity={"name": name, "target": target, "previous": now, "seq": moves + 1},
                parents=[Parent(target, "target")],
                meta={"reason": reason},
            )
            _insert(connection, [read_manifest(ref.path)])

    def alias(self, name: str) -> str | None:
        """Id of the object that an alias points at now; None when it was never set."""
        with open_catalog(self.root, wait_s=self.wait_s, write=False) as connection:
            return _alias_state(connection, name)[0]

    def _by_id(self, object_id: str) -> Manifest | None:
        found = self._manifests("id = ?", [object_id])
        return found[0] if found else None

    def _manifests(self, condition: str, parameters: list[str]) -> list[Manifest]:
        import json

        statement = f"SELECT manifest FROM catalog.objects WHERE {condition}"  # noqa: S608
        with open_catalog(self.root, wait_s=self.wait_s, write=False) as connection:
            rows = connection.execute(statement, parameters).fetchall()
        return [json.loads(row[0]) for row in rows]


def _checked_manifest(ref: ObjectRef) -> Manifest:
    manifest = read_manifest(ref.path)
    for name, facts in manifest["files"].items():
        file = ref.path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            message = f"{file} is missing or has not the size that its manifest says"
            raise StoreError(message)
    return manifest


def _insert(connection: DuckDBPyConnection, manifests: Sequence[Manifest]) -> None:
    for manifest in manifests:
        index_manifest(connection, manifest)
    for manifest in manifests:
        for parent in manifest["parents"]:
            if not _is_committed(connection, parent["id"]):
                message = (
                    f"{manifest['kind']} {manifest['id'][:12]} names the parent "
                    f"{parent['id'][:12]} ({parent['role']}), which is not committed"
                )
                raise StoreError(message)


def _is_committed(connection: DuckDBPyConnection, object_id: str) -> bool:
    found = connection.execute("SELECT 1 FROM catalog.objects WHERE id = ?", [object_id])
    return found.fetchone() is not None


def _was_put_before(ref: ObjectRef, manifest: Manifest) -> bool:
    """Whether the manifest is of an earlier put, which named other parents."""
    return ref.wanted is not None and manifest["parents"] != [asdict(p) for p in ref.wanted]


def _alias_state(connection: DuckDBPyConnection, name: str) -> tuple[str | None, int]:
    """What an alias points at and how often it was moved."""
    row = connection.execute(
        "SELECT (manifest->>'$.identity.target'), (manifest->>'$.identity.seq')::INTEGER AS seq"
        " FROM catalog.objects WHERE kind = 'alias' AND (manifest->>'$.identity.name') = ?"
        " ORDER BY seq DESC, created_at DESC, id DESC LIMIT 1",
        [name],
    ).fetchone()
    return (row[0], int(row[1])) if row else (None, 0)
