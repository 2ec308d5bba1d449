"""The tables of scores that may end early: `./just soak -k simulation -s`."""

from __future__ import annotations

import functools
from functools import partial

import numpy as np
import pytest

from tests.support import simulated as sim
from tests.support import simulated_early as early
from tests.support.simulated import KINDS, STRUCTURES, Row, Structure, printed

pytestmark = [pytest.mark.soak, pytest.mark.slow]

LIMIT = 0.0275
MARGIN = 0.02
GOALS = (0.5, 0.8, 0.95, 0.99)


@functools.cache
def at(n: int, goal: float, rate: float) -> early.Shares:
    return early.shares(early.of_rate(rate), np.ones(n, int), goal, goal - MARGIN)


def gap(n: int) -> float:
    return max(at(n, goal, goal).gap for goal in GOALS)


def met(n: int) -> float:
    return max(at(n, goal, goal - MARGIN).met for goal in GOALS)


def before_the_last(n: int) -> float:
    reached = max(at(n, goal, goal).gap_early for goal in GOALS)
    return max(reached, *(at(n, goal, goal - MARGIN).met_early for goal in GOALS))


def larger(n: int, make: Structure) -> float:
    """Worst where what shares a cluster is right as often as the rest, more often, or less often.

    The last not in two clusters of ten: they are too few for the bootstrap, whether or not a score
    may end early (it calls 4.2% met, at 2.5%; it never ends early there).
    """
    rights = (0.6, 1.0, 0.3) if n >= 200 else (0.6, 1.0)
    found = [early.shares(early.larger_are(right, 0.6), make(n), 0.6, 0.6) for right in rights]
    return max(max(one.gap, one.met) for one in found)


def between(n: int, make: Structure) -> float:
    found = [early.shares(early.of_kind(k), make(n), k.mean, k.mean) for k in KINDS]
    return max(max(one.gap, one.met) for one in found)


def test_wrong_findings_of_the_simulation_that_may_end_early() -> None:
    rows: list[Row] = [
        ("goal reached, called a gap (worst of 4 goals)", gap),
        ("goal - margin missed, called met (worst of 4)", met),
        ("either, before the last item (worst of 4)", before_the_last),
    ]
    for label, make in STRUCTURES.items():
        if make(20).max() > 1:
            rows.append((f"{label}: called a gap or met (worst of 6)", partial(larger, make=make)))
        what = f"scores between, {label}: called a gap or met (worst of 8)"
        rows.append((what, partial(between, make=make)))
    table = printed("may end early: wrong findings, % of 10,000 evals", rows)
    assert [label for label, shares in table.items() if max(shares) > LIMIT] == []


def asked(n: int, rate: float, make: Structure) -> float:
    kind = sim.Kind(f"{rate}", 1 - rate, rate, sim.BINARY.between, 1)
    return early.shares(early.of_kind(kind), make(n), 0.8, 0.78, evals=2000).asked


def test_items_asked_in_the_simulation_that_may_end_early() -> None:
    rows: list[Row] = [
        (f"{label}: right at {rate}, goal 0.8, margin 0.02", partial(asked, rate=rate, make=make))
        for label, make in STRUCTURES.items()
        for rate in (0.5, 0.6, 0.7, 0.8, 0.88, 0.98)
    ]
    table = printed("items asked, %", rows, (50, 200, 1000, 2000))
    for label, shares in table.items():
        assert shares == sorted(shares, reverse=True), label
