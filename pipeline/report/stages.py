"""Reports of the stages for people: one function a stage, in the loop's order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from pipeline.report.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from evals.verdicts.forgetting import GuardFinding, SubjectChange
    from evals.verdicts.gap import ClosedFinding
    from evals.verdicts.stats import Interval
    from pipeline.forget import ChangedItem, ForgetReport
    from pipeline.gap import GapReport
    from pipeline.ingest import IngestReport
    from pipeline.measure.rounds import Round
    from pipeline.mend import MendReport
    from pipeline.promote import PromoteReport
    from pipeline.select import SelectReport
    from pipeline.train import TrainReport
    from pipeline.verbs.explain import Explanation

_COLOURS = {
    "met": "green",
    "prompt": "cyan",
    "tune": "yellow",
    "inconclusive": "magenta",
    "closed": "green",
    "open": "red",
    "kept": "green",
    "forgotten": "red",
}

_SHOWN_ITEMS = 10
_BLOCKS = "▁▂▃▄▅▆▇█"


def ingest_table(report: IngestReport) -> Table:
    """Return each dataset's version: rows by split, rejects, whether it was there already."""
    rows = [
        (
            one.name,
            one.version_id[:12],
            one.facts["rows"],
            *(one.facts["splits"].get(split, 0) for split in ("train", "dev", "test", "held")),
            one.facts["rejects"],
            "up to date" if one.cached else f"{one.seconds:.1f} s",
        )
        for one in report.datasets
    ]
    columns = ("dataset", "version", "rows", "train", "dev", "test", "held", "rejects", "")
    return table("datasets", columns, rows)


def gap_table(report: GapReport) -> Table:
    """Return the gap table: score, interval, best prompt and verdict of each capability."""
    made = table(
        f"what {report.base} lacks (dev)",
        ("", "goal", "zero-shot", "95% interval", "gap", "best prompt", "verdict"),
        [],
    )
    for one in report.findings:
        made.add_row(
            one.capability,
            f"{one.goal:.2f}",
            f"{one.base.mean:.3f}",
            bounds(one.base),
            f"{max(0.0, one.gap):.3f}",
            _prompt(one.best_prompt, one.best_prompt_interval, one.prompt_tokens),
            verdict(one.verdict, " (can't be taught)" if one.capability in report.untaught else ""),
        )
    for name, score in report.guards.items():
        made.add_row(name, "guard", f"{score.mean:.3f}", bounds(score), "", "", "")
    return made


def gap_notes(report: GapReport) -> list[RenderableType]:
    """Return what ended early, what no row can teach, and what guards nothing, a line each."""
    ended = [
        f"{name}: ended after {score.n:,} of {of:,} items: the verdict was clear"
        for one in report.findings
        for name, score, of in (
            (one.capability, one.base, one.base_of),
            (f"{one.capability}, {one.best_prompt}", one.best_prompt_interval, one.best_prompt_of),
        )
        if of is not None and score is not None
    ]
    left = [
        f"{name}: {why}; it is measured, not trained for, and stops nothing else"
        for name, why in report.untaught.items()
    ]
    guards = [f"guard {name}: {why}" for name, why in report.at_chance().items()]
    return [*map(Text, ended), *(Text(line, "yellow") for line in (*left, *guards))]


def bases_table(reports: Sequence[GapReport]) -> Table:
    """Return bases side by side: the zero-shot score and the verdict of each on everything."""
    made = table("bases", ("", "goal", *(report.base for report in reports)), [])
    for position, one in enumerate(reports[0].findings):
        found = [report.findings[position] for report in reports]
        cells = (f"{f.base.mean:.3f} {f.verdict}" for f in found)
        made.add_row(one.capability, f"{one.goal:.2f}", *cells)
    for name in reports[0].guards:
        made.add_row(name, "guard", *(f"{report.guards[name].mean:.3f}" for report in reports))
    return made


