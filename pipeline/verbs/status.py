"""status: what runs now, from the files that it keeps, and what is there, from the catalog's views.

Neither waits for a run nor holds it up.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.training.record.folder import so_far
from pipeline.workspace.running import running

if TYPE_CHECKING:
    from pipeline.workspace.running import Running
    from pipeline.workspace.store import WorkspaceStore

_QUESTIONS = {
    "datasets": """
        select name, left(version_id, 12) as version, rows, rejects,
               date_trunc('second', created_at) as created_at
        from dataset_versions order by created_at""",
    "verdicts": """
        select capability, base, goal, score, low, high, verdict, best_prompt
        from gaps order by capability""",
    "adapters": """
        select left(adapter_id, 12) as adapter, base, date_trunc('second', created_at) as created_at
        from adapters order by created_at""",
    "aliases": """
        select name, left(target, 12) as target, reason, date_trunc('second', moved_at) as moved_at
        from aliases where current""",
    "looks": """
        select subject, dataset, looks, date_trunc('second', last_at) as last_at
        from looks order by subject""",
    "runs": """
        select stage, status, round(seconds, 1) as seconds,
               date_trunc('second', started_at) as started_at, result->>'$.error' as error
        from runs order by started_at desc limit 12""",
}


def status(ws: WorkspaceStore) -> dict[str, list[dict[str, Any]]]:
    """Return what runs, datasets, verdicts, adapters, aliases, looks and the last runs."""
    found = {"running": [_record(ws, one) for one in running(ws)]}
    for name, question in _QUESTIONS.items():
        result = ws.catalog.query(question)  # asks a copy: the catalog is let go at once
        found[name] = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return found


def _record(ws: WorkspaceStore, one: Running) -> dict[str, Any]:
    """Return a stage as JSON values; of a training, also how far it has come."""
    training = so_far(one.workdir)
    return asdict(one) | {
        "since": None if one.since is None else one.since.isoformat(timespec="seconds"),
        "workdir": one.workdir.relative_to(ws.root).as_posix(),
        "training": None if training is None else asdict(training),
    }
