"""Splits: which rows may be trained on and which measure, so that nothing leaks between them.

Rows whose questions are near-duplicates form a cluster, and a cluster never straddles train, dev
and test. What was committed stays: a later row that would put a committed row's cluster in two
splits is `held`, kept out of both training and measuring, and listed. All of it is decided by
hashes and committed placements alone, never by the order of rows or files.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.rows import HELD, SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HELD_OUT_DEFAULT = 1000  # rows of a split that nobody sized, and at most
_HELD_OUT_SHARE = 0.1  # this share of the dataset
_STRENGTH = {"test": 2, "dev": 1, "train": 0}  # of a row in several files, and of a cluster
_CLUSTER_DIGITS = 15  # 60 bits of a hash: fits a BIGINT, no collision in 10 M clusters


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a row was committed: a split never moves, and the cluster's number is kept."""

    split: str
    cluster: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row to place: its hash, the split that its file stands for, what was committed of it."""

    row_hash: str
    given: str
    committed: Placement | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """How many rows to carve out of train for one split."""

    split: Literal["dev", "test"]
    rows: int


@dataclass(frozen=True, slots=True)
class Leak:
    """Row `position` wanted to be in `wanted`, near rows in `against`, and is held."""

    position: int
    wanted: str
    against: str


@dataclass(frozen=True)
class Assignment:
    """Split and cluster of each row, in the order given, and the rows held for a leak."""

    splits: tuple[str, ...]
    clusters: tuple[int, ...]
    leaks: tuple[Leak, ...]


def strongest(splits: Iterable[str]) -> str:
    """Return the split of a row that stands in several files: test before dev before train."""
    return max(splits, key=_STRENGTH.__getitem__)


def target_rows(size: float | None, total: int) -> int:
    """Return how many of `total` rows a split gets: a share (float), a count (int), or neither."""
    if size is None:
        return min(_HELD_OUT_DEFAULT, int(total * _HELD_OUT_SHARE))
    return size if isinstance(size, int) else int(total * size)


def cluster_number(row_hash: str) -> int:
    """Return the number of a cluster whose smallest hash is `row_hash`."""
    return int(row_hash[:_CLUSTER_DIGITS], 16)


def assign(
    rows: Sequence[Candidate], groups: Sequence[int], targets: Sequence[Target]
) -> Assignment:
    """Place every row.

    Args:
        rows: the rows of the new version, each content once.
        groups: for each row, the number of its group of near-duplicates.
        targets: the splits to carve out of rows given as train.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    splits, clusters = [""] * len(rows), [0] * len(rows)
    leaks: list[Leak] = []
    free: dict[str, list[int]] = {}
    for positions in members.values():
        placed = _place(rows, positions)
        leaks += placed.leaks
        for position, split, cluster in zip(positions, placed.splits, placed.clusters, strict=True):
            splits[position], clusters[position] = split, cluster
        if placed.free:
            free[min(rows[position].row_hash for position in positions)] = positions
    for position, split in _carve(free, _still_wanted(targets, splits)).items():
        splits[position] = split
    return Assignment(tuple(splits), tuple(clusters), tuple(sorted(leaks, key=_by_position)))


@dataclass(frozen=True)
class _Placed:
    """One group's outcome; `free`: it is all new and all train, so it may be carved."""

    splits: list[str]
    clusters: list[int]
    leaks: list[Leak]
    free: bool = False


def _place(rows: Sequence[Candidate], positions: Sequence[int]) -> _Placed:
    group = [rows[position] for position in positions]
    committed = {row.committed.split for row in group if row.committed} - {HELD}
    home = committed or {strongest(row.given for row in group)}
    cluster = min(
        [row.committed.cluster for row in group if row.committed]
        or [cluster_number(row.row_hash) for row in group]
    )
    against = strongest(home)
    splits, clusters, leaks = [], [], []
    for position, row in zip(positions, group, strict=True):
        bridged = len(home) > 1
        keeps = row.committed is not None
        splits.append(row.committed.split if row.committed else row.given)
        clusters.append(row.committed.cluster if row.committed and bridged else cluster)
        if not keeps and (bridged or row.given not in home):
            splits[-1] = HELD
            leaks.append(Leak(position, row.given, against))
    free = not any(row.committed for row in group) and home == {"train"}
    return _Placed(splits, clusters, leaks, free)


def _still_wanted(targets: Sequence[Target], splits: Sequence[str]) -> dict[str, int]:
    """Return what is left to carve, test first, after what was committed or given."""
    wanted: dict[str, int] = {t.split: t.rows - splits.count(t.split) for t in targets}
    return {split: wanted[split] for split in reversed(SPLITS) if wanted.get(split, 0) > 0}


def _carve(free: Mapping[str, Sequence[int]], wanted: Mapping[str, int]) -> dict[int, str]:
    """Fill each wanted split with whole groups, in the order of their salted hashes.

    The salt keeps the choice apart from every other choice that is made by the plain hash. A
    group that is larger than what is left is passed over.
    """
    order = sorted(free, key=lambda key: hashlib.sha256(f"split:{key}".encode()).digest())
    chosen: dict[int, str] = {}
    for split, rows in wanted.items():
        left = rows
        for key in order:
            positions = free[key]
            if len(positions) <= left and positions[0] not in chosen:
                chosen.update(dict.fromkeys(positions, split))
                left -= len(positions)
    return chosen


def _by_position(leak: Leak) -> int:
    return leak.position
