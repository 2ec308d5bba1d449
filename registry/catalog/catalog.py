"""The catalog: which objects are acknowledged, and SQL over all of them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from registry.catalog import tables as derive
from registry.catalog.database import CATALOG_NAME, log_of
from registry.catalog.open import open_catalog
from registry.catalog.session import QueryResult, SqlSession
from registry.catalog.sql import Value, fill
from registry.errors import AliasMovedError, StoreError
from registry.store.hashing import canonical_json, digest
from registry.store.objects import ObjectRef, Parent, Store, read_manifest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import polars as pl
    from duckdb import DuckDBPyConnection

    from registry.store.kinds import RunMeta
    from registry.store.manifest import Manifest, Meta
    from registry.store.objects import ManifestJson

__all__ = ["ANY", "Catalog", "QueryResult"]

_M = TypeVar("_M", bound="Meta")


@dataclass(frozen=True)
class _AnyTarget:
    """Type of `ANY`: the alias may point anywhere."""


ANY = _AnyTarget()
Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of the catalog's files: inode, time and size; None for one that isn't there."""

_AT_ONCE = 500  # manifests in memory while all of a kind are read
_NEWEST = "ORDER BY created_at DESC, id DESC LIMIT 1"
# What waits for a commit is whole on the disk, and found again after a kill; others see it later.
_MOST_WAIT_S = 300


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
        # id -> kind of what this process knows to be committed: it stays so, for everybody. What is
        # said of it is in the store, and read there.
        self._acknowledged: dict[str, str] = {}
        self._waiting: list[ObjectRef] = []
        self._together = 0
        self._since = 0.0

    def commit(self, refs: Sequence[ObjectRef]) -> None:
        """Acknowledge objects, all or none; on return they survive a crash.

        Objects that are committed already stay as they are. One that was put before, by a run
        that never came to commit it, is given the parents of this put. What is committed later is
        newer: where others were committed since an object was put, it is dated anew.

        Raises:
            StoreError: when an object's files are not there, or a parent is neither committed
                nor among `refs`.
            UserError: when the catalog is held by another program, or the disk is full.
        """
        refs = [*self._waiting, *refs]
        with open_catalog(self.root, wait_s=self.wait_s, write=True) as connection:
            self._acknowledge(connection, refs)
        self._acknowledged |= {ref.id: ref.kind for ref in refs}
        self._waiting.clear()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what is committed `soon` in the body wait for a commit, at the latest for its end."""
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            if self._waiting and not self._together:
                try:
                    self.commit([])
                finally:
                    self._waiting.clear()

    def commit_soon(self, ref: ObjectRef) -> None:
        """Commit an object with the next ones, in one transaction, or at once; see `together`.

        It is on the disk, whole: who is killed before finds it there and commits it then.
        """
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(ref)
        if not self._together or time.monotonic() - self._since > _MOST_WAIT_S:
            self.commit([])

    def knows(self, ref: ObjectRef) -> bool:
        """Whether an object is committed, or waits for it; see `commit_soon`."""
        waits = any(one.id == ref.id for one in self._waiting)
        return waits or self._by_id(ref.kind, ref.id) is not None

    @overload
    def find(self, kind: type[_M], **values: Any) -> Manifest[_M] | None: ...
    @overload
    def find(self, kind: str, **values: Any) -> Manifest[Meta] | None: ...
    def find(self, kind: type[Meta] | str, **values: Any) -> Manifest[Meta] | None:
        """Newest committed object of a kind whose identity or meta has all these values.

        Raises:
            StoreError: its manifest doesn't fit; so for all that return manifests.
        """
        condition, parameters = _having(kind, values)
        found = self._manifests(f"{condition} {_NEWEST}", parameters)
        return found[0] if found else None

    def find_run(self, stage: str, key: str) -> Manifest[RunMeta] | None:
        """The committed run of a stage under a key, if that has succeeded before."""
        from registry.store.kinds import RunMeta

        run_id = digest({"kind": "run", "identity": {"stage": stage, "key": key}})
        found = self._by_id("run", run_id)
        return found.of(RunMeta) if found else None

    @overload
    def manifest(self, id_or_prefix: str, meta: type[_M]) -> Manifest[_M]: ...
    @overload
    def manifest(self, id_or_prefix: str) -> Manifest[Meta]: ...
    def manifest(self, id_or_prefix: str, meta: type[Meta] | None = None) -> Manifest[Meta]:
        """Manifest of the committed object whose id starts so.

        Args:
            id_or_prefix: its id, or the beginning of it.
            meta: the model of its kind, where it must be of one.

        Raises:
            UserError: when there is none, or more than one.
            StoreError: when its manifest doesn't fit, or it is of another kind.
        """
        if known := self._read(id_or_prefix):
            return known if meta is None else known.of(meta)
        with self.reading() as connection:
            object_id = derive.resolve(connection, id_or_prefix)
            texts = _texts(connection, "id = ?", [object_id])
        found = self._typed(texts[0])
        self._acknowledged[found.id] = found.kind
        return found if meta is None else found.of(meta)

    @overload
    def committed(self, kind: type[_M], **values: Any) -> list[Manifest[_M]]: ...
    @overload
    def committed(self, kind: str, **values: Any) -> list[Manifest[Meta]]: ...
    def committed(self, kind: type[Meta] | str, **values: Any) -> Sequence[Manifest[Meta]]:
        """Manifests of a kind's committed objects that have all these values, oldest first."""
        condition, parameters = _having(kind, values)
        return self._manifests(f"{condition} ORDER BY created_at, id", parameters)

    def committed_of(self, *kinds: type[Meta]) -> dict[str, list[Manifest[Any]]]:
        """Manifests of the committed objects of several kinds at one moment, oldest first."""
        found: dict[str, list[Manifest[Any]]] = {kind.of_kind: [] for kind in kinds}
        for manifest in self._manifests("kind IN ? ORDER BY created_at, id", [tuple(found)]):
            found[manifest.kind].append(manifest)
        return found

    @overload
    def each(self, kind: type[_M]) -> Iterator[Manifest[_M]]: ...
    @overload
    def each(self, kind: str) -> Iterator[Manifest[Meta]]: ...
    def each(self, kind: type[Meta] | str) -> Iterator[Manifest[Meta]]:
        """Manifests of a kind's committed objects, oldest first, a few hundred in memory at a time.

        What is committed meanwhile may come or not.
        """
        last = ("-infinity", "")
        while True:
            found = self._manifests(
                "kind = ? AND (created_at, id) > (?::TIMESTAMP, ?)"
                f" ORDER BY created_at, id LIMIT {_AT_ONCE}",
                [_name(kind), *last],
            )
            yield from found
            if len(found) < _AT_ONCE:
                return
            last = (found[-1].meta.created_at, found[-1].id)

    def reading(self) -> AbstractContextManager[DuckDBPyConnection]:
        """Attach the catalog for a few small statements of our own, on its tables themselves.

        Everybody else waits for as long: what may take longer asks a copy, with `query`.
        """
        return open_catalog(self.root, wait_s=self.wait_s, write=False)

    def query(
        self, sql: str, params: Sequence[Value] = (), *, only: Collection[str] | None = None
    ) -> QueryResult:
        """Run our own SELECT over the views.

        Args:
            sql: the statement; `?` stands for parameters alone.
            params: values for its `?`.
            only: ids of the objects to look at; by default all, which copies them all.
        """
        with SqlSession(self.root, wait_s=self.wait_s, only=only) as session:
            return session.run(fill(sql, params))

    def sql(
        self,
        sql: str,
        params: Sequence[Any] = (),
        max_rows: int | None = None,
        within_s: float | None = None,
    ) -> QueryResult:
        """Run a user's SELECT over the views, with no way to write or to reach other files.

        Args:
            sql: one SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE, SHOW TABLES).
            params: values for its `?`.
            max_rows: stop after so many rows and say so in the result.
            within_s: stop after so many seconds; by default it takes what it takes.

        Raises:
            UserError: with DuckDB's message, in one line, or it takes longer.
        """
        with SqlSession(self.root, wait_s=self.wait_s) as session:
            return session.run_guarded(sql, params, max_rows, within_s)

    def frame(self, sql: str, params: Sequence[Any] = ()) -> pl.DataFrame:
        """Run a user's SELECT like `sql`, and return all of it as a frame.

        Raises:
            UserError: as `sql`.
        """
        with SqlSession(self.root, wait_s=self.wait_s) as session:
            return session.frame_guarded(sql, params)

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
            self._acknowledge(connection, [ref])
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
        from registry.store.kinds import AliasMeta

        with open_catalog(self.root, wait_s=self.wait_s, write=True) as connection:
            now, moves = derive.alias_state(connection, name)
            if not isinstance(expect, _AnyTarget) and now != expect:
                points = f"alias {name} points at {_short(now)}, not at {_short(expect)}"
                raise AliasMovedError(f"{points}: it was moved meanwhile")
            ref = store.put(
                "alias",
                None,
                identity={"name": name, "target": target, "previous": now, "seq": moves + 1},
                parents=[Parent(target, "target")],
                meta=AliasMeta(reason=reason),
            )
            self._acknowledge(connection, [ref])

    def stamp(self) -> Stamp:
        """What the catalog's file and its log look like: every commit changes it."""
        path = self.root / CATALOG_NAME
        return tuple(_state(one) for one in (path, log_of(path)))

    def alias(self, name: str) -> str | None:
        """Id of the object that an alias points at now; None when it was never set."""
        with self.reading() as connection:
            return derive.alias_state(connection, name)[0]

    def _acknowledge(self, connection: DuckDBPyConnection, refs: Sequence[ObjectRef]) -> None:
        manifests = [_checked_manifest(ref) for ref in refs]
        known = derive.committed(connection, [ref.id for ref in refs])
        newest = derive.newest(connection)
        for position, (ref, manifest) in enumerate(zip(refs, manifests, strict=True)):
            if ref.id in known:
                continue
            if _was_put_before(ref, manifest) or derive.created(manifest) <= newest:
                manifests[position] = Store(self.root).adopt(ref, after=newest)
            newest = derive.created(manifests[position])
        _insert(connection, manifests)

    def _by_id(self, kind: str, object_id: str) -> Manifest[Any] | None:
        if found := self._read(object_id):
            return found
        if not (self.root / "objects" / kind / object_id).is_dir():
            return None  # what is committed was put before
        manifests = self._manifests("id = ?", [object_id])
        if not manifests:
            return None
        self._acknowledged[object_id] = kind
        return manifests[0]

    def _read(self, object_id: str) -> Manifest[Any] | None:
        """Return from the store what is said of an object that is known to be committed."""
        from registry.store.kinds import KINDS
        from registry.store.manifest import Meta, manifest_in

        kind = self._acknowledged.get(object_id)
        if kind is None:
            return None
        try:
            return manifest_in(self.root / "objects" / kind / object_id, KINDS.get(kind, Meta))
        except StoreError:  # lost: the catalog has a copy
            return None

    def _manifests(self, condition: str, parameters: Sequence[Value]) -> list[Manifest[Any]]:
        with self.reading() as connection:
            texts = _texts(connection, condition, parameters)
        return [self._typed(text) for text in texts]

    def _typed(self, kind_and_text: tuple[str, str]) -> Manifest[Any]:
        from registry.store.kinds import KINDS  # pydantic and twenty models: not for lists and SQL
        from registry.store.manifest import Meta, manifest_of

        kind, text = kind_and_text
        return manifest_of(text, self.root / "objects", KINDS.get(kind, Meta))


