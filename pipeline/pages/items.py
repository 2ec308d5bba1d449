"""Items whose answers changed for better or worse: both answers, and the row nearest to each.

Read from the records; nothing is asked again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.pages.changed import SHOWN, AnswerChanged, changed_answers
from pipeline.selection.choose import cosines
from pipeline.selection.judge.terms import Terms
from registry.lineage.graph import lineage
from registry.store.kinds import EvalMeta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.pages.account import Measured
    from pipeline.workspace.store import WorkspaceStore

_AGAIN = ("few_shot", "cot")  # what lost items are asked again with
_MOST_ROWS = 20_000  # trained rows that a nearest one is looked for in
_MOST_READ = 20_000  # characters of an item or a row that are compared

_TAUGHT = """
SELECT capability, reason, concat(source_file, ':', source_line), messages, answer
FROM rows_that_taught(?) ORDER BY rank LIMIT ?
"""


@dataclass(frozen=True)
class NearRow:
    """A row that was trained on, and how like an item it is (cosine of TF-IDF, 0 to 1)."""

    capability: str
    reason: str
    source: str
    text: str
    likeness: float


@dataclass(frozen=True)
class ItemChanged(AnswerChanged):
    """An item that scores otherwise, and the trained row that is most like it."""

    nearest: NearRow | None


def changed_items(
    ws: WorkspaceStore, adapter: str, measured: Measured, most: int = SHOWN
) -> tuple[ItemChanged, ...]:
    """Return the first items that changed, at most `most` a subject and way.

    Args:
        ws: what the workspace keeps.
        adapter: whose rows the nearest ones are looked for in.
        measured: what was compared.
        most: how many.
    """
    before, after = _compared(ws, measured)
    if not before:
        return ()
    changed = changed_answers(ws, before, after, most)
    asked = [f"{one.prompt[-_MOST_READ:]}\n{one.expected}" for one in changed]
    nearest = _nearest(_rows(ws, adapter), asked)
    return tuple(
        ItemChanged(**asdict(one), nearest=near) for one, near in zip(changed, nearest, strict=True)
    )


def near_rows(ws: WorkspaceStore, adapter: str, asked: str, most: int) -> tuple[NearRow, ...]:
    """Return the rows that an adapter was trained on which are most like a text, nearest first.

    Args:
        ws: what the workspace keeps.
        adapter: its id.
        asked: a question and its answer.
        most: how many.
    """
    rows = _rows(ws, adapter)
    near = _likeness(rows, [asked[-_MOST_READ:]])[0] if rows else ()
    order = sorted(range(len(near)), key=lambda at: -near[at])[:most]
    return tuple(replace(rows[at], likeness=float(near[at])) for at in order if near[at] > 0)


def _compared(ws: WorkspaceStore, measured: Measured) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the evaluations of all items, before and after; not those that only lost ones had."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for parent in ws.catalog.manifest(measured.id).parents:
        if parent.role != "eval":
            continue
        meta = ws.catalog.manifest(parent.id, EvalMeta).meta
        change = measured.changes.get(meta.subject)
        if change and change.n == meta.n and not meta.arm.startswith(_AGAIN):
            (before if meta.adapter_id is None else after)[meta.subject] = parent.id
    both = before.keys() & after.keys()
    return tuple(before[name] for name in both), tuple(after[name] for name in both)


def _rows(ws: WorkspaceStore, adapter: str) -> list[NearRow]:
    read = [one.id for one in lineage(ws.catalog, adapter).nodes]  # not every file there is
    return [
        NearRow(capability, reason, source or "the base's own text", _text(messages, answer), 0.0)
        for capability, reason, source, messages, answer in ws.catalog.query(
            _TAUGHT, [adapter, _MOST_ROWS], only=read
        ).rows
    ]


def _text(messages: Sequence[dict[str, str]] | None, answer: str | None) -> str:
    """Return a row as it was trained; what was erased has no words."""
    said = [turn["content"] or "" for turn in messages or ()]
    if answer is not None and said:
        said[-1] = answer
    return "\n".join(said)


def _nearest(rows: Sequence[NearRow], asked: Sequence[str]) -> list[NearRow | None]:
    if not rows or not asked:
        return [None] * len(asked)
    near = _likeness(rows, asked)
    best = near.argmax(axis=1)
    return [
        replace(rows[place], likeness=float(near[at, place])) if near[at, place] > 0 else None
        for at, place in enumerate(best.tolist())
    ]


def _likeness(rows: Sequence[NearRow], asked: Sequence[str]) -> Any:
    texts = [row.text[:_MOST_READ] for row in rows]
    terms = Terms.of([*texts, *asked])
    return cosines(terms.vectors(asked), terms.vectors(texts))
