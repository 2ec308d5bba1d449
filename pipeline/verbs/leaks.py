"""leaks: what is trained on and measured by at once.

The train rows of every dataset, or the rows of one selection or adapter, are held against the dev
and test rows of every dataset and the documents of the guards' lm-eval tasks. Training rows stream
by, the items stay in memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.ingest import resolve
from pipeline.measure.held_items import held_items
from pipeline.selection.candidates import pool_of
from pipeline.selection.held_out import rows_to_train
from pipeline.selection.selection import KIND as SELECTION
from pipeline.selection.selection import read_selection
from pipeline.spec.subjects import subjects
from registry.datasets.duplicates.overlap import KINDS, HeldOut, RowWords
from registry.datasets.versions.read import AT_ONCE, VersionReader
from registry.errors import StoreRequestError
from registry.store.kinds import VersionMeta

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.duplicates.overlap import Kind
    from registry.datasets.versions.read import RowText

_SHOWN = 1000  # rows kept of each pair of sets and kind, to be shown; all are counted
_EXCERPT = 200


@dataclass(frozen=True)
class Pair:
    """Rows of one training set that overlap one dev or test set, each in its strongest kind.

    Attributes:
        training: the dataset, selection or adapter.
        held_out: the dev or test set.
        exact: rows that are in it.
        near_duplicate: rows whose question is nearly one of its questions.
        gram: rows that share 13 words in a row with it.
        decides: whether an adapter may be trained on the rows, as the spec is.
    """

    training: str
    held_out: str
    exact: int
    near_duplicate: int
    gram: int
    decides: bool


@dataclass(frozen=True)
class LeakedRow:
    """One training row that overlaps an item, with the beginning of what both say."""

    training: str
    held_out: str
    kind: Kind
    row_uid: int
    row: str  # file and line
    item: str  # file and line, or the number of a document
    row_text: str
    item_text: str


@dataclass(frozen=True)
class LeaksReport:
    """What leaks.

    Attributes:
        rows: training rows that were looked at.
        items: items that they were held against, of all sets.
        sets: the dev and test sets, with their items.
        leaking: training rows that overlap any of them.
        pairs: the pairs of sets that overlap.
        shown: the rows, at most 1,000 of each pair and kind.
    """

    rows: int
    items: int
    sets: dict[str, int]
    leaking: int
    pairs: tuple[Pair, ...]
    shown: tuple[LeakedRow, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing that an adapter may be trained on is measured by."""
        return not any(pair.decides for pair in self.pairs)

    def counted(self, *, show: bool) -> dict[str, Any]:
        """Return the report as JSON values, with the rows if they are to be shown."""
        found = {key: value for key, value in asdict(self).items() if key != "shown"}
        found["clean"] = self.clean
        return found | {"shown": [asdict(row) for row in self.shown]} if show else found


def leaks(ws: OpenWorkspace, ui: Ui, thing: str | None = None) -> LeaksReport:
    """Look for overlap between training rows and every dev and test set.

    Args:
        ws: the workspace.
        ui: for progress.
        thing: a selection or adapter, whose rows are looked at; without it, every train split.

    Raises:
        UserError: no such selection or adapter; a dataset or task that can't be read.
    """
    named = None if thing is None else _rows_of(ws, thing)
    resolved = resolve(ws, ui)
    with ui.progress("leaks · dev and test items", brief=True):
        search = _LeakSearch(HeldOut(held_items(resolved)))
    if named is None:
        trained_on = _may_be_trained_on(ws)
        for name in ws.spec.datasets:
            splits = ws.catalog.manifest(resolved.versions[name], VersionMeta).meta.splits
            rows = _Rows(name, splits.get("train", 0), _train_rows(resolved, name))
            search.look(ui, rows, decides=name in trained_on)
    else:
        name, uids = named
        rows = _Rows(name, len(uids), rows_to_train(resolved, uids))
        search.look(ui, rows, decides=True)
        if missing := len(uids) - search.rows:
            ui.log(f"{missing} rows of {name} are in no dataset of the spec and were not looked at")
    return search.report()


