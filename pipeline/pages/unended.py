"""What was begun in a workspace and has not come to its end: a page says so, and shows the rest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pipeline.workspace.running import Running, running
from registry.catalog.sql import fill

if TYPE_CHECKING:
    from pipeline.workspace.store import WorkspaceStore

_ERROR = 300  # characters of an error
# Canonical JSON is searched before it is parsed; most runs have not failed.
_FAILED = """
SELECT manifest->>'$.meta.stage', created_at, manifest->>'$.meta.result.error'
FROM catalog.objects WHERE kind = 'run' AND contains(manifest, '"status":"failed"')
  AND (manifest->>'$.meta.status') = 'failed'
QUALIFY row_number() OVER (
    PARTITION BY manifest->>'$.meta.stage' ORDER BY created_at DESC, id DESC
) = 1
ORDER BY created_at
"""
_DONE = """
SELECT manifest->>'$.meta.stage', max(created_at)
FROM catalog.objects WHERE kind = 'run' AND created_at > ?::TIMESTAMP
  AND (manifest->>'$.meta.status') = 'done' GROUP BY 1
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
        since = min((at for _, at, _ in failed), default=datetime.max)  # noqa: DTZ901 - as DuckDB's
        later = fill(_DONE, [since.isoformat()])
        done = dict(connection.execute(later).fetchall()) if failed else {}
    return (
        *(
            Unended(stage, "failed", f"{stage} failed on {at:%Y-%m-%d %H:%M}: {_short(error)}.")
            for stage, at, error in failed
            if stage not in done or done[stage] < at
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
