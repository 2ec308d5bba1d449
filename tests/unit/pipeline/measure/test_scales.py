"""Which scales of an adapter are asked, and which is taken."""

from __future__ import annotations

from evals.verdicts.forgetting import GuardFinding, PairedScores, judge_guards
from evals.verdicts.gap import judge_closed
from pipeline.measure.scales import AtScale, Curve, smaller_scale
from tests.support import simulated as sim

OPEN = judge_closed(sim.alone(50, 100), goal=0.9, margin=0.02)
CLOSED = judge_closed(sim.alone(98, 100), goal=0.9, margin=0.02)


def guard(name: str, lost: int, gained: int = 0) -> GuardFinding:
    pairs = sim.changed(lost, gained, 300)
    return judge_guards([PairedScores(name, tuple(range(300)), pairs, 0.03)])[0]


def curve(closed, kept, held) -> tuple[Curve, list[tuple[float, str]]]:
    """A curve that holds where `held` says so, and what was asked."""
    asked: list[tuple[float, str]] = []

    def measure(scale: float, name: str) -> AtScale:
        asked.append((scale, name))
        return AtScale(scale, held(scale, name))

    return Curve(closed, kept, measure), asked


def test_while_a_gap_is_open_what_is_lost_and_open_is_asked_at_every_scale() -> None:
    made, _ = curve(
        {"mood": OPEN, "tone": CLOSED},
        [guard("days", 90), guard("jobs", 0)],
        lambda _, name: name not in {"mood", "days"},
    )
    assert smaller_scale(made) is None
    assert set(made.scores) == {1.0, 0.85, 0.7, 0.5}
    assert made.scores[1.0] == {"mood": 0.5, "tone": 0.98, "days": 0.7, "jobs": 1.0}
    assert all(made.scores[scale] == {"days": scale, "mood": scale} for scale in (0.85, 0.7, 0.5))


def test_a_scale_that_also_closes_the_gap_is_taken() -> None:
    made, _ = curve({"mood": OPEN}, [guard("days", 90)], lambda scale, _: scale < 0.8)
    assert smaller_scale(made) == 0.7


def test_nothing_is_asked_where_nothing_was_lost() -> None:
    made, asked = curve({"mood": OPEN}, [guard("days", 0)], lambda *_: True)
    assert smaller_scale(made) is None
    assert asked == []


def test_where_the_smallest_gives_not_all_back_no_other_is_asked() -> None:
    kept = [guard("jobs", 160, 140), guard("days", 90)]  # from .53 to .47, and from 1 to .7
    made, asked = curve({"mood": CLOSED}, kept, lambda _, name: name != "days")
    assert smaller_scale(made) is None
    assert asked == [(0.5, "days")]  # what lost most comes first


def test_the_largest_scale_that_holds_is_taken() -> None:
    made, asked = curve({"mood": CLOSED}, [guard("days", 90)], lambda scale, _: scale <= 0.7)
    assert smaller_scale(made) == 0.7
    assert asked == [(0.5, "days"), (0.85, "days"), (0.7, "days"), (0.7, "mood")]
