"""The layout of a batch for attention: rows by themselves, and rows that share a prefix as trees.

Rows of similar length are attended together, padded on the right. Under a causal mask no real
position sees such padding, and what padding sees is dropped, so values and gradients are those of
the row alone.

Rows that share a prefix are a tree: the prefix goes through the model once, and each branch attends
to it and to itself (tree attention, as SpecInfer has it, Miao et al. 2023). Trees with equally many
branches are attended together in two calls, one over the prefixes and one in which branches have
copies of the prefix's keys.

Rows of 5 and 4 tokens, and two rows of 5 and 4 that share their first 3, a tree of branches 2 and
1: T = 5 + 4 + 3 + 2 + 1 = 15 tokens in place of 18. They lie in P = 17 padded places:

    AttentionGroup(rows=2, width=5)                        10 places, one of padding
    TreeGroup(trees=1, prefix=3, branches=2, width=2)      3 + 2 * 2 places, one of padding

`ages` of that group, [1, 4, 7]: a line for each place of the branches, a column for each key (three
of the prefix, then those of both branches); -1 is not seen, else how many positions back.

    3 2 1   0 -1  -1 -1         first branch
    4 3 2   1  0  -1 -1
    3 2 1  -1 -1   0 -1         second branch
    4 3 2  -1 -1   1  0         its padding

A token sees exactly the keys, at the positions, that it would see in its own row, so the gradients
are those of the rows apart, up to the order of sums. A tree of b branches of w tokens behind p
costs p^2 / 2 + b w (p + w) scores where rows cost b (p + w)^2 / 2, and p + b w tokens in all other
layers where rows take b (p + w).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Up to this width the cost of a call is larger than that of the padding.
_ALWAYS_TOGETHER = 64
_SHARE_OF_WIDTH = 0.75


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Neighbouring rows that are attended in one call, each padded to `width` tokens."""

    rows: int
    width: int

    @property
    def sizes(self) -> tuple[int]:
        """How many padded places it takes."""
        return (self.rows * self.width,)


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Rows that share their first tokens: the shared tokens, then each branch's own ones.

    Attributes:
        prefix: tokens that are shared, above 0.
        branches: tokens of each branch behind them, all above 0.
    """

    prefix: int
    branches: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """How many tokens of a batch it takes."""
        return self.prefix + sum(self.branches)


@dataclass(frozen=True, slots=True)
class TreeGroup:
    """Trees of equally many branches, attended together: first all prefixes, then all branches.

    Attributes:
        trees: how many.
        prefix: tokens that each prefix is padded to.
        branches: of each tree.
        width: tokens that each branch is padded to.
        bundle: neighbouring branches of a tree whose queries share one copy of its prefix's keys.
        ages: [bundles, bundle * width, prefix + bundle * width] (1 in the first place if all are
            alike): how many positions a key lies before a query; negative where it is not seen.
        mask: 0 where `ages` is not negative, else -inf; [.., 1, .., ..] for the heads.
    """

    trees: int
    prefix: int
    branches: int
    width: int
    bundle: int
    ages: torch.Tensor
    mask: torch.Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """How many padded places its prefixes take, and its branches."""
        return self.trees * self.prefix, self.trees * self.branches * self.width


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """How T tokens of packed rows become P tokens of padded groups (P >= T).

    Attributes:
        groups: rows by themselves, in their order in the batch, then trees in any order.
        spread: [P] index of the token that each padded place takes; None when nothing is padded.
        real: [T] the padded place of each token; None when nothing is padded.
    """

    groups: tuple[AttentionGroup | TreeGroup, ...]
    spread: torch.Tensor | None
    real: torch.Tensor | None


def make_layout(
    lengths: Sequence[int], device: torch.device | str = "cpu", trees: Sequence[PrefixTree] = ()
) -> TreeLayout:
    """Group rows of these lengths (longest first), and trees behind them, for attention."""
    groups: list[AttentionGroup | TreeGroup] = []
    places = _Places()
    begin = 0
    for first, count in _runs(lengths):
        width = lengths[first]
        groups.append(AttentionGroup(rows=count, width=width))
        for length in lengths[first : first + count]:
            places.add(begin, length, width)
            begin += length
    begins = list(accumulate((tree.tokens for tree in trees), initial=begin))
    for run in _tree_runs(trees):
        group = _tree_group([trees[number] for number in run], device)
        groups.append(group)
        _place_trees([(begins[number], trees[number]) for number in run], group, places)
    if not trees and len(places.spread) == begin:
        return TreeLayout(groups=tuple(groups), spread=None, real=None)
    real = torch.empty(begins[-1], dtype=torch.int64)
    real[torch.tensor(places.tokens)] = torch.tensor(places.real)
    return TreeLayout(
        groups=tuple(groups),
        spread=torch.tensor(places.spread, device=device),
        real=real.to(device),
    )


class _Places:
    """Padded places in the order in which they are attended.

    `spread` has the token of each; `tokens` are the tokens in that order and `real` their places.
    """

    def __init__(self) -> None:
        self.spread: list[int] = []
        self.tokens: list[int] = []
        self.real: list[int] = []

    def add(self, begin: int, length: int, width: int) -> None:
        """Put `length` tokens from `begin` on into `width` places."""
        tokens = range(begin, begin + length)
        self.tokens.extend(tokens)
        self.real.extend(range(len(self.spread), len(self.spread) + length))
        self.spread.extend(tokens)
        # Padding repeats their own last token: a finite value that no other row has a part in.
        self.spread.extend([begin + length - 1] * (width - length))


def _runs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first row, rows) of each group."""
    first = 0
    for row, length in enumerate(lengths):
        width = lengths[first]
        if length < width * _SHARE_OF_WIDTH and width > _ALWAYS_TOGETHER:
            yield first, row - first
            first = row
    if lengths:
        yield first, len(lengths) - first