def select_table(report: SelectReport) -> Table:
    """Return what was selected and why, and what was excluded."""
    title = f"selection {report.selection_id[:12]}: {report.rows} rows"
    near = any(part.score is not None for part in report.parts)
    columns = ("for", "because", "rows", *(("mean similarity to what was lost",) if near else ()))
    made = table(title, columns, [])
    why = {
        "gap": "drawn among rows that teach what the base fails",
        "replay": "the base's own answers: so that they stay so",
        "mend": "fills in what the last adapter lost",
    }
    for part in report.parts:
        score = "-" if part.score is None else f"{part.score:.3f}"
        made.add_row(part.capability, why[part.reason], str(part.rows), *((score,) if near else ()))
    excluded = [f"{count} {reason}" for reason, count in report.leaks.items()]
    excluded += [f"{report.near_duplicates} near-duplicates"]
    excluded += [f"{report.rejects} too long for the base"] if report.rejects else []
    lines = ["excluded: " + ", ".join(excluded)]
    lines += [
        f"missing for {name}: {count} rows; {report.short_of[name]}"
        for name, count in report.missing.items()
    ]
    lines += [
        f"{name}: {why}" for name, why in report.short_of.items() if name not in report.missing
    ]
    for name, counts in report.own_answers.items():
        told = ", ".join(f"{rows} {what}" for what, rows in counts.items())
        lines.append(f"answers trained for {name}: {told}")
    if report.set_aside:
        aside = [f"{count} {kind}" for kind, count in report.set_aside.items()]
        lines.append("set aside: " + ", ".join(aside))
    if report.set_aside or report.rejects:
        query = "select reason, source_file, source_line, excerpt from rejects"
        one = f"object_id like '{report.selection_id[:12]}%'"  # short: no line breaks it
        lines.append(f'which: gapmend sql "{query} where {one}"')
    lines += [f"left out: {name} ({reason})" for name, reason in report.untaught.items()]
    made.caption = Text("\n".join(lines))
    return made


def train_tables(report: TrainReport) -> list[RenderableType]:
    """Return the training curve and what it cost."""
    first, last = report.curve[0].loss, report.curve[-1].loss
    curve = Text(f"loss {first:.3f} {sparkline([p.loss for p in report.curve])} {last:.3f}")
    facts = Text(
        f"adapter {report.adapter_id[:12]}: {report.method} on {report.base}, {report.rows} rows, "
        f"{report.steps} steps, {report.tokens:,} tokens ({report.trained_tokens:,} trained) in "
        f"{report.train_seconds:.1f} s, {report.tokens_per_second:,.0f} tokens/s; rate "
        f"{report.learning_rate:.2g}, {report.dtype}"
        + (", activations recomputed" if report.recomputed else "")
    )
    note = [Text(f"one row a pass: {report.note}")] if report.note else []
    return [Text("training", style="bold"), curve, facts, *note]


def forget_tables(report: ForgetReport) -> list[RenderableType]:
    """Return what an adapter closed and what it lost, item by item counted."""
    at = "" if report.scale == 1 else f" at scale {report.scale:g}"
    name = f"base {report.model}" if report.model else f"adapter {report.adapter_id[:8]}{at}"
    after = f"({report.split}, against adapter {report.against[:8]})" if report.against else ""
    where = after or f"({report.split})"
    return [
        closed_table(f"what {name} closed {where}", report.closed, report.changes),
        _kept(f"what {name} lost {where}", report.kept, report.changes),
        *_not_taught(report),
    ]


def _not_taught(report: ForgetReport | PromoteReport) -> list[Text]:
    """Return a line for each capability that was measured alone: no row taught it."""
    judged = {*report.closed, *(finding.guard for finding in report.kept)}
    return [
        Text(
            f"{name} ({report.split}): {change.before:.3f} before, {change.after:.3f} after; not "
            "judged, since no row of the pool teaches it"
        )
        for name, change in report.changes.items()
        if name not in judged
    ]


