"""Splits: a cluster never straddles, what was committed stays, order decides nothing."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.datasets.duplicates.hash_index import hashes_of
from registry.datasets.formats.content import HELD, content_hash
from registry.datasets.versions.splits import (
    CODED,
    NOWHERE,
    Leak,
    PlacedRows,
    Target,
    _in_order,
    _smallest,
    assign,
    cluster_number,
    committed_placements,
    target_rows,
)
from tests.support.made_versions import Made, Versions, sft

TARGETS = (Target("dev", 3), Target("test", 2))
QUICK = settings(deadline=None)


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
    candidates = PlacedRows(
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


def carved(names: list[str], groups: list[int]) -> list[str]:
    """Return the splits of rows that all came as train, by the rule and nothing else.

    Groups in the order of the salted hash of their smallest hash; two rows are test, then three
    are dev, and a group that has no room is passed over.
    """
    members = defaultdict(list)
    for one, group in zip(names, groups, strict=True):
        members[group].append(one)

    def place(group: int) -> tuple[str, str]:
        smallest = min(members[group])
        return hashlib.sha256(f"split:{smallest}".encode()).hexdigest()[:16], smallest

    where: dict[int, str] = {}
    for split, most in (("test", 2), ("dev", 3)):
        left = most
        for group in sorted(set(members) - set(where), key=place):
            if len(members[group]) <= left:
                where[group] = split
                left -= len(members[group])
    return [where.get(group, "train") for group in groups]


@given(ROWS)
@QUICK
def test_the_salted_hash_decides_what_is_carved(rows) -> None:
    trained = [(number, group, "train") for number, group, _ in rows]
    wanted = carved([name(number) for number, _, _ in rows], [group for _, group, _ in rows])
    assert list(run(trained).splits) == wanted


@pytest.mark.parametrize("seed", range(12))
def test_hashes_that_begin_alike_are_told_apart(seed: int) -> None:
    random = Random(seed)
    names = [f"{n % 3:016x}{random.getrandbits(192):048x}" for n in range(30)]
    groups = [random.randrange(12) for _ in names]
    everywhere = np.full(30, NOWHERE, np.uint8)
    rows = PlacedRows(
        hashes_of(pa.array(names, pa.string())),
        np.zeros(30, np.uint8),
        everywhere,
        np.zeros(30, np.int64),
    )
    placed = assign(rows, np.array(groups), TARGETS)
    assert [CODED[code] for code in placed.splits] == carved(names, groups)
    assert all(
        number == min(cluster_number(one) for one, other in zip(names, groups, strict=True)
                      if other == group)
        for number, group in zip(placed.clusters, groups, strict=True)
    )  # fmt: skip


def test_what_was_committed_is_not_carved_and_fills_the_target() -> None:
    committed = {name(n): Placement("train", 100 + n) for n in range(10)}
    committed |= {name(10): Placement("dev", 110), name(11): Placement("dev", 111)}
    rows = [(n, n, "train") for n in range(40)] + [(40, 0, "train"), (41, 10, "dev")]
    placed = run(rows, committed)
    assert placed.splits[:12] == ("train",) * 10 + ("dev",) * 2
    assert placed.splits[40:] == ("train", "dev")  # with the committed rows that they are near
    assert placed.clusters[40:] == (100, 110)
    assert (placed.splits.count("dev"), placed.splits.count("test")) == (3, 2)
    assert placed.leaks == ()


def test_a_cluster_is_called_by_its_smallest_hash() -> None:
    assert cluster_number("f" * 64) == 2**60 - 1
    assert cluster_number("0" * 14 + "1" + "f" * 49) == 1
    placed = run([(1, 0, "train"), (2, 0, "train"), (3, 1, "train")])
    smaller = min(int(name(1)[:15], 16), int(name(2)[:15], 16))
    assert placed.clusters == (smaller, smaller, int(name(3)[:15], 16))


def test_a_bridge_is_against_the_strongest_split_that_it_joins() -> None:
    three = {name(1): Placement("train", 1), name(2): Placement("dev", 2)}
    every = three | {name(3): Placement("test", 3)}
    rows = [(1, 0, "train"), (2, 0, "train"), (4, 0, "dev"), (5, 0, "test")]
    assert [(leak.position, leak.wanted, leak.against) for leak in run(rows, three).leaks] == [
        (2, "dev", "dev"),
        (3, "test", "dev"),
    ]
    placed = run([*rows, (3, 0, "train")], every)
    assert placed.splits == ("train", "dev", HELD, HELD, "test")
    assert placed.clusters == (1, 2, 1, 1, 3)
    assert [leak.against for leak in placed.leaks] == ["test", "test"]


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
    assert target_rows(0.25, 103) == 25
    assert target_rows(7, 100) == 7
    assert target_rows(0, 100) == 0


def test_a_split_that_is_not_asked_for_is_not_carved() -> None:
    rows = PlacedRows(
        hashes_of(pa.array([name(n) for n in range(9)], pa.string())),
        *(np.zeros(9, np.uint8), np.full(9, NOWHERE, np.uint8), np.zeros(9, np.int64)),
    )
    for target in (Target("dev", 1), Target("test", 2)):
        placed = assign(rows, np.arange(9), [target]).splits
        counts = {CODED.index(target.split): target.rows, CODED.index("train"): 9 - target.rows}
        assert Counter(placed.tolist()) == counts


def test_rows_of_numbers_are_put_in_order_by_the_first_that_differs() -> None:
    def order(*numbers: tuple[int, int]) -> list[int]:
        return _in_order(np.array(numbers, np.uint64)).tolist()

    assert order((2, 0), (3, 1), (1, 2)) == [2, 0, 1]
    assert order((0, 9), (1, 5), (1, 3)) == [0, 2, 1]
    assert order((1, 5), (1, 3)) == [1, 0]


def test_of_hashes_that_begin_alike_the_smallest_is_found() -> None:
    hashes = np.array([[7, 0, 2, 0], [7, 0, 1, 9], [3, 9, 9, 9]], np.uint64)
    assert _smallest(hashes, np.array([0, 2]), np.array([2, 1])).tolist() == [
        *([7, 0, 1, 9], [3, 9, 9, 9]),
    ]


def test_a_row_keeps_its_first_split_and_has_its_latest_cluster(tmp_path: Path) -> None:
    """A cluster is called by the row's place in the version here; `d` was in none."""
    a, b, c, d = (sft("q", letter) for letter in "abcd")
    made = Versions(tmp_path)
    first = made.put([Made(a, "dev"), Made(b, "train")], commit=False)
    second = made.put([Made(b, "test"), Made(c, HELD), Made(a, "dev")], commit=False)
    placed = committed_placements(made.store, [first, second])
    hashes = hashes_of(pa.array([content_hash(one) for one in (a, b, c, d)], pa.string()))
    splits, clusters = placed.of(hashes)
    assert splits.tolist() == [*map(CODED.index, ("dev", "train", HELD)), NOWHERE]
    assert clusters[:3].tolist() == [2, 0, 1]
    every, codes, numbers = placed.all()
    assert (every.tolist(), codes.tolist()) == (hashes[:3].tolist(), splits[:3].tolist())
    assert numbers.tolist() == [2, 0, 1]
