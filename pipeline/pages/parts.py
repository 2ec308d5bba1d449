"""The parts of a report: for each its pictures and tables, as text. Pure, and no markup.

A report as HTML and one as Markdown are the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.rows import WHY
from pipeline.pages.quantised import quantised_tables
from pipeline.pages.tables import PAIRED, Table, filled, paired, shortened, span
from pipeline.pages.words import listed
from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.pages.account import Account, Measured, Training, VersionUsed
    from pipeline.pages.charts.draw import Picture
    from pipeline.pages.items import ItemChanged
    from registry.store.kinds import PartRows, SelectionMeta

_ID = 12
_ERASED = "[erased]"
_PLAIN = 0.001  # smaller numbers are written with an exponent


@dataclass(frozen=True)
class Part:
    """A part of a report."""

    id: str
    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = field(default=())


def parts(
    told: Account, drawn: Mapping[str, Sequence[Picture]], changed: Sequence[ItemChanged]
) -> tuple[Part, ...]:
    """Return the parts that there is something to say in."""
    every = (
        Part("gap", "Gaps", "", tuple(drawn["gap"]), tuple(_gap_tables(told))),
        Part("forgetting", "Forgetting", "", tuple(drawn["forgetting"]), tuple(_kept_tables(told))),
        Part("items", "Items that changed", _items(told, changed), (), _item_tables(told, changed)),
        Part("selection", "Rows", "", tuple(drawn["selection"]), tuple(_row_tables(told))),
        Part("training", "Training", "", tuple(drawn["training"]), tuple(_training_tables(told))),
        Part("mending", "Mending", "", tuple(drawn["mending"]), tuple(_mend_tables(told))),
        Part("proof", "Promotion and merge", "", (), tuple(_proof_tables(told))),
        Part(
            "quantised", "Quantised", _quantised(told), (), tuple(quantised_tables(told.quantised))
        ),
        Part(
            *("lineage", "Lineage", _lineage(told)),
            tuple(drawn["lineage"]),
            tuple(_version_tables(told)),
        ),
        Part("again", "To make it again", _again(told), (), tuple(_again_tables(told))),
    )
    return tuple(one for one in every if one.pictures or one.tables or one.text)


def _items(told: Account, changed: Sequence[ItemChanged]) -> str:
    if not changed or told.measured is None:
        return ""
    which = "All of them" if told.measured.split == "dev" else "All of those on dev"
    return (
        f"Items of {told.measured.split} that became wrong or right, each with both answers and "
        "the row nearest to it among those that were trained on. "
        f"{which}: gapmend forget --adapter {told.id[:_ID]} --show lost (or gained)."
    )


def _gap_tables(told: Account) -> Iterator[Table]:
    measured = told.measured
    rows = []
    for one in told.gap:
        prompt = one.best_prompt_interval
        closed = measured.closed.get(one.capability) if measured else None
        rows.append(
            (
                one.capability,
                f"{one.goal:.2f}",
                span(one.base.mean, one.base.low, one.base.high),
                f"{one.best_prompt} {span(prompt.mean, prompt.low, prompt.high)}"
                if one.best_prompt and prompt
                else "",
                one.verdict,
                span(closed.score.mean, closed.score.low, closed.score.high) if closed else "",
                closed.verdict if closed else "",
            )
        )
    if rows:
        on = f"adapter ({measured.split})" if measured else "adapter"
        head = ("capability", "goal", "base", "best prompt", "verdict", on, "then")
        yield filled("Scores with 95% intervals", head, rows)


def _kept_tables(told: Account) -> Iterator[Table]:
    for title, measured in _measurements(told):
        rows = tuple(
            (
                f"{one.guard} (witness)" if one.witness else one.guard,
                *paired(one),
                f"{one.max_drop:g}",
                _kl(measured, one.guard),
                f"{one.verdict}, accepted" if one.accepted else one.verdict,
            )
            for one in measured.kept
        )
        if rows:
            head = ("guard", *PAIRED, "allowed", "KL", "verdict")
            yield filled(title, head, rows)


def _measurements(told: Account) -> Iterator[tuple[str, Measured]]:
    if told.tested:
        yield "On test", told.tested
    for one in reversed(told.trainings):
        if one.measured:
            yield f"{_called(one)}, on dev", one.measured


def _called(one: Training) -> str:
    return f"Round {one.number}" if one.number else "The first adapter"


def _kl(measured: Measured, name: str) -> str:
    change = measured.changes.get(name)
    return "" if change is None or change.kl is None else f"{change.kl:.3g}"


def _item_tables(told: Account, changed: Sequence[ItemChanged]) -> tuple[Table, ...]:
    groups: dict[tuple[str, str], list[ItemChanged]] = {}
    for one in sorted(changed, key=lambda one: one.way != "lost"):
        groups.setdefault((one.way, one.subject), []).append(one)
    head = ("question", "expected", "before", "now", "nearest row", "where, and what for")
    return tuple(
        Table(
            _how_many(told, subject, way, len(found)),
            head,
            tuple((*map(shortened, _answers(one)), *_near(one)) for one in found),
            folded=True,
            cards=True,
        )
        for (way, subject), found in groups.items()
    )


def _how_many(told: Account, subject: str, way: str, shown: int) -> str:
    change = told.measured.changes.get(subject) if told.measured else None
    number = shown if change is None else change.lost if way == "lost" else change.gained
    return f"{subject}: {number:,} {way}{'' if number <= shown else f', {shown} of them here'}"


def _answers(one: ItemChanged) -> tuple[str, ...]:
    return one.prompt or _ERASED, one.expected, one.before, one.after


def _near(one: ItemChanged) -> tuple[str, str]:
    near = one.nearest
    if not one.prompt:
        return "", ""
    if near is None:
        return "none is like it", ""
    why = WHY.get(near.reason, near.reason)
    return shortened(
        near.text
    ), f"{near.source}\n{near.capability}, {why}; likeness {near.likeness:.2f}"


def _row_tables(told: Account) -> Iterator[Table]:
    for one in told.trainings:
        rows = tuple(
            (
                part.capability,
                WHY.get(part.reason, part.reason),
                _budget(one.chosen, part),
                f"{part.rows:,}",
                "" if part.score is None else f"{part.score:.3f}",
            )
            for part in one.chosen.parts
        )
        head = ("for", "why", "budget", "rows", "mean likeness to what was lost")
        yield filled(f"{_called(one)}: {one.chosen.rows:,} rows", head, rows)
        chosen = one.chosen
        out = [
            *((kind, f"{count:,}", "") for kind, count in chosen.set_aside.items()),
            *((f"leak: {kind}", f"{count:,}", "") for kind, count in chosen.leaks.items()),
            *(
                (f"wanted for {n}", f"{c:,}", chosen.short_of.get(n, ""))
                for n, c in chosen.missing.items()
            ),
        ]
        if out:
            title = f"{_called(one)}: kept out or missing"
            yield Table(title, ("what", "rows", "why"), tuple(out), folded=True)


def _budget(chosen: SelectionMeta, part: PartRows) -> str:
    """Return how many rows a part was given; nothing where that wasn't divided."""
    given = (chosen.budget if part.reason == "gap" else chosen.replay).get(part.capability)
    return "" if given is None else f"{given:,}"


