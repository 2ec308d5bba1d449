"""The report of a merge as tables: the proof, how adapters were put together, other ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.merge import MergeReport

_WAYS = {
    "dequantised": "into the dequantised base (this is the model)",
    "original": "into the weights before quantisation",
    "in_place": "merged and quantised again",
}


def merge_tables(report: MergeReport) -> list[Table]:
    """Return the tables of a merge of one adapter or of several."""
    made = [_proof(report)]
    if report.adapter_ids:
        made.insert(0, _settings(report))
    if report.scores:
        rows = [
            (", ".join(f"{weight:g}" for weight in one["weights"]), f"{one['score']:.3f}")
            for one in sorted(report.scores, key=lambda one: -one["score"])
        ]
        made.append(table("weights that were tried", ("weights", "mean score on dev"), rows))
    if report.quantised:
        known = {key: report.quantised[key] for key in _WAYS}
        ways = [
            (_WAYS[k], "its files are gone" if v is None else f"{v:.1e}") for k, v in known.items()
        ]
        head = ("a quantised base", "logits against it with the adapter on")
        made.append(table("ways to merge", head, ways))
    return made


def _proof(report: MergeReport) -> Table:
    """Return the proof that the merged model answers as base and adapter do."""
    title = f"merge: {report.path} ({in_bytes(report.bytes)}, {report.dtype})"
    rows = [
        ("merged, same process", f"{report.merged:.1e}"),
        ("merged, loaded anew in another process", f"{report.reloaded:.1e}"),
        ("allowed", f"{report.bound:.1e}"),
        ("for comparison: base without the adapter", f"{report.moved:.1e}"),
    ]
    caption = f"largest difference over the largest logit, {report.positions} positions"
    against = report.reference or "base + adapter"
    made = table(title, (f"logits against {against}", "difference"), rows)
    made.caption = caption
    return made


def _parts(report: MergeReport) -> tuple[str, str]:
    if not report.weights:
        return "adapters, weighed by the rule", ", ".join(one[:8] for one in report.adapter_ids)
    pairs = zip(report.adapter_ids, report.weights, strict=True)
    return "adapters and weights", ", ".join(f"{one[:8]} · {weight:g}" for one, weight in pairs)


def _settings(report: MergeReport) -> Table:
    rows = [
        _parts(report),
        *([("density", f"{report.density:g}")] if report.density is not None else []),
        *([("seed", str(report.seed))] if report.seed is not None else []),
    ]
    if report.adapter_id is None:
        rows.append(("new adapter", f"none: {report.no_adapter}"))
    else:
        rows.append(("new adapter", f"{report.adapter_id[:12]}, rank {report.rank}"))
        rows.append(("its logits against the same", f"{report.adapter_off or 0:.1e}"))
    if report.relative_error is not None:
        rows.append(("lost by the cut, of the sum's norm", f"{report.relative_error:.3f}"))
        rows.append(("and in logits", f"{report.cut or 0:.1e}"))
    return table(f"merge: {report.method}", ("", ""), rows)
