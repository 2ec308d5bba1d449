"""Selection: how many rows go to what, and which; the rules hold for any input."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.selection.budget import (
    FLOOR,
    LABEL_FLOOR,
    Supply,
    budget,
    first_budget,
    label_quota,
    replay_shares,
    whole_numbers,
)
from pipeline.selection.choose import choose_nearest, draw, interleave

NAMES = st.text("abcdef", min_size=1, max_size=4)
GAPS = st.dictionaries(NAMES, st.floats(0, 1), max_size=8)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(GAPS, st.integers(0, 5000))
def test_the_budget_gives_all_rows_away_and_respects_the_floor(gaps, total) -> None:
    given_rows = budget(gaps, total)
    real = [name for name, gap in gaps.items() if gap > 0]
    assert set(given_rows) == set(gaps)
    assert sum(given_rows.values()) == (total if real else 0)
    for name in gaps:
        least = min(FLOOR, 1 / len(real)) * total if name in real else 0
        assert given_rows[name] >= int(least) - 1
        assert name in real or given_rows[name] == 0


@given(GAPS, st.integers(100, 5000))
def test_a_wider_gap_never_gets_fewer_rows(gaps, total) -> None:
    given_rows = budget(gaps, total)
    ordered = sorted(gaps, key=lambda name: gaps[name])
    for narrow, wide in itertools.pairwise(ordered):
        assert given_rows[narrow] <= given_rows[wide] + 1  # rounding


def test_rows_grow_with_the_root_of_the_gap() -> None:
    assert budget({"wide": 0.4, "narrow": 0.1}, 300) == {"wide": 200, "narrow": 100}
    assert budget({"wide": 0.9, "tiny": 0.0001, "met": -0.1}, 100) == {
        "wide": 90,
        "tiny": 10,
        "met": 0,
    }


def test_shares_are_exact_where_rows_are_many() -> None:
    assert budget({"wide": 0.4, "narrow": 0.1}, 30_000) == {"wide": 20_000, "narrow": 10_000}
    assert budget({"wide": 0.9, "tiny": 1e-6, "met": 0.0}, 10_000) == {
        "wide": 9000,
        "tiny": 1000,
        "met": 0,
    }
    assert budget({"met": 0.0}, 50) == {"met": 0}


def test_who_falls_below_the_floor_after_others_were_raised_to_it_is_raised_too() -> None:
    """Roots 10, 1.2 and 0.1: 88.5, 10.6 and 0.9%; then 80.4, 9.6 and 10%; then 80, 10 and 10%."""
    gaps = {"a": 10.0**2, "b": 1.2**2, "c": 0.1**2}
    assert budget(gaps, 1000) == {"a": 800, "b": 100, "c": 100}
    assert budget({f"{n:02}": (n + 1) / 20 for n in range(20)}, 2000) == {
        f"{n:02}": 100 for n in range(20)
    }
    assert budget({"a": 0.9, "b": 0.0001}, 1000, floor=0.25) == {"a": 750, "b": 250}


def test_the_largest_remainders_are_rounded_up_and_of_equal_ones_the_first_names() -> None:
    assert whole_numbers({"x": 5, "y": 3, "z": 1}, 10) == {"x": 6, "y": 3, "z": 1}
    assert whole_numbers({"c": 1, "b": 1, "a": 1}, 2) == {"a": 1, "b": 1, "c": 0}
    assert whole_numbers({"a": 0.0, "b": 0.0}, 3) == {"a": 0, "b": 0}
    assert whole_numbers({}, 3) == {}


def test_a_label_gets_three_quarters_of_its_equal_share() -> None:
    there = {"a": 5000, "b": 5000, "c": 50, "none": 0}
    assert label_quota(there, 4000) == {"a": 1000, "b": 1000, "c": 50, "none": 0}
    assert label_quota(dict.fromkeys("edcba", 9), 3) == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0}
    assert label_quota({"a": 1, "b": 0}, 1) == {"a": 1, "b": 0}
    assert label_quota({"a": 9}, 0) == {"a": 0}
    assert label_quota({"a": 9, "b": 9}, 3) == {"a": 1, "b": 1}  # 1.125: 2 each would be 4


@given(st.dictionaries(NAMES, st.floats(0, 100), min_size=1), st.integers(0, 1000))
def test_whole_numbers_add_up_and_stay_within_one_of_the_share(shares, total) -> None:
    rounded = whole_numbers(shares, total)
    whole = sum(shares.values())
    if whole == 0:
        assert set(rounded.values()) == {0}
        return
    assert sum(rounded.values()) == total
    for name, share in shares.items():
        assert abs(rounded[name] - share / whole * total) <= 1.001


@given(st.dictionaries(NAMES, st.integers(0, 50)), st.integers(0, 500))
def test_a_label_quota_never_asks_for_more_than_there_is(available, total) -> None:
    quota = label_quota(available, total)
    assert sum(quota.values()) <= total
    assert all(quota[label] <= rows for label, rows in available.items())
    live = [label for label, rows in available.items() if rows]
    if total >= len(live):
        assert all(quota[label] >= 1 for label in live)


def supply(rows: int, tokens: float = 20, at_risk: float = 0.8) -> Supply:
    return Supply(rows, tokens, at_risk)


def test_replay_takes_its_share_of_the_rows_from_what_is_there() -> None:
    made = first_budget(
        {"intent": 0.3}, {"facts": supply(500), "sums": supply(500), "none": supply(0)}, 1000, 0.2
    )
    assert dict(made.replay) == {"facts": 100, "sums": 100, "none": 0}
    assert dict(made.gap) == {"intent": 800}
    assert first_budget({"intent": 0.3}, {"facts": supply(5)}, 100, 0.0).gap == {"intent": 100}
    assert first_budget({"intent": 0.3}, {"facts": supply(5)}, 100, 0.2).gap == {"intent": 95}
    odd = {"facts": supply(500), "sums": supply(1), "one": supply(300)}
    # 201 rows: one of sums, and what it had no rows for goes to the others.
    found = first_budget({"intent": 0.3}, odd, 1003, 0.2)
    assert dict(found.replay) == {"facts": 100, "sums": 1, "one": 100}
    assert (dict(found.gap), found.total) == ({"intent": 802}, 1003)
    assert first_budget({"intent": 0.3}, {"none": supply(0)}, 100, 0.2).gap == {"intent": 100}


def test_replay_is_shared_by_tokens_and_by_what_can_be_lost() -> None:
    """Of 240 tokens' worth, 180 go to what has three times as much to lose: 9 rows of 20, 6 of 10.

    By rows: 0.9 / 20 to 0.3 / 10, three to two.
    """
    two = {"long": supply(99, 20, 0.9), "short": supply(99, 10, 0.3)}
    assert replay_shares(two, 15) == {"long": 9, "short": 6}
    assert replay_shares({"a": supply(9, 5), "b": supply(9, 50)}, 11) == {"a": 9, "b": 2}
    # Nothing at risk gets nothing, unless nothing is.
    assert replay_shares({"a": supply(9), "chance": supply(9, at_risk=0)}, 4)["chance"] == 0
    assert replay_shares({"b": supply(9, at_risk=0), "a": supply(9, at_risk=0)}, 4) == {
        "b": 2,
        "a": 2,
    }
    assert replay_shares({"empty": supply(9, tokens=0), "one": supply(9, tokens=1)}, 4) == {
        "empty": 2,
        "one": 2,
    }
    assert replay_shares({}, 4) == {}


@given(
    st.dictionaries(
        NAMES,
        st.builds(
            Supply, st.integers(0, 60), st.floats(0, 500), st.just(0.0) | st.floats(0.001, 1)
        ),
        max_size=6,
    ),
    st.integers(0, 200),
)
def test_replay_shares_never_exceed_the_supply_nor_leave_rows_that_could_be_given(
    supplies, rows
) -> None:
    given_rows = replay_shares(supplies, rows)
    assert set(given_rows) == set(supplies)
    assert all(0 <= given_rows[name] <= one.rows for name, one in supplies.items())
    live = [one for one in supplies.values() if one.rows and one.at_risk > 0]
    there = sum(one.rows for one in live or supplies.values())
    assert sum(given_rows.values()) == min(rows, there)
    for name, one in supplies.items():  # of two alike, the one with more to lose gets no less
        for other, two in supplies.items():
            if one.rows == two.rows and one.tokens == two.tokens and one.at_risk <= two.at_risk:
                assert given_rows[name] <= given_rows[other] + 1  # rounding


def test_failures_take_turns_with_their_nearest_row() -> None:
    pool = unit(np.array([[1, 0.02, 0], [1, 0.9, 0], [0, 1, 0.4], [0, 0.3, 1]]))
    failures = unit(np.array([[1.0, 0, 0], [0, 0, 1.0]]))
    picks = choose_nearest(pool, failures, 3)
    assert [pick.position for pick in picks] == [0, 3, 1]
    assert picks[0].score == pytest.approx(float(pool[0] @ failures[0]))


def test_a_near_duplicate_of_a_near_row_is_passed_over() -> None:
    pool = unit(np.array([[1, 0, 0], [1, 0.01, 0], [1, 0.9, 0]]))
    failures = unit(np.array([[1.0, 0, 0]]))
    assert [pick.position for pick in choose_nearest(pool, failures, 3)] == [0, 2]


@example(916, 2, 3)
@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(0, 70))
def test_any_draw_has_no_repeat_no_near_duplicate_and_covers_labels(seed, n, quota) -> None:
    pool = unit(np.random.default_rng(seed).normal(size=(n, 4)))
    labels = [f"l{i % 3}" for i in range(n)]
    drawn = draw(pool, quota, labels)
    positions = list(drawn.chosen)
    assert positions == sorted(set(positions))
    assert len(positions) <= quota
    chosen = pool[positions]
    if len(positions) > 1:
        cosines = chosen @ chosen.T
        assert cosines[~np.eye(len(positions), dtype=bool)].max() <= 0.951
    if quota >= 3:
        # Every label is there, unless all of its rows nearly repeat a chosen one.
        taken = {labels[position] for position in positions}
        for position in (i for i, label in enumerate(labels) if label not in taken):
            assert (chosen @ pool[position]).max() > 0.949
    assert len(positions) + drawn.near_duplicates == n or len(positions) == quota


@given(st.integers(0, 2**16), st.integers(0, 40), st.integers(0, 40))
def test_a_larger_quota_keeps_what_a_smaller_one_drew(seed, one, two) -> None:
    pool = unit(np.random.default_rng(seed).normal(size=(50, 4)))
    small, large = (draw(pool, quota, [None] * 50).chosen for quota in sorted((one, two)))
    assert set(small) <= set(large)


def test_a_rare_label_gets_its_floor() -> None:
    pool = np.eye(400, dtype=np.float32)
    labels = ["no" if i % 20 else "yes" for i in range(400)]
    drawn = draw(pool, 40, labels).chosen
    counts = Counter(labels[place] for place in drawn)
    assert counts == {"no": 25, "yes": 15}
    assert counts["yes"] == LABEL_FLOOR * 20
    assert draw(pool, 40, [None] * 400).chosen == tuple(range(40))


def test_a_row_nearer_than_95_of_100_is_a_near_duplicate() -> None:
    def at(cosine: float) -> list[float]:
        return [cosine, (1 - cosine**2) ** 0.5, 0.0]

    pool = unit(np.array([at(1), at(0.951), at(0.949), [0, 0, 1]]))
    drawn = draw(pool, 4, [None] * 4)
    assert drawn.chosen == (0, 2, 3)
    assert drawn.near_duplicates == 1
    # At the limit itself it isn't one.
    assert draw(np.eye(3, dtype=np.float32), 3, [None] * 3, 0.0).chosen == (0, 1, 2)


def test_nothing_is_chosen_of_nothing() -> None:
    some, none = np.eye(2, dtype=np.float32), np.zeros((0, 2), np.float32)
    for pool, failures, quota in (
        *((some, some, 0), (some, some, -1), (none, some, 1), (some, none, 1)),
    ):
        assert choose_nearest(pool, failures, quota) == ()
    assert draw(none, 3, []).chosen == draw(some, 0, ["a", "b"]).chosen == ()
    one = choose_nearest(some, some, 1)
    assert [(pick.position, pick.score) for pick in one] == [(0, 1.0)]


def test_a_label_of_few_rows_leaves_the_others_their_floor() -> None:
    """Of 8 rows each of 3 labels has a floor of 2; `a` has 1 row, `c` comes first."""
    pool = np.eye(12, dtype=np.float32)
    labels = [*"ccccccc", "a", *"bbbb"]
    drawn = draw(pool, 8, labels).chosen
    assert Counter(labels[place] for place in drawn) == {"a": 1, "b": 2, "c": 5}


def test_a_label_without_a_floor_waits_for_what_is_left() -> None:
    """Two rows, three labels: `c` has none, though `b` has nothing but a near-duplicate of `a`."""
    pool = unit(np.array([[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [1, 0.9, 0]]))
    drawn = draw(pool, 2, [*"abca"])
    assert drawn.chosen == (0, 2)
    assert drawn.near_duplicates == 1


def test_replayed_rows_stand_in_the_middle_of_their_share() -> None:
    assert interleave(["g0", "g1", "g2", "g3"], ["r0", "r1"]) == [
        *("g0", "r0", "g1", "g2", "r1", "g3"),
    ]
    assert interleave([{"a": 1}], [{"b": 2}]) == [{"a": 1}, {"b": 2}]
    rows = {(kind, i): Fraction(2 * i + 1, 2 * n) for kind, n in (("g", 41), ("r", 44))
            for i in range(n)}  # fmt: skip
    mixed = interleave([("g", i) for i in range(41)], [("r", i) for i in range(44)])
    assert mixed == sorted(rows, key=rows.__getitem__)


@given(st.integers(0, 40), st.integers(0, 40))
def test_interleaving_keeps_both_orders_and_spreads_the_replay(gap, replay) -> None:
    mixed = interleave([("g", i) for i in range(gap)], [("r", i) for i in range(replay)])
    assert [i for kind, i in mixed if kind == "g"] == list(range(gap))
    assert [i for kind, i in mixed if kind == "r"] == list(range(replay))
    if gap and replay:
        for cut in range(len(mixed) + 1):  # any prefix holds its share, within one row
            so_far = sum(kind == "r" for kind, _ in mixed[:cut])
            assert abs(so_far - cut * replay / (gap + replay)) <= 1.5
