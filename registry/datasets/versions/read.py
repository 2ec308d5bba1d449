"""The reader of a version: lazy, by columns and by row group. There is no other way back.

Rows are chosen by what the files of refs say of them (uid, hash, split), which is little; only then
is content read, and of it the row groups that hold a chosen row. A version of ten million rows
costs who asks for three hundred of them no more memory than one of a thousand.

DuckDB reads. Beside polars on 200,000 rows of 800 bytes it took as much CPU for the answers of all
and a fifth of the memory (25 and 115 MiB), it has `sha256`, by which rows are chosen, and it is
there already, for the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import literal
from registry.datasets.formats.content import HELD, SPLITS
from registry.datasets.versions.query import WHOLE, joined, open_connection, version_files
from registry.datasets.versions.row import row_from
from registry.errors import DataError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from registry.datasets.versions.row import Row
    from registry.store.objects import Store

AT_ONCE = 20_000
"""Rows in Python at a time, of those that are streamed as texts."""

_BATCH = 2_000  # and of those that are streamed whole
_SPLITS = (*SPLITS, HELD)
_CHOSEN = "row_uid IN (FROM chosen)"
_PLACES = "row_uid, row_hash, split, cluster, source_file, source_line"
_REFS = f"{_PLACES}, source, license, tags, meta"
_CONTENTS = "array_to_string(list_transform(list_filter({}, t -> {}), t -> t.content), chr(10))"
_ASKED = _CONTENTS.format("messages", "t.role IN ('user', 'text')")
_SAID = _CONTENTS.format("list_concat(messages, coalesce(chosen, []))", "t.content <> ''")
_TEXTS = f"{_SAID} AS text, {_ASKED} AS question"
_USER = _CONTENTS.format("messages", "t.role = 'user'")
_USER_TEXT = (
    "CASE WHEN list_contains(list_transform(messages, t -> t.role), 'user')"
    f" THEN {_USER}"
    f" ELSE {_CONTENTS.format('messages', 'true')} END AS said"
)
# The answer to the last question of a row, as a capability takes it, where that stands at the end.
_ANSWER = """
CASE WHEN kind = 'text' THEN messages[1].content
     WHEN chosen IS NULL AND messages[-1].role = 'assistant' AND messages[-2].role = 'user'
         THEN messages[-1].content
     WHEN messages[-1].role = 'user' AND chosen[1].role = 'assistant'
          AND NOT list_contains(list_transform(chosen, t -> t.role), 'user')
         THEN chosen[1].content
END
"""


@dataclass(frozen=True, slots=True)
class RowText:
    """What one row says and where it stands; `question` is its user turns, or all of a text."""

    uid: int
    row_hash: str
    split: str
    cluster: int
    source_file: str
    source_line: int
    text: str
    question: str

    @property
    def where(self) -> str:
        """Its file and line."""
        return f"{self.source_file}:{self.source_line}"


@dataclass(frozen=True)
class DistinctAnswers:
    """The different answers of a version's rows; those of `others` end with something else."""

    distinct: frozenset[str]
    others: tuple[int, ...]  # uids, ascending


