"""Rows: what was chosen for what and why, what was kept out, how near it is to what was lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.draw import AFTER, QUIET, WIDTH, Picture

if TYPE_CHECKING:
    from pipeline.pages.account import Account, Training

_BAR = 20
WHY = {
    "gap": "for a gap",
    "replay": "replayed",
    "mend": "fills in a loss",
    "general": "the base's own text",
}
"""Reason of a selected row -> in words."""


def selection_picture(training: Training) -> Picture | None:
    """Draw how many rows are for what, and why."""
    rows = [
        {"name": one.capability, "why": WHY.get(one.reason, one.reason), "rows": one.rows}
        for one in training.chosen.parts
    ]
    if not rows:
        return None
    said = "; ".join(f"{row['rows']:,} of {row['name']}, {row['why']}" for row in rows)
    return Picture(
        f"selection-{training.number}",
        "Rows that were chosen",
        f"Rows by capability and reason. {said}.",
        partial(_bars, rows, "why"),
    )


def kept_out_picture(training: Training) -> Picture | None:
    """Draw what was kept out, by why."""
    chosen = training.chosen
    found = {**chosen.set_aside, **{f"leak: {kind}": n for kind, n in chosen.leaks.items()}}
    if chosen.near_duplicates:
        found["says what another row says"] = chosen.near_duplicates
    rows = [{"name": name, "rows": count} for name, count in found.items() if count]
    if not rows:
        return None
    said = "; ".join(f"{row['rows']:,} {row['name']}" for row in rows)
    return Picture(
        f"kept-out-{training.number}",
        "Rows that were kept out",
        f"Rows that were not chosen, by why. {said}.",
        partial(_bars, rows, None),
    )


def nearness_picture(training: Training) -> Picture | None:
    """Draw how near the rows that were chosen for it are to what was lost."""
    near = [(reason, one) for reason, found in training.near.items() for one in found]
    if not near:
        return None
    rows = [{"why": WHY.get(reason, reason), "near": one} for reason, one in near]
    mean = sum(one for _, one in near) / len(near)
    return Picture(
        f"nearness-{training.number}",
        "How near to what was lost",
        f"{len(rows):,} rows by how like a lost item they are, {mean:.2f} on average.",
        partial(_histogram, rows),
    )


def rounds_picture(told: Account) -> Picture | None:
    """Draw the items that each guard had lost after each round, on dev."""
    rows = [
        {"name": one.guard, "round": str(training.number or "first"), "lost": one.lost}
        for training in told.trainings
        if training.measured
        for one in training.measured.kept
    ]
    if len({str(row["round"]) for row in rows}) < 2:  # noqa: PLR2004 - one round is no course
        return None
    said = "; ".join(f"{row['name']} in round {row['round']}: {row['lost']:,}" for row in rows)
    says = f"Items lost, round by round. {said}."
    return Picture("rounds", "What each round lost", says, partial(_by_round, rows))


def scale_picture(training: Training) -> Picture | None:
    """Draw the scores at smaller scales of an adapter, where they were tried."""
    curve = training.mended.curve if training.mended else {}
    if len(curve) < 2:  # noqa: PLR2004 - one scale is no curve
        return None
    rows = [
        {"scale": float(at), "name": name, "score": score}
        for at, scores in curve.items()
        for name, score in scores.items()
    ]
    said = "; ".join(f"{row['name']} at {row['scale']:g}: {row['score']:.3f}" for row in rows)
    return Picture(
        f"scales-{training.number}",
        "At smaller scales",
        f"Scores of a weaker adapter. {said}.",
        partial(_by_scale, rows),
    )


def _bars(rows: list[dict[str, Any]], by: str | None) -> Any:
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    encoding: dict[str, Any] = {
        "x": alt.X("rows:Q", title=None, axis=alt.Axis(tickCount=4)),
        "y": alt.Y("name:N", sort=names, title=None),
    }
    if by:
        encoding["color"] = alt.Color(f"{by}:N", title=None)
    seen = alt.Chart(alt.Data(values=rows))
    bars = seen.mark_bar() if by else seen.mark_bar(color=QUIET)
    return bars.encode(**encoding).properties(width=WIDTH - 40, height=alt.Step(_BAR))


def _histogram(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    axis = alt.Axis(labelOverlap="greedy", labelSeparation=8, format=".2f")
    encoding: dict[str, Any] = {
        "x": alt.X(
            "near:Q", bin=alt.Bin(maxbins=20), title="cosine to the nearest lost item", axis=axis
        ),
        "y": alt.Y("count():Q", title="rows"),
    }
    if len({row["why"] for row in rows}) > 1:
        encoding["color"] = alt.Color("why:N", title=None)
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(color=AFTER)
    return bars.encode(**encoding).properties(width=WIDTH, height=140)


def _by_round(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    x = alt.X("round:O", title="round", sort=None, axis=alt.Axis(labelAngle=0))
    return _points(rows, x, alt.Y("lost:Q", title="items lost on dev"))


def _by_scale(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    y = alt.Y("score:Q", title="score on dev", scale=alt.Scale(domain=[0, 1]))
    return _points(rows, alt.X("scale:Q", title="scale of the adapter"), y)


def _points(rows: list[dict[str, Any]], x: Any, y: Any) -> Any:
    import altair as alt

    lines = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    colour = alt.Color("name:N", title=None)
    return lines.encode(x=x, y=y, color=colour).properties(width=WIDTH, height=160)
