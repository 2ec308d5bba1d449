"""Tries and shared prefixes: what a set of requests has in common, computed once.

Pure arithmetic on token ids. A context and all its choices become one row: the context, then the
nodes of the trie of its choices, each seeing the context and its own ancestors alone (tree
attention, as SpecInfer has it, Miao et al. 2023). Contexts that begin alike become a segment whose
common prefix is computed once.

Three choices [7, 8, 1], [7, 9, 1] and [5] of one context: a choice's last token is predicted and
never read, so the trie has three nodes, 7 with the branches 8 and 9.

    tokens  [7, 8, 9]       mask  1 0 0      a node sees itself and its ancestors
    depths  [0, 1, 1]             1 1 0
                                  1 0 1
    (slot, target)  [5]: (0, 5)   [7, 8, 1]: (0, 7) (1, 8) (2, 1)   [7, 9, 1]: (0, 7) (1, 9) (3, 1)

Slot 0 is the context's last token. A choice's log-likelihood is the sum over its pairs of the
target's log-probability at the slot. It is that of the plain sequence, as a causal model's logits
at a token depend only on the tokens it sees and on their positions, and both are the same.

A context of c tokens with k choices of l is c + (nodes <= k (l - 1)) tokens in place of k (c + l).
The mask has nodes^2 entries, hence MAX_NODES. `segments` sorts the contexts, so that those that
share most are neighbours: O(n log n) comparisons for n of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Rows with more choice tokens than this are divided: the mask grows with the square.
MAX_NODES = 768
# A shared prefix is worth its own forward from this many tokens saved on.
WORTH_TOKENS = 256
# ... and from this share of all tokens on: two parts of attention must be joined for it.
WORTH_SHARE = 1 / 8
# Prefixes that differ by less than this count as one level.
LEVEL_TOKENS = 16


@dataclass(frozen=True, eq=False)
class ContinuationTree:
    """The trie of several continuations, ready to be laid behind a context.

    The last token of a continuation is predicted and never read, so that it is no node: choices
    of one token add nothing to the context. Slot 0 is the context's last token, slot i + 1 is
    node i; what a continuation costs is read off its (slot, token) pairs.

    Attributes:
        members: which of the given continuations these are.
        tokens: (nodes,) token ids, parents before children.
        depths: (nodes,) 0 for the first token after the context.
        mask: (nodes, nodes) True where a node (row) sees a node (column): itself and ancestors.
        slots: (targets,) where each predicted token is predicted.
        targets: (targets,) the predicted tokens.
        owners: (targets,) index into `members`.
        leaves: for each leaf, its nodes from the root on: the sequences that cover the trie.
    """

    members: tuple[int, ...]
    tokens: NDArray[np.int64]
    depths: NDArray[np.int64]
    mask: NDArray[np.bool_]
    slots: NDArray[np.int64]
    targets: NDArray[np.int64]
    owners: NDArray[np.int64]
    leaves: tuple[tuple[int, ...], ...]

    @property
    def chain(self) -> bool:
        """Whether the trie has no branch, so that a causal mask serves it."""
        return len(self.leaves) == 1

    def chains(self) -> tuple[ContinuationTree, ...]:
        """The trie as plain sequences, each (slot, token) pair read off one of them."""
        made: list[ContinuationTree] = []
        placed = np.zeros(len(self.targets), dtype=np.bool_)
        for leaf in self.leaves:
            # The slot of each of the tree's slots in this sequence; -1 where it isn't part of it.
            place = np.full(len(self.tokens) + 1, -1, dtype=np.int64)
            place[0] = 0
            place[np.array(leaf, dtype=np.int64) + 1] = np.arange(1, len(leaf) + 1)
            chosen = (place[self.slots] >= 0) & ~placed
            placed |= chosen
            nodes = np.array(leaf, dtype=np.int64)
            made.append(
                ContinuationTree(
                    members=self.members,
                    tokens=self.tokens[nodes],
                    depths=self.depths[nodes],
                    mask=self.mask[np.ix_(nodes, nodes)],
                    slots=place[self.slots[chosen]],
                    targets=self.targets[chosen],
                    owners=self.owners[chosen],
                    leaves=(tuple(range(len(leaf))),),
                )
            )
        return tuple(made)


def build_trees(
    continuations: Sequence[Sequence[int]], max_nodes: int = MAX_NODES
) -> tuple[ContinuationTree, ...]:
    """The continuations of one context as tries of at most about `max_nodes` nodes each.

    Args:
        continuations: token ids, each of at least one token.
        max_nodes: where to begin a new trie; one continuation is never divided.
    """
    order = sorted(range(len(continuations)), key=lambda index: tuple(continuations[index]))
    trees: list[ContinuationTree] = []
    members: list[int] = []
    nodes = 0
    for index in order:
        extra = len(continuations[index]) - 1
        if members and nodes + extra > max_nodes:
            trees.append(_tree(continuations, members))
            members, nodes = [], 0
        members.append(index)
        nodes += extra
    trees.append(_tree(continuations, members))
    return tuple(trees)


def _tree(continuations: Sequence[Sequence[int]], members: list[int]) -> ContinuationTree:
    children: dict[tuple[int, int], int] = {}
    parents: list[int] = []
    tokens: list[int] = []
    depths: list[int] = []
    slots: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, index in enumerate(members):
        node = -1
        path = continuations[index]
        for depth, token in enumerate(path):
            slots.append(node + 1)
            targets.append(token)
            owners.append(owner)
            if depth == len(path) - 1:
                break
            child = children.get((node, token))
            if child is None:
                child = children[node, token] = len(tokens)
                parents.append(node)
                tokens.append(token)
                depths.append(depth)
            node = child
    return ContinuationTree(
        members=tuple(members),
        tokens=np.array(tokens, dtype=np.int64),
        depths=np.array(depths, dtype=np.int64),
        mask=_ancestors(parents),
        slots=np.array(slots, dtype=np.int64),
        targets=np.array(targets, dtype=np.int64),
        owners=np.array(owners, dtype=np.int64),
        leaves=_leaves(parents),
    )


def _ancestors(parents: list[int]) -> NDArray[np.bool_]:
    mask = np.eye(len(parents), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


def _leaves(parents: list[int]) -> tuple[tuple[int, ...], ...]:
    inner = set(parents)
    paths: list[tuple[int, ...]] = []
    for leaf in range(len(parents)):
        if leaf in inner:
            continue
        path: list[int] = []
        node = leaf
        while node >= 0:
            path.append(node)
            node = parents[node]
        paths.append(tuple(reversed(path)))
    return tuple(paths) or ((),)


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """Rows of tokens, padded on the right.

    Attributes:
        ids: (rows, length) token ids.
        positions: (rows, length) each token's position in its sequence, the prefix included.
        keep: (rows, length) True where logits are wanted.
        mask: (rows, length, length) True where a token (row) sees a token (column); None: causal.
        trunk: how many leading tokens of every row see all before them, whatever the mask.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    keep: NDArray[np.bool_]
    mask: NDArray[np.bool_] | None = None
    trunk: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Sequences that share their first `prefix` tokens (0: nothing worth sharing)."""

    prefix: int
    rows: tuple[int, ...]


def segments(
    sequences: Sequence[Sequence[int] | NDArray[np.int64]], worth: int = WORTH_TOKENS
) -> tuple[Segment, ...]:
    """Divide sequences into segments so that shared prefixes are computed once.

    Sorted, neighbours share most; a run of neighbours is taken out of its segment when its longer
    common prefix saves at least `worth` tokens and a fair share of all. A prefix always leaves
    each sequence one token.

    Args:
        sequences: token ids, each at least one.
        worth: how many tokens a prefix must save.
    """
    if not sequences:
        return ()
    # Big-endian bytes sort and compare as the numbers do, at the speed of memcmp.
    keys = [np.asarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = np.zeros(len(order) + 1, dtype=np.int64)
    for place in range(1, len(order)):
        shared[place] = _common(keys[order[place - 1]], keys[order[place]])
    limits = np.array([len(sequences[index]) - 1 for index in order], dtype=np.int64)

    def pays(low: int, high: int, prefix: int, known: int) -> bool:
        """Whether a run of rows gains enough from a prefix over the one that is known."""
        saved = (high - low - 1) * (prefix - known)
        total = int(limits[low:high].sum()) - (high - low) * known
        return saved >= worth and saved >= WORTH_SHARE * total

    found: list[Segment] = []
    todo = [(0, len(order), 0)]
    while todo:
        low, high, known = todo.pop()
        prefix = _prefix_of(shared, limits, low, high)
        if not pays(low, high, prefix, 0):
            prefix = known
        rest: list[int] = []
        for start, stop in _runs(shared, low, high, prefix + LEVEL_TOKENS):
            longer = _prefix_of(shared, limits, start, stop)
            if (start, stop) != (low, high) and pays(start, stop, longer, prefix):
                todo.append((start, stop, prefix))
            else:
                rest.extend(order[start:stop])
        if rest:
            found.append(Segment(prefix, tuple(rest)))
    return tuple(found)


def _prefix_of(shared: NDArray[np.int64], limits: NDArray[np.int64], low: int, high: int) -> int:
    if high - low < 2:  # noqa: PLR2004 - one row shares nothing
        return 0
    return int(min(shared[low + 1 : high].min(), limits[low:high].min()))


def _runs(shared: NDArray[np.int64], low: int, high: int, level: int) -> list[tuple[int, int]]:
    cuts = [low, *(int(c) + low + 1 for c in np.flatnonzero(shared[low + 1 : high] < level)), high]
    return list(pairwise(cuts))


def _common(left: bytes, right: bytes) -> int:
    """How many leading 4-byte tokens two sequences share."""
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size // 4
    differ = np.frombuffer(left, np.uint32, size // 4) != np.frombuffer(right, np.uint32, size // 4)
    return int(differ.argmax())


def batches(
    lengths: Sequence[int], weights: Sequence[int], *, tokens: int, weight: int
) -> list[list[int]]:
    """Rows in batches, longest first, each within a budget.

    Args:
        lengths: tokens of each row; a batch costs its longest row times its rows.
        weights: what else a row costs (selected logits).
        tokens: the budget for padded tokens of a batch.
        weight: the budget for the sum of weights.

    Returns:
        Lists of row indices; a row beyond the budgets is a batch of its own.
    """
    made: list[list[int]] = []
    longest = load = 0
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = made and (len(made[-1]) + 1) * longest <= tokens and load + weights[row] <= weight
        if not fits:
            made.append([])
            longest, load = lengths[row], 0
        made[-1].append(row)
        load += weights[row]
    return made