def _tree_runs(trees: Sequence[PrefixTree]) -> Iterator[list[int]]:
    """Yield the numbers of the trees of each group."""
    run: list[int] = []
    areas = 0
    for number in sorted(range(len(trees)), key=lambda number: _shape(trees[number]), reverse=True):
        tree = trees[number]
        wider = _padded_area([*(trees[other] for other in run), tree])
        areas += _padded_area([tree])
        if run and (
            len(trees[run[0]].branches) != len(tree.branches)
            or wider * _SHARE_OF_WIDTH > areas + _ALWAYS_TOGETHER**2
        ):
            yield run
            run, areas = [], _padded_area([tree])
        run.append(number)
    if run:
        yield run


def _shape(tree: PrefixTree) -> tuple[int, int, int]:
    return len(tree.branches), tree.prefix, max(tree.branches)


def _padded_area(trees: Sequence[PrefixTree]) -> int:
    """Scores that attention over these trees, padded to one shape, computes."""
    prefix = max(tree.prefix for tree in trees)
    width = max(max(tree.branches) for tree in trees)
    return len(trees) * (prefix**2 // 2 + len(trees[0].branches) * width * (prefix + width))


def _tree_group(trees: Sequence[PrefixTree], device: torch.device | str) -> TreeGroup:
    prefix = max(tree.prefix for tree in trees)
    width = max(max(tree.branches) for tree in trees)
    branches = len(trees[0].branches)
    bundle = _bundle(branches, width, prefix)
    prefixes = torch.tensor([tree.prefix for tree in trees], device=device)
    if int(prefixes.min()) == prefix:
        prefixes = prefixes[:1]
    prefixes = prefixes[:, None, None]
    place = torch.arange(bundle * width, device=device)
    own, shared = place.remainder(width), torch.arange(prefix, device=device)
    to_shared = prefixes + own[:, None] - shared
    to_shared = to_shared.masked_fill(shared >= prefixes, -1)
    to_own = own[:, None] - own
    to_own = to_own.masked_fill(place[:, None] // width != place // width, -1)
    ages = torch.cat([to_shared, to_own.expand(len(prefixes), -1, -1)], dim=2)
    if len(ages) > 1:
        ages = ages.repeat_interleave(branches // bundle, dim=0)
    return TreeGroup(len(trees), prefix, branches, width, bundle, ages, seen_mask(ages, None))


def _bundle(branches: int, width: int, prefix: int) -> int:
    """How many branches attend in one: scores between them are waste, but so are copied keys."""
    bound = max(prefix, _ALWAYS_TOGETHER)
    divisors = (n for n in range(1, branches + 1) if branches % n == 0)
    return max(n for n in divisors if n == 1 or n * width <= bound)


def seen_mask(ages: torch.Tensor, window: int | None) -> torch.Tensor:
    """[B, 1, width, keys] to add to the scores: the places of a window, or all that are seen."""
    seen = ages >= 0 if window is None else (ages >= 0) & (ages < window)
    return torch.zeros(ages.shape, device=ages.device).masked_fill(~seen, -torch.inf).unsqueeze(1)


def _place_trees(
    trees: Sequence[tuple[int, PrefixTree]], group: TreeGroup, places: _Places
) -> None:
    """Place trees, each given with its first token, as their group attends them."""
    for begin, tree in trees:
        places.add(begin, tree.prefix, group.prefix)
    for begin, tree in trees:
        token = begin + tree.prefix
        for length in tree.branches:
            places.add(token, length, group.width)
            token += length
