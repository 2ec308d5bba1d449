"""Mending: what the next round changes, and which scale is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure.gates import SCALES, first_scale
from pipeline.selection.budget import MOST_ROWS, Budget, Need, next_budget

VERDICT = st.sampled_from(["kept", "forgotten", "inconclusive"])
CLOSING = st.sampled_from(["closed", "open", "inconclusive"])


def needs(verdicts):
    return st.builds(Need, verdicts, st.floats(0, 1))


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 900), needs(CLOSING))),
    st.dictionaries(st.sampled_from("xyz"), st.tuples(st.integers(0, 400), needs(VERDICT))),
    st.integers(50, 1000),
)
def test_what_was_lost_never_gets_fewer_rows_and_the_total_is_bounded(gap, replay, rows) -> None:
    current = Budget({n: r for n, (r, _) in gap.items()}, {n: r for n, (r, _) in replay.items()})
    capabilities = {n: need for n, (_, need) in gap.items()}
    guards = {n: need for n, (_, need) in replay.items()}
    following = next_budget(current, capabilities, guards, rows=rows)
    assert set(following.gap) == set(current.gap)
    assert set(following.replay) == set(current.replay)
    assert following.total <= max(MOST_ROWS * rows, current.total)
    for name, need in guards.items():
        assert following.replay[name] >= current.replay[name]
        if need.verdict == "kept":
            assert following.replay[name] == current.replay[name]
    for name, need in capabilities.items():
        assert following.gap[name] >= current.gap[name]
        if need.verdict == "closed":
            assert following.gap[name] == current.gap[name]


def test_a_lost_guard_gets_rows_and_a_closed_gap_keeps_its_own() -> None:
    current = Budget({"mood": 800}, {"facts": 150, "sums": 100})
    lost = {"facts": Need("forgotten", 0.05), "sums": Need("kept")}
    following = next_budget(current, {"mood": Need("closed")}, lost, rows=1000)
    assert dict(following.gap) == {"mood": 800}
    assert dict(following.replay) == {"facts": 300, "sums": 100}


def test_a_guard_that_was_never_replayed_is_filled_in() -> None:
    current = Budget({"mood": 1000}, {"facts": 0, "sums": 0})
    lost = {"facts": Need("forgotten", 0.6), "sums": Need("forgotten", 0.04)}
    following = next_budget(current, {"mood": Need("closed")}, lost, rows=1000)
    assert dict(following.replay) == {"facts": 100, "sums": 100}
    assert following.gap["mood"] == 1000


def test_what_is_added_is_cut_evenly_where_the_limit_is_reached() -> None:
    current = Budget({"mood": 200}, {"facts": 90, "sums": 0})
    lost = {"facts": Need("forgotten", 0.6), "sums": Need("forgotten", 0.6)}
    following = next_budget(current, {"mood": Need("closed")}, lost, rows=100)
    assert following.total == 300  # three times the budget
    assert dict(following.replay) == {"facts": 99, "sums": 1}


def test_gaps_and_losses_share_what_is_left_by_what_they_ask_for() -> None:
    """50, 90 and 10 rows are asked for and 10 are left: 3.33, 6 and 0.67."""
    current = Budget({"mood": 200}, {"facts": 90, "sums": 0})
    lost = {"facts": Need("forgotten", 0.6), "sums": Need("forgotten", 0.6)}
    following = next_budget(current, {"mood": Need("open")}, lost, rows=100)
    assert dict(following.gap) == {"mood": 203}
    assert dict(following.replay) == {"facts": 96, "sums": 1}
    # One row less is asked for than is left: nothing is cut.
    room = next_budget(current, {"mood": Need("open")}, {"facts": Need("forgotten")}, rows=144)
    assert (dict(room.gap), dict(room.replay)) == ({"mood": 250}, {"facts": 180, "sums": 0})
    # There are more than three times as many already: nothing is added, nothing taken away.
    large = Budget({"mood": 400}, {"facts": 0})
    assert next_budget(large, {"mood": Need("open")}, {"facts": Need("forgotten")}, rows=100) == (
        large
    )


def test_a_part_of_a_row_is_a_row() -> None:
    current = Budget({"mood": 10, "intent": 4000, "gone": 8}, {"facts": 0, "sums": 1, "names": 7})
    lost = {"facts": Need("forgotten"), "sums": Need("inconclusive"), "names": Need("forgotten")}
    asked = {"mood": Need("inconclusive"), "intent": Need("open")}
    following = next_budget(current, asked, lost, rows=55_555)
    assert dict(following.gap) == {"mood": 13, "intent": 5000, "gone": 8}  # 2.5, 1,000, not asked
    assert dict(following.replay) == {"facts": 5556, "sums": 2779, "names": 5563}


def test_an_open_gap_grows_and_gives_nothing() -> None:
    current = Budget({"mood": 400}, {"facts": 50})
    following = next_budget(current, {"mood": Need("open", 0.1)}, {"facts": Need("kept")}, rows=450)
    assert dict(following.gap) == {"mood": 500}
    assert dict(following.replay) == {"facts": 50}


def test_an_inconclusive_guard_gets_half_of_the_least_fill() -> None:
    current = Budget({"mood": 100}, {"facts": 0})
    following = next_budget(
        current, {"mood": Need("closed")}, {"facts": Need("inconclusive")}, rows=1000
    )
    assert following.replay["facts"] == 50


@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_the_largest_scale_that_fits_is_taken_and_no_smaller_one_is_tried(scales, good) -> None:
    tried: list[float] = []

    def fits(scale: float) -> bool:
        tried.append(scale)
        return scales.index(scale) in good

    taken = first_scale(scales, fits)
    fitting = [scale for scale in scales if scales.index(scale) in good]
    assert taken == (max(fitting) if fitting else None)
    assert tried == sorted(tried, reverse=True)
    assert taken is None or tried[-1] == taken


def test_full_scale_comes_first() -> None:
    assert SCALES == (1.0, 0.85, 0.7, 0.5)
    assert first_scale(SCALES, lambda scale: scale < 0.9) == 0.85