def _training_tables(told: Account) -> Iterator[Table]:
    rows = tuple(
        (
            f"{_called(one)} {one.adapter_id[:_ID]}",
            *(_figure(one.weights, key) for key in _FIGURES),
            in_time(float(one.weights.get("seconds") or 0)),
        )
        for one in told.trainings
    )
    if rows:
        yield filled("Trainings", ("adapter", *_FIGURES.values(), "time"), rows)


_FIGURES = {
    "method": "method",
    "rank": "rank",
    "rows": "rows",
    "steps": "steps",
    "tokens": "tokens",
    "trained_tokens": "answer tokens",
    "loss": "last loss",
}


def _figure(weights: Mapping[str, Any], key: str) -> str:
    value = weights.get(key)
    if value is None:
        return ""
    return (
        f"{value:.3f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _mend_tables(told: Account) -> Iterator[Table]:
    rows = []
    for one in told.trainings:
        found = one.mended
        if found is None:
            continue
        lost = listed([f"{count:,} of {name}" for name, count in found.lost.items() if count])
        added = listed([f"{count:+,} {name}" for name, count in found.added.items()])
        held = "no scale" if found.scale is None else f"scale {found.scale:g}"
        unfilled = "; ".join(f"{name}: {why}" for name, why in found.unfilled.items())
        rows.append((_called(one), added, lost, held, unfilled))
    if rows:
        head = ("round", "rows added", "items lost on dev", "holds at", "could not be filled")
        yield filled("Rounds", head, rows)


def _proof_tables(told: Account) -> Iterator[Table]:
    if told.promotion:
        decision = told.promotion[1]
        rows = tuple(
            (str(one["name"]), "passed" if one["passed"] else "refused", str(one["reason"]))
            for one in decision.gates
        )
        moved = tuple(("goal moved", "", str(one)) for one in decision.moved)
        title = f"Gates on test, look {decision.looks:,}"
        yield Table(title, ("gate", "outcome", "why"), rows + moved)
    if told.merge:
        meta = told.merge[1].as_json()
        proof = [(said, _measure(meta[key])) for key, said in _PROOF.items() if meta.get(key)]
        yield Table("Proof of the merge", ("what", "value"), tuple(proof))


_PROOF = {
    "reference": "compared with",
    "merged": "largest difference of logits, merged in memory",
    "reloaded": "the same, saved and loaded again",
    "bound": "allowed",
    "moved": "the adapter itself moves them by",
    "positions": "tokens compared, each over the whole vocabulary",
    "dtype": "computed in",
    "scale": "scale of the adapter",
}
"""Of a merge's record -> in words; differences are shares of the largest logit."""


def _measure(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:g}" if value >= _PLAIN else f"{value:.1e}"


def _lineage(told: Account) -> str:
    return f"Down to a row, its file and line: gapmend lineage {told.id[:_ID]}"


def _quantised(told: Account) -> str:
    if not told.quantised:
        return ""
    return "The merged model in fewer bits, asked again by llama.cpp on dev, item by item."


_UNKNOWN = "unknown"


def _version_tables(told: Account) -> Iterator[Table]:
    of = told.base_license
    where = f"neither the spec (bases.{told.base}.license) nor a card or LICENSE file at hand"
    version = told.facts.revision or told.facts.base_digest[:_ID] if told.facts else ""
    base = (told.base, version, of.name if of else _UNKNOWN, of.by if of else where)
    yield filled("Base", ("base", "version", "licence", "as said by"), [base])
    rows = tuple(
        (
            one.name,
            one.version_id[:_ID],
            *(f"{count:,}" for count in (one.rows, one.train, one.dev, one.test)),
            *_license_of(one),
        )
        for one in told.versions
    )
    if rows:
        head = ("dataset", "version", "rows", "train", "dev", "test", "licence", "as said by")
        yield filled("Data", head, rows)


def _license_of(one: VersionUsed) -> tuple[str, str]:
    """Return a version's licence, and what says it."""
    if one.license:
        return one.license, "the version"
    if one.beside:
        return one.beside.name, one.beside.by
    return _UNKNOWN, f"neither the spec (datasets.{one.name}.license) nor a file beside its data"


def _again(told: Account) -> str:
    if told.facts is None:
        return "gapmend gap"
    if told.erased:
        were = "was" if told.erased == 1 else "were"
        return f"It can't be trained again: {told.erased:,} of its rows {were} erased."
    return f"gapmend reproduce {told.id[:_ID]} trains it again from its lineage and compares."


def _again_tables(told: Account) -> Iterator[Table]:
    facts = told.facts
    if facts:
        settings = tuple((key, _plain(value)) for key, value in sorted(facts.settings.items()))
        named = (
            ("adapter", facts.adapter_id),
            ("base", facts.base if not facts.revision else f"{facts.base}@{facts.revision}"),
            ("base's digest", facts.base_digest),
            ("gap", told.gap_id),
        )
        yield Table("What it is", ("what", "value"), tuple((a, b) for a, b in named if b))
        if settings:
            yield Table("Every setting that decided it", ("key", "value"), settings, folded=True)
    machine = {**told.hardware, **told.environment, **told.environment.get("packages", {})}
    machine.pop("packages", None)
    rows = tuple((key, _plain(value)) for key, value in machine.items())
    if rows:
        yield Table("The machine and its packages", ("what", "value"), rows, folded=True)
    spent = tuple((one.stage, f"{one.runs:,}", in_time(one.seconds)) for one in told.spent)
    if spent:
        yield Table("What each stage took", ("stage", "runs", "time"), spent, folded=True)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