def _having(kind: type[Meta] | str, values: Mapping[str, Any]) -> tuple[str, list[Value]]:
    """Return the condition for objects whose identity or meta has all these values."""
    # Both sides are canonical JSON text.
    matches = ["(? IN ((manifest->'identity')->?, (manifest->'meta')->?))" for _ in values]
    parameters: list[Value] = [_name(kind)]
    for key, value in values.items():
        parameters += [canonical_json(value).decode(), key, key]
    return " AND ".join(["kind = ?", *matches]), parameters


def _name(kind: type[Meta] | str) -> str:
    return kind if isinstance(kind, str) else kind.of_kind


def _texts(
    connection: DuckDBPyConnection, condition: str, parameters: Sequence[Value]
) -> list[tuple[str, str]]:
    """Return kind and manifest, as JSON text, of committed objects."""
    statement = f"SELECT kind, manifest FROM catalog.objects WHERE {condition}"  # noqa: S608
    return connection.execute(fill(statement, parameters)).fetchall()


def _checked_manifest(ref: ObjectRef) -> ManifestJson:
    manifest = read_manifest(ref.path)
    for name, facts in manifest["files"].items():
        file = ref.path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            message = f"{file} is missing or has not the size that its manifest says"
            raise StoreError(message)
    return manifest


def _insert(connection: DuckDBPyConnection, manifests: Sequence[ManifestJson]) -> None:
    added = derive.add(connection, manifests)
    parents = {parent["id"] for manifest in manifests for parent in manifest["parents"]}
    absent = parents - derive.committed(connection, sorted(parents))
    for manifest in manifests:
        for parent in manifest["parents"]:
            if parent["id"] in absent:
                message = (
                    f"{manifest['kind']} {manifest['id'][:12]} names the parent "
                    f"{parent['id'][:12]} ({parent['role']}), which is not committed"
                )
                raise StoreError(message)
    derive.derive(connection, added)


def _was_put_before(ref: ObjectRef, manifest: ManifestJson) -> bool:
    """Whether the manifest is of an earlier put, which named other parents."""
    return ref.wanted is not None and manifest["parents"] != [asdict(p) for p in ref.wanted]


def _short(target: str | None) -> str:
    return target[:12] if target else "nothing"


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
