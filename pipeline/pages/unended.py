"""What was begun in a workspace and has not come to its end: a page says so, and shows the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.workspace.running import Running, running

if TYPE_CHECKING:
    from pipeline.workspace.store import WorkspaceStore

_ERROR = 300  # characters of an error
_FAILED = """
WITH runs AS (
    SELECT manifest->>'$.meta.stage' AS stage, manifest->>'$.meta.status' AS status,
           manifest->>'$.meta.result.error' AS error, created_at AS ended
    FROM catalog.objects WHERE kind = 'run'
)
SELECT stage, max(ended), arg_max(error, ended) FROM runs AS failed
WHERE status = 'failed' AND NOT EXISTS (
    SELECT 1 FROM runs AS done
    WHERE done.status = 'done' AND done.stage = failed.stage AND done.ended > failed.ended
)
GROUP BY stage ORDER BY 2
"""


@dataclass(frozen=True)
class Unended:
    """A stage that was begun and has no result.

    Attributes:
        stage: its name.
        state: `failed`, `stopped` where its process is gone, `running`, or `not known`.
        said: all of it in a sentence; times are in UTC.
    """

    stage: str
    state: Literal["failed", "stopped", "running", "not known"]
    said: str


def unended(ws: WorkspaceStore) -> tuple[Unended, ...]:
    """Return the stages that failed and have no later result, and those that stopped or run."""
    with ws.catalog.reading() as connection:
        failed = connection.execute(_FAILED).fetchall()
    return (
        *(
            Unended(stage, "failed", f"{stage} failed on {at:%Y-%m-%d %H:%M}: {_short(error)}.")
            for stage, at, error in failed
        ),
        *(Unended(one.stage, one.state, _begun(one)) for one in running(ws)),
    )


def _begun(one: Running) -> str:
    since = f", begun on {one.since:%Y-%m-%d %H:%M}," if one.since else ""
    far = "" if one.done is None else f" at {one.done:,}{f' of {one.total:,}' if one.total else ''}"
    state = {"running": "still runs", "stopped": "was stopped"}.get(one.state, "has not ended")
    return f"{one.stage}{since} {state}{far}{f': {one.why}' if one.why else ''}."


def _short(error: str | None) -> str:
    said = " ".join((error or "no reason was written down").split()).rstrip(".")
    return said if len(said) <= _ERROR else f"{said[:_ERROR]}…"
