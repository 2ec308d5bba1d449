"""Intervals: what base, prompts and adapter reach of each goal, and what guards lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.draw import (
    AFTER,
    BEFORE,
    INK,
    LOST,
    PROMPT,
    QUIET,
    SERIES,
    WIDTH,
    Picture,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evals.verdicts.stats import Interval
    from pipeline.pages.account import Account

_BAND = 15  # pixels of one interval
_COLOURS = {"base": BEFORE, "best prompt": PROMPT, "adapter": AFTER}


def gap_picture(told: Account) -> Picture | None:
    """Draw each capability's scores with their intervals, and the goal."""
    rows = list(_scores(told))
    if not rows:
        return None
    said = "; ".join(f"{row['name']}, {row['of']}: {row['mean']:.3f}" for row in rows)
    wanted = "; ".join(f"goal of {one.capability}: {one.goal:.2f}" for one in told.gap)
    domain = [name for name in _COLOURS if any(row["of"] == name for row in rows)]
    goals = [{"name": one.capability, "goal": one.goal} for one in told.gap]
    return Picture(
        "gap",
        "Scores with 95% intervals; a bar is the goal",
        f"Scores with 95% intervals beside the goals. {said}. {wanted}.",
        partial(_intervals, rows, domain, [_COLOURS[name] for name in domain], goals, [0, 1]),
    )


def _scores(told: Account) -> Iterator[dict[str, Any]]:
    measured = told.measured
    for one in told.gap:
        yield _row(one.capability, "base", one.base)
        if one.best_prompt_interval:
            yield _row(one.capability, "best prompt", one.best_prompt_interval)
        if measured and (closed := measured.closed.get(one.capability)):
            yield _row(one.capability, "adapter", closed.score)


def _row(name: str, of: str, found: Interval) -> dict[str, Any]:
    return {"name": name, "of": of, "mean": found.mean, "low": found.low, "high": found.high}


def forgetting_picture(told: Account) -> Picture | None:
    """Draw by how much each guard's score moved, and what may be lost."""
    rows: list[dict[str, Any]] = []
    limits: dict[str, float] = {}
    for training in told.trainings:
        if training.measured:
            of = f"round {training.number}, dev" if training.number else "first, dev"
            for one in training.measured.kept:
                rows.append(_row(one.guard, of, one.difference))
                limits[one.guard] = one.max_drop
    if told.tested:
        rows += [_row(one.guard, "on test", one.difference) for one in told.tested.kept]
    if not rows:
        return None
    said = "; ".join(f"{row['name']}, {row['of']}: {row['mean']:+.3f}" for row in rows)
    may = "; ".join(f"{name} may lose {drop:g}" for name, drop in limits.items())
    domain = list(dict.fromkeys(row["of"] for row in rows))
    colours = [LOST, *(one for one in SERIES if one != LOST)][: len(domain)]
    allowed = [{"name": name, "goal": -drop} for name, drop in limits.items()]
    return Picture(
        "forgetting",
        "How far the guards moved; a bar is what may be lost",
        f"Difference to the base with its interval, and what may be lost. {said}. {may}.",
        partial(_intervals, rows, domain, colours, allowed, None),
    )


def _intervals(
    rows: list[dict[str, Any]],
    domain: list[str],
    colours: list[str],
    marks: list[dict[str, Any]],
    within: list[float] | None,
) -> Any:
    """Draw intervals, a group for each name, and a mark across each group."""
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    tall = _BAND * max(2, len(domain))
    scale = alt.Scale(domain=within) if within else alt.Scale(nice=True, zero=True)
    x = alt.X("low:Q", scale=scale, title=None, axis=alt.Axis(tickCount=5))
    y = alt.Y("name:N", sort=names, title=None, scale=alt.Scale(paddingInner=0.25))
    offset = alt.YOffset("of:N", sort=domain)
    colour = alt.Color(
        "of:N", title=None, sort=domain, scale=alt.Scale(domain=domain, range=colours)
    )
    seen = alt.Chart(alt.Data(values=rows)).encode(y=y, yOffset=offset, color=colour)
    spans = seen.mark_rule(strokeWidth=3).encode(x=x, x2="high:Q")
    means = seen.mark_point(filled=True, size=46, opacity=1).encode(x=alt.X("mean:Q"))
    wanted = alt.Chart(alt.Data(values=marks)).encode(y=y)
    ticks = wanted.mark_tick(color=INK, thickness=2, size=tall).encode(x=alt.X("goal:Q"))
    parts = [spans, means, ticks]
    if within is None:
        zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=QUIET)
        parts.insert(0, zero.encode(x="zero:Q"))
    return alt.layer(*parts).properties(width=WIDTH - 40, height=alt.Step(_BAND))
