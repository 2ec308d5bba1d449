"""Curves of training: loss, learning rate, tokens a second, a line for each round."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.draw import WIDTH, Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.pages.account import Account

    Curves = Mapping[str, tuple[tuple[int, float], ...]]

_POINTS = 240
_SHOWN = {
    "loss": "Loss",
    "validation_loss": "Loss on held-out rows",
    "learning_rate": "Learning rate",
    "tokens_per_second": "Tokens a second",
}


def curve_pictures(told: Account) -> Iterator[Picture]:
    """Draw each metric that the trainings of an account wrote down."""
    return drawn_curves([(_round(one.number), one.curves) for one in told.trainings])


def drawn_curves(trainings: Sequence[tuple[str, Curves]]) -> Iterator[Picture]:
    """Draw each metric of some trainings, which are told apart by their names."""
    for name, title in _SHOWN.items():
        rows = [
            {"step": step, "value": value, "of": called}
            for called, curves in trainings
            for step, value in thinned(curves.get(name, ()), _POINTS)
        ]
        if rows:
            last = {row["of"]: row for row in rows}
            ends = "; ".join(f"{of} ends at {row['value']:.4g}" for of, row in last.items())
            chart = partial(_lines, rows, several=len(last) > 1)
            yield Picture(name.replace("_", "-"), title, f"{title} by step. {ends}.", chart)


def thinned(points: tuple[tuple[int, float], ...], most: int) -> tuple[tuple[int, float], ...]:
    """Return at most `most` points: means of as many steps each; the last step stays the last."""
    if len(points) <= most:
        return points
    size = -(-len(points) // most)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return tuple((group[-1][0], sum(one[1] for one in group) / len(group)) for group in groups)


def _round(number: int) -> str:
    return f"round {number}" if number else "first"


def _lines(rows: list[dict[str, Any]], *, several: bool) -> Any:
    import altair as alt

    encoding: dict[str, Any] = {
        "x": alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5)),
        "y": alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5)),
    }
    if several:
        encoding["color"] = alt.Color("of:N", title=None)
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=1.5)
    return lines.encode(**encoding).properties(width=WIDTH, height=140)
