"""Simulated evals: 10,000 draws of what the statistics judge, where the truth is known.

Answers of 0 and 1 without shared clusters depend on the counts alone: they are drawn as counts, and
each distinct count is judged once. Other scores are drawn item by item and judged through
`resampled_means`, all evals in one product of matrices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evals.verdicts.bootstrap import RESAMPLES, resampled_means
from evals.verdicts.stats import PairedItems, Scores, change_p

EVALS = 10_000
LIMIT = 0.055
"""Of every type I error at nominal 5%. Over 10,000 evals, chance adds or takes away 0.4 points."""
COPIES = 0.8
"""Probability with which an item of a cluster is just like the others of its cluster."""
BLOCK = 1_000  # evals at a time


def generator(*what: object) -> np.random.Generator:
    """Numbers of its own for every question, the same each time."""
    return np.random.default_rng(list("/".join(map(str, what)).encode()))


def alone(successes: int, n: int) -> Scores:
    return Scores((1.0,) * successes + (0.0,) * (n - successes), tuple(range(n)))


def changed(lost: int, gained: int, n: int) -> PairedItems:
    """N pairs, each its own cluster, of which some are lost or gained."""
    stay = n - lost - gained
    before = (1.0,) * lost + (0.0,) * gained + (1.0,) * stay
    return PairedItems(before, (0.0,) * lost + (1.0,) * gained + (1.0,) * stay, tuple(range(n)))


def share_of_rates(n: int, rate: float, found: Callable[[int], bool]) -> float:
    """The share of evals of n answers, right at `rate`, in which something is found."""
    drawn = Counter(generator("rate", n, rate).binomial(n, rate, EVALS).tolist())
    return sum(times for successes, times in drawn.items() if found(successes)) / EVALS


def share_of_changes(
    n: int, lost: float, gained: float, found: Callable[[int, int], bool]
) -> float:
    """The share of evals of n pairs, lost and gained at these rates, in which something is found.

    `found` gets the number of lost and of gained items.
    """
    random = generator("change", n, lost, gained)
    counts = random.multinomial(n, [lost, gained, 1 - lost - gained], EVALS)[:, :2]
    drawn = Counter(map(tuple, counts.tolist()))
    return sum(times for (a, b), times in drawn.items() if found(a, b)) / EVALS


def share_of_series(drawn: np.ndarray, found: Callable[..., bool]) -> float:
    """The share of series of looks in which any look finds something.

    `drawn` has the counts of each look of each series, [series, looks, counts]; `found` gets the
    counts and the number of the look, from 1.
    """
    series = [tuple(map(tuple, one)) for one in drawn.tolist()]
    wrong = sum(any(found(*one, look) for look, one in enumerate(all_, 1)) for all_ in series)
    return wrong / len(series)


def cluster_sizes(n: int, share: float, largest: int = 5) -> np.ndarray:
    """Sizes of clusters: `share` of n items in clusters of 2 to `largest`, the rest alone."""
    sizes: list[int] = []
    left = round(n * share)
    while left > 1:
        sizes.append(min(left, 2 + len(sizes) % (largest - 1)))
        left -= sizes[-1]
    return np.array(sizes + [1] * (n - sum(sizes)))


def half_in_tens(n: int) -> np.ndarray:
    tens = n // 20
    return np.array([10] * tens + [1] * (n - 10 * tens))


Structure = Callable[[int], np.ndarray]
STRUCTURES: dict[str, Structure] = {
    "no shared clusters": lambda n: np.ones(n, int),
    "30% in clusters of 2-5": lambda n: cluster_sizes(n, 0.3),
    "half in clusters of 10": half_in_tens,
}

# ------------------------------------------------------------------------------- tables

SIZES = (50, 200, 1000)
Row = tuple[str, Callable[[int], float]]


def printed(title: str, rows: list[Row], sizes: tuple[int, ...] = SIZES) -> dict[str, list[float]]:
    """Make a table, print it row by row, and give it back."""
    print(f"\n\n| {title} | {' | '.join(f'n = {n:,}' for n in sizes)} |")
    print("|---" * (len(sizes) + 1) + "|")
    table = {}
    for label, share in rows:
        table[label] = [share(n) for n in sizes]
        print(f"| {label} | {' | '.join(f'{100 * one:.1f}' for one in table[label])} |", flush=True)
    return table


# ------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Kind:
    """A distribution of scores: some 0, some 1, the others between; and its mean."""

    name: str
    zeros: float
    ones: float
    between: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    mean_between: float

    @property
    def mean(self) -> float:
        return self.ones + (1 - self.zeros - self.ones) * self.mean_between

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        which = random.random(shape)
        inner = np.where(which < self.zeros + self.ones, 1.0, self.between(random, shape))
        return np.where(which < self.zeros, 0.0, inner)


F1 = Kind("f1", 0.2, 0.3, lambda random, shape: random.beta(2, 2, shape), 0.5)
ROUGE = Kind("rouge", 0.03, 0.02, lambda random, shape: random.beta(2, 4, shape), 1 / 3)
PERPLEXITY = Kind(
    "perplexity", 0, 0, lambda random, shape: np.exp(-random.gamma(8, 0.09, shape)), 1.09**-8
)
NEARLY_ALL = Kind("nearly all", 0.03, 0, lambda random, shape: random.beta(30, 2, shape), 30 / 32)
BINARY = Kind("right or wrong", 0.2, 0.8, lambda _, shape: np.ones(shape), 1)
KINDS = (F1, ROUGE, PERPLEXITY, NEARLY_ALL)

Change = Callable[[Kind, float, np.ndarray, np.random.Generator], np.ndarray]


def some_lost(kind: Kind, drop: float, before: np.ndarray, random) -> np.ndarray:
    """A few items drop to 0, the others stay as they were: the hardest to see."""
    return np.where(random.random(before.shape) < drop / kind.mean, 0.0, before)


def rewritten(kind: Kind, drop: float, before: np.ndarray, random) -> np.ndarray:
    """Three answers in ten are other ones, some of them worse."""
    other = kind.draw(random, before.shape)
    worse = random.random(before.shape) < drop / (0.3 * 0.8 * kind.mean)
    other = np.where(worse, 0.2 * other, other)
    return np.where(random.random(before.shape) < 0.3, other, before)


def a_little(kind: Kind, drop: float, before: np.ndarray, random) -> np.ndarray:
    """Every item loses a share of what it had."""
    mean = drop / kind.mean
    return before * (1 - random.beta(2, 2 / mean - 2, before.shape))


CHANGES: dict[str, Change] = {
    "some lost": some_lost, "rewritten": rewritten, "a little": a_little,
}  # fmt: skip


def one_cluster_alike(
    draw: Callable[[tuple[int, ...]], np.ndarray], sizes: np.ndarray, evals: int, random
) -> np.ndarray:
    """Values of items, one a row; in a cluster, most are just alike."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    values = draw((len(sizes), evals))[owner]
    (members,) = np.nonzero(sizes[owner] > 1)
    if len(members):
        own = random.random((len(members), evals)) >= COPIES
        values[members] = np.where(own, draw((len(members), evals)), values[members])
    return values


