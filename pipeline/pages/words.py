"""The story of an adapter in a person's words. Pure: an account in, sentences out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.verdicts.gap import GapFinding
    from pipeline.pages.account import Account, Measured, Training

_ID = 8
_BECAUSE = {
    "gap": "for the gaps",
    "replay": "that the base answers right",
    "mend": "to fill in what was lost",
    "general": "of the base's own text",
}


@dataclass(frozen=True)
class Chapter:
    """A question that a person has, and the answer, a line for each thing."""

    title: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The answer as one text."""
        return " ".join(self.lines)


def story(told: Account) -> tuple[Chapter, ...]:
    """Tell what was lacking, tried, trained, spent and lost, and whether it may be used."""
    parts = (
        ("What was lacking", _lacking(told)),
        ("What was tried without training", _tried(told)),
        ("What was trained", _trained(told)),
        ("What it cost", _cost(told)),
        ("What was lost", _lost(told)),
        ("May it be used?", _verdict(told)),
        ("What has not ended", (one.said for one in told.unended)),
    )
    found = ((title, tuple(lines)) for title, lines in parts)
    return tuple(Chapter(title, lines) for title, lines in found if lines)


def _lacking(told: Account) -> Iterator[str]:
    if not told.gap:
        return
    number = len(told.gap)
    yield f"{_count(number, 'capability', 'capabilities')} of {told.base} {_were(number)} measured."
    for one in told.gap:
        yield _finding(one)


def _finding(one: GapFinding) -> str:
    at = f"{one.capability} scores {one.base.mean:.3f}, and {one.goal:.2f} is wanted"
    if one.verdict == "met":
        return f"{at}: met."
    if one.verdict == "prompt":
        return f"{at}; a prompt does it."
    if one.verdict == "tune":
        return f"{at}: a real gap."
    wanted = f"; {one.items_to_settle:,} items would" if one.items_to_settle else ""
    return f"{at}: {one.base.n:,} items don't settle whether it is lacking{wanted}."


def _tried(told: Account) -> Iterator[str]:
    for one in told.gap:
        best = one.best_prompt_interval
        if one.best_prompt and best:
            if best.mean <= one.base.mean:
                said = f"no prompt is better; the best, {one.best_prompt}, gets {best.mean:.3f}"
            else:
                said = f"the best prompt, {one.best_prompt}, gets it to {best.mean:.3f}"
            then = ", and nothing is trained for it" if one.verdict == "prompt" else ""
            yield f"{one.capability}: {said} for {one.prompt_tokens:,.0f} tokens a call{then}."
        elif one.verdict == "tune":
            yield f"{one.capability}: no prompt was tried."


def _trained(told: Account) -> Iterator[str]:
    if told.facts is None:
        yield "Nothing was trained."
        return
    if not told.trainings:
        yield f"Adapter {told.id[:_ID]} was put together or trained elsewhere."
        return
    for one in told.trainings:
        yield _training(one)
    last = told.trainings[-1]
    if last.adapter_id != told.id:
        yield f"Adapter {told.id[:_ID]} is made from it."


def _training(one: Training) -> str:
    taught: dict[str, dict[str, int]] = {}
    for part in one.chosen.parts:
        counts = taught.setdefault(part.reason, {})
        counts[part.capability] = counts.get(part.capability, 0) + part.rows
    rows = "; ".join(
        f"{_BECAUSE.get(reason, reason)} "
        + listed([f"{count:,} of {name}" for name, count in counts.items()])
        for reason, counts in taught.items()
    )
    aside = sum(one.chosen.set_aside.values()) + sum(one.chosen.leaks.values())
    kept_out = f" {aside:,} rows were kept out." if aside else ""
    how = f"{one.weights.get('method')}, {one.weights.get('steps', 0):,} steps"
    which = "" if one.number == 0 else f"Round {one.number} of mending: "
    begun = "adapter" if which else "Adapter"
    return (
        f"{which}{begun} {one.adapter_id[:_ID]} was trained on {one.chosen.rows:,} rows "
        f"({how}): {rows}.{kept_out}"
    )


def _lost(told: Account) -> Iterator[str]:
    first = told.trainings[0].measured if told.trainings else None
    if first and (told.measured is not first):
        yield f"The first adapter, on dev: {_moved(first)}"
    if told.measured:
        yield f"This one, on {told.measured.split}: {_moved(told.measured)}"


def _moved(found: Measured) -> str:
    if not found.kept:
        return "no guard was asked."
    lost = [one for one in found.kept if one.verdict != "kept"]
    items, gone = sum(one.n for one in found.kept), sum(one.lost for one in found.kept)
    said = f"{gone:,} of {items:,} guard items {_were(gone)} lost"
    if not lost:
        return f"{said}, and every guard is kept."
    told = [f"{one.guard} {one.verdict} ({one.before:.3f} to {one.after:.3f})" for one in lost]
    return f"{said}: {listed(told)}."


def _cost(told: Account) -> Iterator[str]:
    if not told.spent:
        return
    total = sum(one.seconds for one in told.spent)
    most = sorted(told.spent, key=lambda one: -one.seconds)[:3]
    named = listed([f"{one.stage} {in_time(one.seconds)}" for one in most])
    yield f"All stages took {in_time(total)}; most of it {named}."
    tokens = sum(int(one.weights.get("tokens", 0)) for one in told.trainings)
    deciding = sum(sum(one.chosen.deciding_tokens.values()) for one in told.trainings)
    if tokens:
        yield f"{tokens:,} tokens were trained on, and {deciding:,} read to choose the rows."


def _verdict(told: Account) -> Iterator[str]:
    if told.facts is None:
        return
    if told.promotion is None:
        yield "It was not promoted: test items were not asked yet."
    else:
        decision = told.promotion[1]
        if decision.promoted:
            look = f", look {decision.looks:,}" if decision.looks else ""
            yield f"Yes: it passed all {len(decision.gates):,} gates on test{look}."
        else:
            why = "; ".join(decision.reasons)
            yield f"No: it was refused. {why}{'' if why.endswith('.') else '.'}"
    if told.facts.aliases:
        yield f"It is called {listed(list(told.facts.aliases))}."
    if told.merge:
        meta = told.merge[1]
        yield (
            f"Merged into the base, its logits differ by {meta.max_difference:.1e} of the largest; "
            f"{meta.bound:.0e} is allowed."
        )
    if told.erased:
        yield (
            f"{_count(told.erased, 'row', 'rows')} that taught it {_were(told.erased)} erased "
            "since. Its weights may still know them, and it can't be trained again."
        )


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    if len(words) < 2:  # noqa: PLR2004 - a list of one has no "and"
        return "".join(words) or "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