def closed_table(
    title: str,
    closed: Mapping[str, ClosedFinding],
    changes: Mapping[str, SubjectChange],
    alpha: float = 0.05,
) -> Table:
    """Return each tuned capability's score, verdict, and the items that changed.

    `alpha` is what the intervals may err by.
    """
    found = [(name, one, changes[name]) for name, one in closed.items()]
    columns: dict[str, list[str | Text]] = {
        "capability": [name for name, _, _ in found],
        "goal": [f"{one.goal:.2f}" for _, one, _ in found],
        "before": [f"{change.before:.3f}" for _, _, change in found],
        "score": [f"{one.score.mean:.3f}" for _, one, _ in found],
        f"{100 * (1 - alpha):.4g}% interval": [bounds(one.score) for _, one, _ in found],
        "lost": [str(change.lost) for _, _, change in found],
        "gained": [str(change.gained) for _, _, change in found],
        "KL": [_kl(change) for _, _, change in found],
        "verdict": [verdict(one.verdict) for _, one, _ in found],
    }
    return _filled(title, columns)


def _kept(
    title: str, kept: Sequence[GuardFinding], changes: Mapping[str, SubjectChange]
) -> RenderableType:
    """Return the table of what was lost, or that nothing was there to be lost."""
    if not kept:
        return Text(f"{title}: nothing asked (the spec has no guards)")
    return kept_table(title, kept, changes)


def kept_table(
    title: str, kept: Sequence[GuardFinding], changes: Mapping[str, SubjectChange]
) -> Table:
    """Return what was lost and gained of each guard, and of what needed no training."""
    found = [(one, changes[one.guard]) for one in kept]
    columns: dict[str, list[str | Text]] = {
        "": [f"{one.guard}{' (witness)' * one.witness}" for one in kept],
        "before": [f"{one.before:.3f}" for one in kept],
        "after": [f"{one.after:.3f}" for one in kept],
        "lost": [str(one.lost) for one in kept],
        "gained": [str(one.gained) for one in kept],
        "drop": [f"{change.normalised_drop:.3f}" for _, change in found],
        "at worst": [f"{one.difference.low:+.3f}" for one in kept],
        "allowed": [f"{-one.max_drop:+.3f}" for one in kept],
        "KL": [_kl(change) for _, change in found],
        "asked again": [_came_back(change) for _, change in found],
        "verdict": [verdict(f.verdict, " (accepted)" if f.accepted else "") for f in kept],
    }
    return _filled(title, columns)


def _filled(title: str, columns: Mapping[str, Sequence[str | Text]]) -> Table:
    """Return a table of the columns that say anything."""
    told = {name: cells for name, cells in columns.items() if any(cells) or not name}
    return table(title, tuple(told), list(zip(*told.values(), strict=True)))


def changed_table(title: str, changed: Sequence[ChangedItem]) -> Table:
    """Return items with the answers before and after, the first of each guard."""
    made = table(title, ("", "row", "asked", "expected", "before", "after"), [])
    shown: Counter[str] = Counter()
    for one in changed:
        shown[one.guard] += 1
        if shown[one.guard] <= _SHOWN_ITEMS:
            made.add_row(
                *map(escape, (one.guard, str(one.row_uid), one.prompt)),
                *map(escape, (one.expected, one.before, one.after)),
            )
    more = sum(max(0, count - _SHOWN_ITEMS) for count in shown.values())
    made.caption = f"and {more} more: --json has them all" if more else None
    return made