def sums_of(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, np.r_[0, np.cumsum(sizes)[:-1]], axis=0)


def scores(kind: Kind, sizes: np.ndarray, evals: int, random) -> np.ndarray:
    return one_cluster_alike(lambda shape: kind.draw(random, shape), sizes, evals, random)


def differences(kind: Kind, change: Change, drop: float, sizes, evals: int, random) -> np.ndarray:
    """After - before of items, of which the true mean is -drop."""

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        before = kind.draw(random, shape)
        return change(kind, drop, before, random) - before

    return one_cluster_alike(draw, sizes, evals, random)


def binary_differences(lost: float, gained: float, sizes, evals: int, random) -> np.ndarray:
    def draw(shape: tuple[int, ...]) -> np.ndarray:
        which = random.random(shape)
        return np.where(which < lost, -1.0, np.where(which < lost + gained, 1.0, 0.0))

    return one_cluster_alike(draw, sizes, evals, random)


def is_above(means: np.ndarray, bound: float, tail: float) -> np.ndarray:
    """Per eval, one a column: whether the lower bound of resampled means is above `bound`."""
    return ((means <= bound).sum(axis=0) + 0.5) / (RESAMPLES + 1) < tail


def share_resampled(
    draw: Callable[[int, np.random.Generator], np.ndarray],
    sizes: np.ndarray,
    found: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
    lowest: float,
    what: object = "",
    evals: int = EVALS,
) -> list[float]:
    """The shares of evals in which the bootstrap finds something.

    Args:
        draw: values of items, one a row, of so many evals.
        sizes: of their clusters, in the order of the rows.
        found: gets both kinds of resampled means, all evals at once, one a column; gives a list of
            findings, one an eval.
        lowest: the worst score; the best is 1.
        what: names the question, for numbers of its own.
        evals: how many.
    """
    random, counts = generator(what, len(sizes)), []
    for start in range(0, evals, BLOCK):
        values = draw(min(BLOCK, evals - start), random)
        means = resampled_means(sums_of(values, sizes), sizes.astype(float), lowest, 1.0)
        counts.append(np.sum(found(*means), axis=1))
    return (np.sum(counts, axis=0) / evals).tolist()


