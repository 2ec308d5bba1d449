"""The arithmetic of bench-method: shares, tokens, what was lost, and tests of differences. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESAMPLES = 9_999
_EXACT = 1e-12

Result = dict[str, Any]
"""What is in an arm's file."""


def parts(total: int, count: int) -> list[int]:
    """Divide `total` into whole numbers that differ by one at most."""
    return [total * (at + 1) // count - total * at // count for at in range(count)]


def shared(there: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide `total` evenly over names, none more than there is of it; the rest goes to others."""
    given: dict[str, int] = {}
    for place, name in enumerate(sorted(there, key=lambda one: (there[one], one))):
        given[name] = min(there[name], (total - sum(given.values())) // (len(there) - place))
    return given


def even(rows: Sequence[Any], labels: Sequence[str], wanted: int) -> list[Any]:
    """Return `wanted` rows, one of each label in turn as long as there are any."""
    queues: dict[str, list[Any]] = {}
    for row, label in zip(rows, labels, strict=True):
        queues.setdefault(label, []).append(row)
    turns = max(map(len, queues.values()), default=0)
    in_turn = [
        queues[label][turn]
        for turn in range(turns)
        for label in sorted(queues)
        if turn < len(queues[label])
    ]
    return in_turn[:wanted]


def epochs_for(wanted: int, tokens: int) -> float:
    """Return how many passes over so many tokens make the wanted number."""
    return round(wanted / tokens, 4)


def moved(guards: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Return what was lost and gained on guards, as shares of what the base got right."""
    pairs = [
        pair for one in guards.values() for pair in zip(one["base"], one["tuned"], strict=True)
    ]
    right = max(1, sum(before == "1" for before, _ in pairs))
    return {"lost": pairs.count(("1", "0")) / right, "gained": pairs.count(("0", "1")) / right}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error; that of one value is nan."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    spread = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))


def over_seeds(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p of a paired t-test; nan for fewer than two pairs, 1 for no change."""
    from scipy.stats import ttest_rel

    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:  # noqa: PLR2004 - a spread takes two
        return math.nan
    if max(differences) - min(differences) < _EXACT:
        return 1.0 if abs(differences[0]) < _EXACT else 0.0
    return float(ttest_rel(first, second).pvalue)


def over_items(differences: Sequence[float]) -> float:
    """Return the two-sided p that items' mean differences have no sign: their signs flipped.

    1 where fewer than two differ.
    """
    import numpy as np
    from scipy.stats import permutation_test

    kept = np.asarray([one for one in differences if abs(one) > _EXACT])
    if len(kept) < 2:  # noqa: PLR2004 - SciPy wants two
        return 1.0
    found = permutation_test(
        (kept,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=0,
    )
    return float(found.pvalue)


def item_differences(first: Sequence[Result], second: Sequence[Result], group: str) -> list[float]:
    """Return each item's difference, averaged over the seeds; of guards, where the base is right.

    Args:
        first: an arm's results, one a seed.
        second: another's, of the same seeds.
        group: of what is measured: `capabilities`, `replayed` or `witnesses`.
    """
    totals: defaultdict[tuple[str, int], float] = defaultdict(float)
    for one, other in zip(first, second, strict=True):
        for name, found in one[group].items():
            theirs = other[group][name]["tuned"]
            for at, (base, a, b) in enumerate(
                zip(found["base"], found["tuned"], theirs, strict=True)
            ):
                if group == "capabilities" or base == "1":
                    totals[name, at] += int(a) - int(b)
    return [total / len(first) for total in totals.values()]
