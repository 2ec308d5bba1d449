"""status: what is in this workspace now, read from the catalog's views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.workspace.store import WorkspaceStore

_QUESTIONS = {
    "datasets": """
        select name, left(version_id, 12) as version, rows, rejects, created_at
        from dataset_versions order by created_at""",
    "verdicts": """
        select capability, base, goal, score, low, high, verdict, best_prompt
        from gaps order by capability""",
    "adapters": """
        select left(adapter_id, 12) as adapter, base, created_at
        from adapters order by created_at""",
    "aliases": """
        select name, left(target, 12) as target, reason, moved_at
        from aliases where current""",
    "looks": """
        select subject, dataset, looks, last_at from looks order by subject""",
    "runs": """
        select stage, status, round(seconds, 1) as seconds, started_at
        from runs order by started_at desc limit 12""",
}


def status(ws: WorkspaceStore) -> dict[str, list[dict[str, Any]]]:
    """Return datasets, verdicts, adapters, aliases, looks and the last runs, as records."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, question in _QUESTIONS.items():
        result = ws.catalog.query(question)
        found[name] = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return found
