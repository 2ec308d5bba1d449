"""Splits: a cluster never straddles, what was committed stays, order decides nothing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.hash_index import hashes_of
from registry.rows import HELD
from registry.splits import (
    CODED,
    NOWHERE,
    Candidates,
    Leak,
    Target,
    assign,
    cluster_number,
    target_rows,
)

TARGETS = (Target("dev", 3), Target("test", 2))
QUICK = settings(deadline=None, max_examples=60)


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


# A row is (its number, its group's number, the split of its file).
ROWS = st.lists(
    st.tuples(
        st.integers(0, 40), st.integers(0, 8), st.sampled_from(["train", "train", "dev", "test"])
    ),
    unique_by=lambda row: row[0],
    max_size=25,
)


@dataclass(frozen=True)
class Placement:
    """Where a row was committed."""

    split: str
    cluster: int


@dataclass(frozen=True)
class Placed:
    """An assignment by name."""

    splits: tuple[str, ...]
    clusters: tuple[int, ...]
    leaks: tuple[Leak, ...]


def run(rows: list[tuple[int, int, str]], committed: dict[str, Placement] | None = None) -> Placed:
    known = [(committed or {}).get(name(n)) for n, _, _ in rows]
    candidates = Candidates(
        hashes_of(pa.array([name(n) for n, _, _ in rows], pa.string())),
        np.array([CODED.index(given) for _, _, given in rows], np.uint8),
        np.array([CODED.index(one.split) if one else NOWHERE for one in known], np.uint8),
        np.array([one.cluster if one else -1 for one in known], np.int64),
    )
    placed = assign(candidates, np.array([group for _, group, _ in rows], np.int64), TARGETS)
    splits = tuple(CODED[code] for code in placed.splits.tolist())
    return Placed(splits, tuple(placed.clusters.tolist()), placed.leaks)


def placements(rows: list[tuple[int, int, str]], placed: Placed) -> dict[str, Placement]:
    triples = zip(rows, placed.splits, placed.clusters, strict=True)
    return {name(row[0]): Placement(split, cluster) for row, split, cluster in triples}


def straddling(placed: Placed) -> dict[int, set[str]]:
    found = defaultdict(set)
    for split, cluster in zip(placed.splits, placed.clusters, strict=True):
        if split != HELD:
            found[cluster].add(split)
    return {cluster: splits for cluster, splits in found.items() if len(splits) > 1}


@given(ROWS)
@QUICK
def test_no_cluster_straddles_and_every_held_row_is_listed(rows) -> None:
    placed = run(rows)
    assert straddling(placed) == {}
    held = [i for i, split in enumerate(placed.splits) if split == HELD]
    assert [leak.position for leak in placed.leaks] == held
    assert all(leak.wanted != leak.against for leak in placed.leaks)


@given(ROWS, st.randoms(use_true_random=False))
@QUICK
def test_the_order_of_rows_decides_nothing(rows, random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert placements(rows, run(rows)) == placements(shuffled, run(shuffled))


@given(ROWS, ROWS, st.randoms(use_true_random=False))
@QUICK
def test_appending_moves_no_committed_row_and_joins_no_splits(rows, more, random) -> None:
    # `more` may bridge groups of the first version: a row's group is merged with another's.
    first = placements(rows, run(rows))
    have = {row[0] for row in rows}
    merged = {group: random.choice((group, 0)) for group in range(9)}
    both = [(n, merged[g], s) for n, g, s in rows + [r for r in more if r[0] not in have]]
    placed = run(both, first)
    second = placements(both, placed)
    assert {h: second[h].split for h in first} == {h: p.split for h, p in first.items()}
    assert straddling(placed) == {}


@given(ROWS)
@QUICK
def test_carving_never_takes_more_than_its_target_nor_what_was_given(rows) -> None:
    placed = run(rows)
    for target in TARGETS:
        given_rows = sum(given == target.split for _, _, given in rows)
        assert placed.splits.count(target.split) <= max(target.rows, given_rows)


def test_whole_clusters_are_carved_until_the_target_is_met() -> None:
    placed = run([(n, n, "train") for n in range(40)])
    assert (placed.splits.count("dev"), placed.splits.count("test")) == (3, 2)
    assert placed.leaks == ()
    assert placed.clusters == tuple(cluster_number(name(n)) for n in range(40))


def test_a_train_row_near_a_given_test_row_is_held() -> None:
    placed = run([(1, 0, "test"), (2, 0, "train"), (3, 0, "dev"), (4, 1, "dev"), (5, 1, "train")])
    assert placed.splits == ("test", HELD, HELD, "dev", HELD)
    assert [(k.wanted, k.against) for k in placed.leaks] == [
        ("train", "test"),
        ("dev", "test"),
        ("train", "dev"),
    ]


def test_a_later_row_that_bridges_train_and_test_is_held_and_nothing_moves() -> None:
    committed = {name(1): Placement("train", 11), name(2): Placement("test", 22)}
    placed = run([(1, 0, "train"), (2, 0, "test"), (3, 0, "train"), (4, 0, "test")], committed)
    assert placed.splits == ("train", "test", HELD, HELD)
    assert placed.clusters[:2] == (11, 22)


def test_a_later_row_near_a_committed_test_row_stays_out_of_training() -> None:
    committed = {name(1): Placement("test", 11)}
    assert run([(1, 0, "train"), (2, 0, "train")], committed).splits == ("test", HELD)


def test_a_held_row_stays_held_when_its_neighbour_is_gone() -> None:
    committed = {name(2): Placement(HELD, 11)}
    assert run([(2, 0, "train")], committed).splits == (HELD,)


def test_sizes_are_counts_shares_or_a_tenth() -> None:
    assert target_rows(None, 500) == 50
    assert target_rows(None, 1_000_000) == 1000
    assert target_rows(0.25, 100) == 25
    assert target_rows(7, 100) == 7
    assert target_rows(0, 100) == 0