def mend_tables(report: MendReport) -> list[RenderableType]:
    """Return each round: the rows it moved, what that closed and what was still lost."""
    columns = ("round", "adapter", "rows", "replayed", "rows moved", "closed", "lost", "then")
    made = table("mending", columns, [])
    for one in report.rounds:
        moved = ", ".join(f"{name} {change:+d}" for name, change in one.added.items())
        made.add_row(
            str(one.number),
            one.adapter_id[:8],
            str(one.rows),
            str(one.replay_rows),
            moved or "-",
            ", ".join(f"{name} {word}" for name, word in one.closed.items()),
            _losses(one),
            _then(one, last=one is report.rounds[-1], vain=bool(report.missing)),
        )
    end = (
        f"mended: adapter {report.adapter_id[:12]} closes its gaps and loses nothing on dev"
        if report.mended
        else f"not mended (rounds of training again: {len(report.rounds) - 1}); "
        f"the best is {report.adapter_id[:12]}"
    )
    curves = [scale_table(one) for one in report.rounds if len(one.curve) > 1]
    left = [
        Text(f"round {one.number} adds nothing for {why}")
        for one in report.rounds
        for why in one.unfilled.values()
    ]
    vain = [Text("no other round is run, it would add no row for what was lost")]
    missing = [*vain, *(Text(f"- {line}") for line in report.missing)] if report.missing else []
    advice = [Text(f"- {line}") for line in report.advice]
    return [made, *curves, *left, Text(end), *missing, *advice]


def explanation(told: Explanation) -> list[RenderableType]:
    """Return what mending did in words, a line between two rounds."""
    return [Text("\n\n".join(told.paragraphs))]


def scale_table(one: Round) -> Table:
    """Return the scores of a round's adapter by its scale: what is given back at what price."""
    names = list(dict.fromkeys(name for scores in one.curve.values() for name in scores))
    shown = [name for name in names if sum(name in scores for scores in one.curve.values()) > 1]
    rows = [
        (scale, *(f"{scores[name]:.3f}" if name in scores else "" for name in shown))
        for scale, scores in sorted(one.curve.items(), key=lambda pair: -float(pair[0]))
    ]
    return table(f"round {one.number} by scale (dev)", ("scale", *shown), rows)


def promote_tables(report: PromoteReport) -> list[RenderableType]:
    """Return the figures on test, the gates and the decision."""
    name = report.adapter_id[:12]
    look = f"look {report.looks} at test"
    shown: list[RenderableType] = [
        closed_table(
            f"promote: what {name} closed ({report.split})",
            report.closed,
            report.changes,
            report.alpha or 0.05,
        ),
        _kept(f"promote: what {name} lost ({report.split})", report.kept, report.changes),
        *_not_taught(report),
    ]
    for one in report.earlier:
        came_to = "promoted" if one.promoted else f"refused: {'; '.join(one.reasons)}"
        shown.append(Text(f"look {one.look} at test, {one.adapter_id[:12]}: {came_to}"))
    shown += [
        Text(f"moved after test was looked at: {goal}", style="yellow") for goal in report.moved
    ]
    if report.promoted:
        return [*shown, Text(f"promoted: {name} is champion ({look})")]
    at = f" ({look})" if report.looks else ""
    return [*shown, Text(f"refused{at}: {'; '.join(report.reasons)}", style="red")]


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of blocks, from the lowest to the highest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[int((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _losses(one: Round) -> str:
    lost = [f"{n} {word} ({one.lost[n]} items)" for n, word in one.kept.items() if word != "kept"]
    return ", ".join(lost) or "nothing"


def _then(one: Round, *, last: bool, vain: bool) -> str:
    if one.scale == 1:
        return "done"
    if one.scale is not None:
        return f"done at scale {one.scale:g}"
    if last:
        return "no rows for what was lost" if vain else "the end"
    lost = any(verdict not in {"kept", "accepted"} for verdict in one.kept.values())
    return "no scale will do: train again" if lost else "train again"


def bounds(interval: Interval) -> str:
    """Return an interval's bounds as text."""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def verdict(word: str, more: str = "") -> Text:
    """Return a verdict in its colour."""
    return Text(word + more, style=_COLOURS.get(word, ""))


def _kl(change: SubjectChange) -> str:
    return "" if change.kl is None else f"{change.kl:.2f}"


def _came_back(change: SubjectChange) -> str:
    again = change.reprompt
    return "" if again is None else f"{len(again.came_back_uids)} of {again.asked} come back"


def _prompt(name: str | None, score: Interval | None, tokens: float) -> str:
    if name is None or score is None:
        return "-"
    return f"{name} {score.mean:.3f}, {tokens:.0f} tokens"