def _may_be_trained_on(ws: OpenWorkspace) -> set[str]:
    """Return the datasets that select draws from: the pool, and all that may be replayed."""
    unseen = ws.spec.witnesses
    measured = (what.spec.data for what in subjects(ws.spec) if what.name not in unseen)
    return {*pool_of(ws), *(data for data in measured if data is not None)}


def _train_rows(ws: Resolved, name: str) -> Iterator[list[RowText]]:
    return VersionReader(ws.store, ws.versions[name], name).texts(("train",))


def _rows_of(ws: OpenWorkspace, thing: str) -> tuple[str, Collection[int]]:
    """Return what a selection or adapter is called, and the uids of its rows."""
    manifest = ws.catalog.manifest(ws.catalog.alias(thing) or thing)
    if manifest.kind == SELECTION:
        chosen = read_selection(ws.store, manifest.id)
        return f"selection {manifest.id[:12]}", {row.row_uid for row in chosen}
    if manifest.kind not in ("adapter", "model"):
        raise StoreRequestError(
            f"'{thing}' is a {manifest.kind}", expected="a selection or an adapter"
        )
    question = "SELECT DISTINCT row_uid FROM rows_of(?)"
    rows = ws.catalog.query(question, [manifest.id]).rows
    return f"{manifest.kind} {manifest.id[:12]}", {row[0] for row in rows}


class _Rows(NamedTuple):
    """The rows of one training set: what it is called, how many, and some at a time."""

    name: str
    total: int
    batches: Iterable[list[RowText]]


class _LeakSearch:
    """The counts and the first rows of what is found."""

    def __init__(self, held: HeldOut) -> None:
        self._held = held
        self._counts: Counter[tuple[str, str, Kind]] = Counter()
        self._decides: dict[str, bool] = {}
        self._shown: list[LeakedRow] = []
        self._waiting: list[tuple[str, RowText]] = []
        self._leaking = 0
        self.rows = 0

    def look(self, ui: Ui, of: _Rows, *, decides: bool) -> None:
        """Look at the rows of one training set, some later than others: together it costs less."""
        self._decides[of.name] = decides
        with ui.progress(f"leaks · {of.name}", of.total, "rows") as bar:
            for rows in of.batches:
                self._waiting += [(of.name, row) for row in rows]
                if len(self._waiting) >= AT_ONCE:
                    self._flush()
                self.rows += len(rows)
                bar.advance(len(rows))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        found = self._held.find([RowWords(r.row_hash, r.text, r.question) for _, r in waiting])
        for overlap in found:
            self._add(*waiting[overlap.row], overlap.item, overlap.kind)
        self._leaking += len({overlap.row for overlap in found})

    def _add(self, name: str, row: RowText, position: int, kind: Kind) -> None:
        item = self._held.items[position]
        key = (name, item.held_in, kind)
        self._counts[key] += 1
        if self._counts[key] <= _SHOWN:
            texts = (row.text[:_EXCERPT], item.text[:_EXCERPT])
            self._shown.append(
                LeakedRow(
                    *key,
                    row_uid=row.uid,
                    row=row.where,
                    item=item.where,
                    row_text=texts[0],
                    item_text=texts[1],
                )
            )

    def report(self) -> LeaksReport:
        """Return what was found, in the order of names."""
        self._flush()
        pairs = sorted({(training, held_in) for training, held_in, _ in self._counts})
        return LeaksReport(
            rows=self.rows,
            items=len(self._held.items),
            sets=dict(sorted(Counter(item.held_in for item in self._held.items).items())),
            leaking=self._leaking,
            pairs=tuple(self._pair(training, held_in) for training, held_in in pairs),
            shown=tuple(sorted(self._shown, key=_order)),
        )

    def _pair(self, training: str, held_in: str) -> Pair:
        exact, near, gram = (self._counts[training, held_in, kind] for kind in KINDS)
        return Pair(
            training=training,
            held_out=held_in,
            exact=exact,
            near_duplicate=near,
            gram=gram,
            decides=self._decides[training],
        )


def _order(row: LeakedRow) -> tuple[str, str, int, int]:
    return row.training, row.held_out, KINDS.index(row.kind), row.row_uid
