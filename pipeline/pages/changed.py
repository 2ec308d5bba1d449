"""Items that score otherwise in one evaluation than in another, with both answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.workspace.store import WorkspaceStore

SHOWN = 10
"""Items of one kind that a page shows; all of them are in `gapmend forget --show`."""

_CHANGED = """
SELECT before.subject, CASE WHEN after.score < before.score THEN 'lost' ELSE 'gained' END,
       before.prompt, before.expected, before.answer, after.answer
FROM eval_samples AS before
JOIN eval_samples AS after USING (subject, row_uid)
WHERE before.eval_id IN ? AND after.eval_id IN ? AND after.score <> before.score
QUALIFY row_number() OVER (
    PARTITION BY subject, after.score < before.score
    ORDER BY before.row_hash = '', before.row_hash
) <= ?
ORDER BY 1, 2 DESC, before.row_hash = '', before.row_hash
"""


@dataclass(frozen=True)
class AnswerChanged:
    """An item that scores less (`lost`) or more (`gained`) than before; erased, it has no words."""

    subject: str
    way: Literal["lost", "gained"]
    prompt: str
    expected: str
    before: str
    after: str


def changed_answers(
    ws: WorkspaceStore, before: Sequence[str], after: Sequence[str], most: int = SHOWN
) -> tuple[AnswerChanged, ...]:
    """Return the first items that changed, at most `most` a subject and way.

    Args:
        ws: what the workspace keeps.
        before: evaluations, one a subject.
        after: evaluations of the same subjects.
        most: how many.
    """
    found = ws.catalog.query(
        _CHANGED, [tuple(before), tuple(after), most], only=(*before, *after)
    ).rows
    return tuple(AnswerChanged(*one) for one in found)