def share_kept(kind: Kind, change: Change, drop: float, sizes, max_drop: float, **more) -> float:
    """The share of evals that say `kept` of non-binary scores that truly drop by `drop`."""
    (kept,) = share_resampled(
        lambda evals, random: differences(kind, change, drop, sizes, evals, random),
        sizes,
        lambda lows, _: [is_above(lows, -max_drop, 0.05)],
        -1.0,
        **more,
    )
    return kept


def share_forgotten(kind: Kind, change: Change, drop: float, sizes, **more) -> float:
    """The share of evals with a significant loss, two-sided, of scores that drop by `drop`."""
    (lost,) = share_resampled(
        lambda evals, random: differences(kind, change, drop, sizes, evals, random),
        sizes,
        lambda _, highs: [is_above(-highs, 0.0, 0.025)],
        -1.0,
        **more,
    )
    return lost


def share_binary_kept(lost: float, gained: float, sizes, max_drop: float, **more) -> float:
    """The share of evals that say `kept` of answers that are lost and gained at these rates."""
    (kept,) = share_resampled(
        lambda evals, random: binary_differences(lost, gained, sizes, evals, random),
        sizes,
        lambda lows, _: [is_above(lows, -max_drop, 0.05)],
        -1.0,
        **more,
    )
    return kept


def shares_misjudged(kind: Kind, sizes, bound: float, **more) -> tuple[float, float]:
    """The shares of evals whose whole interval is below `bound`, and above it."""
    below, above = share_resampled(
        lambda evals, random: scores(kind, sizes, evals, random),
        sizes,
        lambda lows, highs: [is_above(-highs, -bound, 0.025), is_above(lows, bound, 0.025)],
        0.0,
        **more,
    )
    return below, above


def share_flipped(lost: float, gained: float, sizes, what: object = "") -> float:
    """The share of evals of 0 and 1, in clusters, in which the sign-flip test finds a change."""
    random = generator(what, lost, gained, len(sizes))
    sums = sums_of(binary_differences(lost, gained, sizes, EVALS, random), sizes).astype(int)
    drawn = Counter(tuple(sorted(column[column != 0].tolist())) for column in sums.T)
    return sum(times for changes, times in drawn.items() if flips_find(changes)) / EVALS


def flips_find(changes: tuple[int, ...]) -> bool:
    """Whether `change_p` finds a change in clusters whose items changed by so much in all."""
    signs = [float(np.sign(total)) for total in changes for _ in range(abs(total))]
    owner = [i for i, total in enumerate(changes) for _ in range(abs(total))]
    before, after = ([float(sign == side) for sign in signs] for side in (-1, 1))
    return change_p(PairedItems(tuple(before), tuple(after), tuple(owner))) <= 0.05


def share_of_more(
    values: np.ndarray, sizes: np.ndarray, items: int, bound: float, tail: float, lowest: float
) -> float:
    """The share of evals of `items` like those seen whose lower bound is above `bound`."""
    first = np.r_[0, np.cumsum(sizes)[:-1]]
    of_size = {int(size): first[sizes == size] for size in np.unique(sizes)}
    counts = {s: max(1, round(len(f) * items / len(values))) for s, f in of_size.items()}

    def draw(evals: int, random: np.random.Generator) -> np.ndarray:
        chosen = []
        for size, starts in of_size.items():
            where = np.repeat(random.choice(starts, (counts[size], evals)), size, axis=0)
            chosen.append(values[where + np.tile(np.arange(size), counts[size])[:, None]])
        return np.concatenate(chosen)

    more = np.repeat(list(counts), list(counts.values()))
    (found,) = share_resampled(
        draw, more, lambda lows, _: [is_above(lows, bound, tail)], lowest, evals=3000
    )
    return found
