"""Reports of the registry's verbs: adapters, their differences, pushes, imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from pipeline.verbs.adapter import AdapterDiff
    from pipeline.verbs.export import ExportReport
    from pipeline.verbs.pull import TakeReport
    from pipeline.verbs.push import PushReport
    from pipeline.verbs.reproduce import ReproduceReport
    from registry.catalog.lists import AliasMove
    from registry.lineage.adapter_facts import AdapterFacts, Decision

_SHOWN_MODULES = 8
_ID = 12


def log_table(alias: str, moves: Sequence[AliasMove]) -> Table:
    """Return the moves of an alias, one a line."""
    columns = ("moved", "to", "from", "why")
    rows = [
        (
            one.moved_at[:16].replace("T", " "),
            one.target[:_ID],
            one.previous[:_ID] if one.previous else None,
            one.reason,
        )
        for one in moves
    ]
    return table(alias, columns, rows)


def list_table(adapters: Sequence[Mapping[str, Any]], total: int) -> Table:
    """Return the newest adapters, one a line."""
    columns = ("adapter", "aliases", "base", "method", "rank", "rows", "loss", "made")
    made = table(
        "adapters",
        columns,
        [
            (
                str(one["adapter_id"])[:_ID],
                ", ".join(one["aliases"] or ()),
                one["base"],
                one["method"],
                one["rank"],
                one["rows"],
                None if one["loss"] is None else round(one["loss"], 4),
                str(one["created_at"])[:16],
            )
            for one in adapters
        ],
    )
    if total > len(adapters):
        made.caption = f"{len(adapters)} of {total:,}: --limit shows more"
    return made


def facts_tables(facts: AdapterFacts) -> list[RenderableType]:
    """Return all that is known of one adapter."""
    meta = facts.meta
    about = [
        ("adapter", facts.adapter_id),
        ("aliases", ", ".join(facts.aliases) or "-"),
        ("base", f"{facts.base}@{facts.revision}" if facts.revision else facts.base),
        ("made", facts.created_at[:19].replace("T", " ")),
        ("size", in_bytes(facts.bytes)),
        *(
            (key, meta[key])
            for key in ("method", "rank", "alpha", "steps", "tokens")
            if meta.get(key)
        ),
        *((key, meta[key]) for key in ("origin",) if meta.get(key)),
        *(_decision(facts.decision) if facts.decision else ()),
        ("let through", ", ".join(one[:_ID] for one in facts.promotions) or "-"),
        ("merged", ", ".join(one[:_ID] for one in facts.merges) or "-"),
        ("pushed", ", ".join(facts.pushes) or "-"),
    ]
    shown: list[RenderableType] = [
        table("", ("what", "value"), [(key, str(value)) for key, value in about])
    ]
    if facts.closed:
        shown.append(_closed(facts))
    if facts.kept:
        shown.append(_kept(facts))
    if facts.taught:
        rows = [
            (t.dataset, t.version_id[:_ID], t.license, f"{t.reason} ({t.capability})", t.rows)
            for t in facts.taught
        ]
        shown.append(table("trained on", ("dataset", "version", "licence", "for", "rows"), rows))
    if facts.settings:
        deciding = [(key, _setting(value)) for key, value in facts.settings.items()]
        shown.append(table("settings that decided it", ("key", "value"), deciding))
    return shown


def _decision(decided: Decision) -> list[tuple[str, str]]:
    word = "let through" if decided.promoted else "refused"
    told = [("test", f"{word} at look {decided.looks}")]
    told += [("moved after that", said) for said in decided.moved]
    return [*told, *(("refused before", said) for said in decided.refused)]


def _setting(value: object) -> str:
    if value is None:
        return "left out"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def diff_tables(found: AdapterDiff) -> list[RenderableType]:
    """Return what differs between two adapters."""
    a, b = found.a[:_ID], found.b[:_ID]
    if found.a == found.b:
        return [Text(f"{a} and {b} are the same adapter")]
    both, only_a, only_b = found.rows
    shown: list[RenderableType] = [
        table(
            "settings", ("key", a, b), [(k, str(x), str(y)) for k, (x, y) in found.config.items()]
        )
    ]
    if found.scores:
        rows = [(s.name, s.split, s.a, s.b) for s in found.scores]
        shown.append(table("scores", ("", "split", a, b), rows))
    shown.append(
        Text(f"rows trained on by both: {both:,}; {a} alone: {only_a:,}; {b} alone: {only_b:,}")
    )
    if not found.same_base:
        shown.append(Text("they belong to different bases"))
    furthest = sorted(found.weights.items(), key=lambda pair: -pair[1])
    if furthest:
        far = [(name, round(apart, 3)) for name, apart in furthest[:_SHOWN_MODULES]]
        shown.append(table("deltas furthest apart", ("module", "relative distance"), far))
    return shown


def push_tables(report: PushReport) -> list[RenderableType]:
    """Return what was pushed; in a dry run every file and the card."""
    target = f"{report.repo} ({'private' if report.private else 'public'})"
    if not report.dry:
        return [Text(_pushed(report, target))]
    from rich.markdown import Markdown

    rows = [(f["path"], f["bytes"], f["sha256"]) for f in report.files]
    return [
        table(f"would be pushed to {target}", ("file", "bytes", "sha256"), rows),
        Markdown(report.card.split("---\n", 2)[2]),
        Text(report.card.split("---\n", 2)[1]),
    ]


def take_lines(report: TakeReport) -> list[RenderableType]:
    """Return what was taken in."""
    kind = report.kind.replace("_", " ")
    lines = [f"{kind} {report.object_id[:_ID]} from {report.origin}"]
    if report.base:
        lines[0] += f", on base {report.base}"
    if report.same is not None:
        same = (
            "the same id as where it was pushed"
            if report.same
            else ("another id than where it was pushed: base or licence differ here")
        )
        lines.append(same)
    if report.signed_by:
        lines.append(f"its signature fits {report.signed_by}")
    lines += [f"asked with the base's: {remark}" for remark in report.remarks]
    return [Text(line) for line in lines]


def export_tables(report: ExportReport) -> list[RenderableType]:
    """Return what was written, and the proof of a GGUF file."""
    rows = [(name, digest[:_ID]) for name, digest in report.files.items()]
    title = f"export: {report.out} ({in_bytes(report.bytes)}, {report.dtype or report.form})"
    shown: list[RenderableType] = [table(title, ("file", "sha256"), rows)]
    if report.proof is not None:
        proof = report.proof
        shown.append(Text(f"read back: logits differ by {proof.logits:.1e} of the largest"))
        if proof.remark:
            shown.append(Text(proof.remark))
    return shown + _quantised(report)


def _quantised(report: ExportReport) -> list[RenderableType]:
    """Return what fewer bits cost: in the weights, and in answers."""
    made = report.quantised
    if made is None:
        return []
    types = ", ".join(f"{count} {kind}" for kind, count in made.types.items())
    said = (
        f"{made.dtype} by {made.made_by}: {types}; {made.worst} is {made.error:.2g} of itself off"
    )
    lines: list[RenderableType] = [Text(said)]
    if made.otherwise:
        lines.append(Text(f"llama.cpp reads {len(made.otherwise)} texts otherwise"))
    if not report.answers:
        why = "not scored: the model is of no adapter that was measured on dev with this spec"
        return [*lines, Text(f"{why} (gapmend forget)")]
    rows = [
        (one.guard, f"{one.n:,}", f"{one.before:.3f}", f"{one.after:.3f}", f"{one.lost:,}",
         f"{one.gained:,}", f"{one.p_bh:.2g}", one.verdict)
        for one in report.answers
    ]  # fmt: skip
    columns = ("on dev, by llama.cpp", "items", "before", "after", "lost", "gained", "p", "verdict")
    return [*lines, table(f"what {made.dtype} cost in answers", columns, rows)]


def reproduce_lines(report: ReproduceReport) -> list[RenderableType]:
    """Return whether an adapter came out the same, and what is different if not."""
    name = report.adapter_id[:_ID]
    if report.same:
        lines = [f"the same again: {name}, byte for byte"]
    else:
        lines = [f"not the same: {name} was trained, and {report.again[:_ID]} came out"]
        far = list(report.apart.items())[:_SHOWN_MODULES]
        lines += [f"- {module}: deltas {apart:.1e} apart" for module, apart in far]
    lines += [f"- {key}: {then} then, {now} now" for key, (then, now) in report.changed.items()]
    return [Text(line) for line in lines]


def _pushed(report: PushReport, target: str) -> str:
    if report.already:
        return f"already there: {report.object_id[:_ID]} in {target} at {report.commit}"
    if report.request is not None:
        return f"pull request {report.request} of {target} waits for its merge: {report.url}"
    return f"pushed {report.object_id[:_ID]} to {target}: {report.url}"


def _closed(facts: AdapterFacts) -> Table:
    rows = [
        (c.capability, c.split, f"{c.goal:.2f}", f"{c.before:.3f}", f"{c.score:.3f}",
         f"{c.low:.3f} to {c.high:.3f}", c.verdict)
        for c in facts.closed
    ]  # fmt: skip
    columns = ("capability", "split", "goal", "before", "score", "interval", "verdict")
    return table("closed", columns, rows)


def _kept(facts: AdapterFacts) -> Table:
    rows = [
        (
            f"{k.guard}{' (witness)' * k.witness}",
            k.split,
            f"{k.before:.3f}",
            f"{k.after:.3f}",
            k.lost,
            k.gained,
            k.verdict,
        )
        for k in facts.kept
    ]
    return table("kept", ("guard", "split", "before", "after", "lost", "gained", "verdict"), rows)