class VersionReader:
    """The rows of one version. Each question opens the files anew and reads what it needs.

    Splits are train, dev, test and held; another one is a `UserError`. Files that are missing or
    damaged are a `StoreError`.
    """

    def __init__(self, store: Store, version_id: str, dataset: str | None = None) -> None:
        """Find the files of a version by its full id; nothing is read but its manifest.

        Args:
            store: where it is.
            version_id: its full id.
            dataset: the name that its rows go by and the places that they stand in are those of
                this dataset; by default, of the one that had these rows first.

        Raises:
            StoreError: the version, or content that it names, is not in the store.
        """
        self.store = store
        self.version_id = version_id
        self.dataset = dataset
        self.files = version_files(store, version_id, dataset)

    def counts(self) -> dict[str, int]:
        """Return how many rows are in each split that has any."""
        with self._open() as connection:
            return dict(
                connection.execute("SELECT split, count(*) FROM v_refs GROUP BY 1").fetchall()
            )

    def kinds(self, split: str) -> dict[str, int]:
        """Return how many rows of each kind a split has; nothing else of them is read."""
        refs = _refs("row_uid", (split,))
        sql = (
            f"SELECT kind, count(*) FROM v_rows SEMI JOIN ({refs}) AS r USING (row_uid) GROUP BY 1"  # noqa: S608 - our own words
        )
        with self._open() as connection:
            return dict(connection.execute(sql).fetchall())

    def uids(
        self,
        splits: Collection[str],
        *,
        salt: str | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[int]:
        """Return uids of rows in these splits, ascending; or in the order of a salted hash.

        Args:
            splits: where from.
            salt: orders by sha256 of `salt:row_hash`: no row's place depends on other rows.
            limit: at most so many, the first in the order.
            skip: without so many at its beginning.
        """
        order = "ORDER BY row_uid" if salt is None else _by_hash(salt)
        cut = "" if limit is None else f"LIMIT {limit}"
        sql = f"{_refs('row_uid', splits)} {order} {cut} OFFSET {skip}"
        with self._open() as connection:
            return [uid for (uid,) in connection.execute(sql).fetchall()]

    def rows(self, uids: Collection[int], splits: Collection[str] = _SPLITS) -> list[Row]:
        """Return those of these rows that the version has in these splits, ascending by uid."""
        sql = f"{_refs(_REFS, splits)} AND {_CHOSEN} ORDER BY row_uid"
        return [row for some in self._rows(sql, uids) for row in some]

    def batches(self, splits: Collection[str]) -> Iterator[list[Row]]:
        """Yield the rows of these splits, ascending by uid, some at a time."""
        yield from self._rows(f"{_refs(_REFS, splits)} ORDER BY row_uid")

    def by_hash(self, splits: Collection[str], salt: str, first: int) -> Iterator[Row]:
        """Yield the rows of these splits in the order of a salted hash, as `uids` has it.

        Args:
            splits: where from.
            salt: as for `uids`.
            first: how many will probably be enough; read at once, and then twice as many, again.
        """
        skip = 0
        while rows := self.first(splits, salt, first, skip=skip):
            yield from rows
            skip, first = skip + len(rows), 2 * first

    def first(self, splits: Collection[str], salt: str, limit: int, *, skip: int = 0) -> list[Row]:
        """Return so many rows of these splits in the order of a salted hash; see `uids`."""
        sql = f"{_refs(_REFS, splits)} {_by_hash(salt)} LIMIT {limit} OFFSET {skip}"
        return [row for some in self._rows(sql) for row in some]

    def places(self, splits: Collection[str], hashes: Collection[str]) -> list[tuple[int, str]]:
        """Return uid, and file and line, of the rows with these hashes, ascending by uid."""
        import pyarrow as pa

        place = "row_uid, source_file || ':' || source_line"
        sql = f"{_refs(place, splits)} AND row_hash IN (FROM hashes) ORDER BY row_uid"
        with self._open() as connection:
            connection.register("hashes", pa.table({"hash": pa.array(sorted(hashes), pa.string())}))
            return connection.execute(sql).fetchall()

    def answers(self) -> DistinctAnswers:
        """Return the different answers in all splits; no column but the turns is read."""
        with self._open() as connection:
            rows = f"FROM v_rows {self._ours(connection)}"
            found = connection.execute(f"SELECT DISTINCT {_ANSWER} {rows}").fetchall()
            answers = {answer for (answer,) in found}
            others = f"SELECT row_uid {rows} WHERE {_ANSWER} IS NULL ORDER BY row_uid"
            uids = connection.execute(others).fetchall() if None in answers else []
        return DistinctAnswers(frozenset(answers - {None}), tuple(uid for (uid,) in uids))

    def texts(
        self, splits: Collection[str], only: Collection[int] | None = None
    ) -> Iterator[list[RowText]]:
        """Yield what the rows of these splits say, in the version's order; of all, or some uids."""
        sql = _refs(_PLACES, splits) + ("" if only is None else f" AND {_CHOSEN}")
        for batch in self._whole(sql, _TEXTS, AT_ONCE, only):
            yield [RowText(*values) for values in zip(*batch.to_pydict().values(), strict=True)]

    def user_texts(self, uids: Collection[int]) -> dict[int, str]:
        """Return by uid the text in which near-duplicates are looked for; see `rows.user_text`."""
        found: dict[int, str] = {}
        for batch in self._whole(
            f"{_refs('row_uid', _SPLITS)} AND {_CHOSEN}", _USER_TEXT, AT_ONCE, uids
        ):
            found.update(zip(*batch.to_pydict().values(), strict=True))
        return found

    def lines(self, splits: Collection[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield refs and content of these splits, a dict a row, in the version's order."""
        for batch in self._whole(_refs(f"{_REFS}, position", splits), WHOLE, _BATCH):
            yield batch.to_pylist()

    def _rows(self, refs: str, only: Collection[int] | None = None) -> Iterator[list[Row]]:
        for batch in self._whole(refs, WHOLE, _BATCH, only):
            named = {} if self.dataset is None else {"source": self.dataset}
            yield [row_from(line | named, line) for line in batch.to_pylist()]

    def _whole(
        self, refs: str, content: str, most: int, only: Collection[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield what `joined` does, of rows that all have their content."""
        if only is not None and not len(only):
            return
        wanted = found = 0

        def count(rows: int) -> None:
            nonlocal wanted
            wanted += rows

        with self._open() as connection:
            chunk = self.files.chunk_rows()
            for batch in joined(
                connection, refs, content, most, chunk=chunk, only=only, count=count
            ):
                found += batch.num_rows
                yield batch
        if found < wanted:
            raise StoreError(
                f"{wanted - found} rows of dataset version {self.version_id[:12]} have no content "
                "in the store; `gapmend fsck` lists what is damaged"
            )

    def _ours(self, connection: DuckDBPyConnection) -> str:
        """Return what keeps a query of content to the version's rows, where there are others."""
        (rows,) = connection.execute("SELECT count(*) FROM v_refs").fetchone() or (0,)
        return "" if rows == self.files.content_rows() else "SEMI JOIN v_refs USING (row_uid)"

    def _open(self) -> AbstractContextManager[DuckDBPyConnection]:
        return open_connection(self.store, v=self.files)


def _refs(columns: str, splits: Collection[str]) -> str:
    """Return the query of these columns of refs in these splits."""
    for split in splits:
        if split not in _SPLITS:
            raise DataError(f"no split is called '{split}'", expected=", ".join(_SPLITS))
    wanted = literal(tuple(sorted(splits)) or (None,))  # which nothing is in
    return f"SELECT {columns} FROM v_refs WHERE split IN {wanted}"  # noqa: S608 - our own words


def _by_hash(salt: str) -> str:
    return f"ORDER BY sha256({literal(f'{salt}:')} || row_hash)"
