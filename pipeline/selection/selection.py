"""A selection: the rows that a run is trained on, each with what for, why, and its score.

The object has `rows.parquet` (in the order of training), `bitmaps.parquet` (the same row uids as
bits) and, where rows were refused, `rejects.parquet`. Its id is decided by base and rows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.spec.pool import TRAINABLE
from registry.errors import StoreRequestError
from registry.store.filenames import BITMAPS, REJECTS, ROWS
from registry.store.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.training.losses.objective import TrainingExample
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.formats.content import Message
    from registry.datasets.versions.row import Row
    from registry.store.kinds import SelectionMeta
    from registry.store.objects import ObjectRef, Parent, Store

KIND = "selection"

Reason = Literal["gap", "replay", "mend"]


def is_trainable(row: Row, objective: str) -> bool:
    """Return whether an objective learns from rows of this kind."""
    return row.kind in TRAINABLE[objective]


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """One row of a selection.

    Attributes:
        row_uid: the row.
        row_hash: its content.
        capability: what it is trained for, or the guard, met capability or dataset that it keeps.
        reason: `gap` (of a gap's kind), `replay` (the base gets it right, or says it by itself),
            `mend` (replayed since something was lost).
        score: cosine to the lost item it was chosen for; None where there was none.
        rank: position in the training order, from 0.
        answer: the base's own answer, which is trained on instead; None for the row's. Of a `gap`
            row it is one that is right.
        cut: whether that answer goes on where it stops: no end is trained behind it.
    """

    row_uid: int
    row_hash: str
    capability: str
    reason: Reason
    score: float | None
    rank: int
    answer: str | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class SelectReject:
    """A row that was not to be selected, in the columns of every `rejects.parquet`."""

    stage: str
    base: str
    source: str
    reason: str
    row_uid: int
    row_hash: str
    source_file: str
    source_line: int
    excerpt: str


def put_selection(
    store: Store,
    rows: Sequence[SelectedRow],
    rejects: Sequence[SelectReject],
    *,
    base_digest: str,
    parents: Sequence[Parent],
    meta: SelectionMeta,
) -> ObjectRef:
    """Put a selection into the store; the caller commits it."""
    import pyarrow as pa
    from pyarrow import parquet

    from registry.lineage.bitmaps import write_bitmaps

    with store.draft() as draft:
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())
        parquet.write_table(table, draft / ROWS, compression="zstd")
        write_bitmaps((row.row_uid for row in rows), draft / BITMAPS)
        if rejects:
            lines = pa.Table.from_pylist([asdict(reject) for reject in rejects])
            parquet.write_table(lines, draft / REJECTS, compression="zstd")
        taught = [
            [r.row_hash, r.capability, r.reason, r.answer, *(["cut"] if r.cut else [])]
            for r in rows
        ]
        identity = {"base": base_digest, "rows": digest(taught)}
        return store.put(KIND, draft, identity=identity, parents=parents, meta=meta)


def read_selection(store: Store, selection_id: str) -> list[SelectedRow]:
    """Return a selection's rows in the order of training (StoreError when absent)."""
    from pyarrow import parquet

    with parquet.ParquetFile(store.get(KIND, selection_id).path / ROWS) as file:
        lines = file.read().to_pylist()
    return sorted((SelectedRow(**line) for line in lines), key=lambda row: row.rank)


def training_rows(ws: Resolved, selection_id: str) -> list[TrainingExample]:
    """Return a selection's rows as conversations to train on, in their order.

    A row of a capability's or guard's own dataset is asked by its zero-shot prompt, as it is
    measured; any other row is taken as it stands.
    """
    from pipeline.ingest import own_text_versions
    from pipeline.measure.measure import labels_of_subject
    from pipeline.spec.subjects import subjects
    from registry.datasets.versions.read import VersionReader

    selected = read_selection(ws.store, selection_id)
    wanted = {row.row_uid for row in selected}
    found: dict[str, dict[int, Row]] = {}
    for name in ws.spec.datasets:
        reader = VersionReader(ws.store, ws.versions[name], name)
        found[name] = {row.uid: row for row in reader.rows(wanted, {"train"})}
    by_uid = {uid: row for rows_of in found.values() for uid, row in rows_of.items()}
    if wanted - by_uid.keys():
        for version in own_text_versions(ws):
            rows = VersionReader(ws.store, version).rows(wanted - by_uid.keys(), {"train"})
            by_uid |= {row.uid: row for row in rows}
    if gone := sorted(wanted - by_uid.keys()):
        raise StoreRequestError(
            f"{len(gone)} of the selected rows are not there any more, row {gone[0]} first",
            fix="choose rows again: gapmend select",
        )
    labels = {
        what.name: labels_of_subject(ws, what)
        for what in subjects(ws.spec)
        if any(row.capability == what.name for row in selected)
    }
    asked = {what.name: found[what.spec.data] for what in subjects(ws.spec) if what.spec.data}
    return [
        render(
            ws,
            asked.get(row.capability, by_uid).get(row.row_uid, by_uid[row.row_uid]),
            row.capability,
            row.answer,
            labels.get(row.capability, ()),
            keeps=row.reason != "gap",
            cut=row.cut,
        )
        for row in selected
    ]


def render(
    ws: OpenWorkspace,
    row: Row,
    name: str,
    answer: str | None = None,
    labels: Sequence[str] = (),
    *,
    keeps: bool = False,
    cut: bool = False,
) -> TrainingExample:
    """Return `row` as a training example for capability or guard `name`, by the spec's objective.

    Args:
        ws: whose spec has the prompts.
        row: an instruction, preference or text row.
        name: a capability or guard; or a dataset, whose rows are taken as they stand.
        answer: the base's, stands in for the row's own.
        labels: fill `{labels}` in the prompt.
        keeps: it is replayed.
        cut: the answer goes on where it stops.
    """
    from evals.tasks.capability import items_from_rows
    from evals.tasks.prompts import arms_of, render_messages
    from pipeline.training.examples.encode import TrainingRow
    from pipeline.training.examples.pairs import FeedbackRow, PreferenceRow

    spec = ws.spec.capabilities.get(name) or ws.spec.guards.get(name)
    tools = json.loads(row.tools) if row.tools else None
    where = f"{row.source_file}:{row.source_line}"
    objective = ws.spec.train.objective
    question, chosen, rejected = (
        tuple(_turn(turn) for turn in turns or ())
        for turns in (row.messages, row.chosen, row.rejected)
    )
    prefers = objective in ("dpo", "orpo") and row.kind == "preference"
    as_stands = spec is None or spec.data != row.dataset or row.kind == "text"
    is_own = as_stands and answer is not None
    if is_own:
        question, chosen = asked_of(row), ({"role": "assistant", "content": answer},)
    if objective == "kto" and row.kind == "feedback":
        good = bool(row.label) or is_own
        return FeedbackRow(row.uid, (*question, *chosen), good, tools, name, where)
    if as_stands and prefers:
        return PreferenceRow(row.uid, question, chosen, rejected, tools, name, where)
    if spec is None or as_stands:
        return TrainingRow(row.uid, (*question, *chosen), tools, name, where, keeps)
    item = items_from_rows([row], spec, whole=True)[0]
    asked = render_messages(arms_of(spec.prompts)[0], item, (), labels)
    said = {"role": "assistant", "content": item.expected if answer is None else answer}
    if answer is None and item.reasoning:
        said["reasoning"] = item.reasoning
    context = tuple(
        {**turn, "train": False} if turn["role"] == "assistant" else {**turn} for turn in asked
    )
    if prefers:
        return PreferenceRow(row.uid, context, (said,), rejected, tools, name, where)
    return TrainingRow(row.uid, (*context, said), tools, name, where, keeps, cut)


def answer_of(row: Row) -> str:
    """Return the last thing that a row says, of a preference the better answer."""
    return (*row.messages, *(row.chosen or ()))[-1].content


def asked_of(row: Row) -> tuple[dict[str, Any], ...]:
    """Return the turns before a row's last answer, none of which is trained.

    Empty where there is nothing to ask: of a plain text, and where the question isn't the last of
    them. Of a row with tools too, since its answer may be a call.
    """
    turns = row.messages
    if row.kind in ("sft", "feedback"):
        turns = turns[:-1] if turns and turns[-1].role == "assistant" else ()
    asks = turns and turns[-1].role == "user" and turns[-1].content.strip()
    if row.tools is not None or not asks or any(turn.tool_calls for turn in turns):
        return ()
    told = (_turn(turn) for turn in turns)
    return tuple({**t, "train": False} if t["role"] == "assistant" else t for t in told)


def _turn(message: Message) -> dict[str, Any]:
    from registry.chat.messages import as_turn

    turn = as_turn(message)
    if message.train is not None:
        turn["train"] = message.train
    return turn


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("row_uid", pa.int64()),
            ("row_hash", pa.string()),
            ("capability", pa.string()),
            ("reason", pa.string()),
            ("score", pa.float64()),
            ("rank", pa.int64()),
            ("answer", pa.string()),
            ("cut", pa.bool_()),
        ]
    )
