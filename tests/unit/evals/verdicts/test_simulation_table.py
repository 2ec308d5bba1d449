"""The tables of docs/internals/statistics.md: `./just soak -k simulation -s`, in minutes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from evals.verdicts import sample_size, stats
from evals.verdicts.bootstrap import resampled_means
from evals.verdicts.looks import level_at
from evals.verdicts.stats import PairedItems, Scores
from tests.support import simulated as sim
from tests.support import usual_bootstraps as usual
from tests.support.simulated import (
    BINARY,
    EVALS,
    F1,
    LIMIT,
    NEARLY_ALL,
    PERPLEXITY,
    ROUGE,
    SIZES,
    STRUCTURES,
    Row,
    Structure,
    printed,
)  # fmt: skip

pytestmark = [pytest.mark.soak, pytest.mark.slow]


@functools.cache
def mean_interval(successes: int, n: int) -> stats.Interval:
    return stats.mean_interval(sim.alone(successes, n))


def gap(n: int, rate: float, goal: float) -> float:
    return sim.share_of_rates(n, rate, lambda k: stats.p_below(sim.alone(k, n), goal) < 0.05)


def met(n: int, rate: float, floor: float) -> float:
    return sim.share_of_rates(n, rate, lambda k: mean_interval(k, n).low >= floor)


def left_out(n: int, rate: float, interval: Callable[[int, int], stats.Interval]) -> float:
    bounds = functools.cache(lambda k: interval(k, n))
    return sim.share_of_rates(n, rate, lambda k: not bounds(k).low <= rate <= bounds(k).high)


def changed(n: int, lost: float, gained: float) -> float:
    return sim.share_of_changes(n, lost, gained, lambda a, b: stats.mcnemar_midp(a, b) <= 0.05)


def kept(n: int, lost: float, gained: float, max_drop: float) -> float:
    return sim.share_of_changes(
        n, lost, gained, lambda a, b: stats.change_bounds(a, b, n)[0] > -max_drop
    )


def rates() -> list[Row]:
    goals, grid = (0.5, 0.8, 0.95, 0.99), (0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.99)
    exact = stats.clopper_pearson
    return [
        (
            "goal reached, called a gap (worst of 4 goals)",
            lambda n: max(gap(n, goal, goal) for goal in goals),
        ),
        (
            "goal - margin just missed, called met (worst of 4)",
            lambda n: max(met(n, goal, goal) for goal in goals),
        ),
        (
            "the two-sided interval leaves the rate out (worst of 7)",
            lambda n: max(left_out(n, rate, exact) for rate in grid),
        ),
    ]


def changes() -> list[Row]:
    rows: list[Row] = []
    for flips in (0.01, 0.05, 0.2):
        label = f"nothing lost, but {flips:.0%} of answers flip: called a change"
        rows.append((label, partial(changed, lost=flips / 2, gained=flips / 2)))
    for drop in (0.02, 0.05):
        label = f"max_drop = {drop} lost, called kept (worst of 0, 1% and 5% gained)"
        rows.append((label, partial(worst_kept, drop=drop)))
    return rows


def worst_kept(n: int, drop: float) -> float:
    return max(kept(n, drop + gained, gained, drop) for gained in (0.0, 0.01, 0.05))


def right_or_wrong(rate: float) -> sim.Kind:
    return sim.Kind(f"{rate}", 1 - rate, rate, BINARY.between, 1)


def binary_misjudged(n: int, make: Structure) -> float:
    goals = (0.8, 0.95)
    return max(max(sim.shares_misjudged(right_or_wrong(g), make(n), g)) for g in goals)


def binary_kept(n: int, make: Structure) -> float:
    return max(
        sim.share_binary_kept(drop + gained, gained, make(n), drop)
        for drop in (0.02, 0.05)
        for gained in (0.0, 0.02)
    )


def flipped(n: int, make: Structure) -> float:
    return sim.share_flipped(0.02, 0.02, make(n))


def clustered() -> list[Row]:
    rows: list[Row] = []
    for label, make in list(STRUCTURES.items())[1:]:
        rows += [
            (f"{label}: called a gap or met (worst of 4)", partial(binary_misjudged, make=make)),
            (f"{label}: 4% flip, called a change", partial(flipped, make=make)),
            (f"{label}: max_drop lost, called kept (worst of 4)", partial(binary_kept, make=make)),
        ]
    return rows


def graded_kept(n: int, make: Structure) -> float:
    return max(
        sim.share_kept(kind, change, drop, make(n), drop)
        for kind in (F1, ROUGE, PERPLEXITY)
        for change in sim.CHANGES.values()
        for drop in (0.02, 0.05)
    )


def graded_loss(n: int, make: Structure) -> float:
    kinds = (F1, ROUGE, PERPLEXITY)
    return max(sim.share_forgotten(kind, sim.rewritten, 0.0, make(n)) for kind in kinds)


def graded_misjudged(n: int, make: Structure) -> float:
    return max(max(sim.shares_misjudged(kind, make(n), kind.mean)) for kind in sim.KINDS)


def other_scores() -> list[Row]:
    rows: list[Row] = []
    for label, make in STRUCTURES.items():
        rows += [
            (f"{label}: called a gap or met (worst of 8)", partial(graded_misjudged, make=make)),
            (f"{label}: rewritten, called a loss (worst of 3)", partial(graded_loss, make=make)),
            (f"{label}: max_drop lost, called kept (worst of 18)", partial(graded_kept, make=make)),
        ]
    return rows


def many() -> list[Row]:
    @functools.cache
    def p_below(successes: int, n: int, goal: float) -> float:
        return stats.p_below(sim.alone(successes, n), goal)

    def any_gap(n: int) -> float:
        goals = (0.5, 0.6, 0.7, 0.8, 0.9)
        drawn = sim.generator("holm", n).binomial(n, goals, (EVALS, 5)).tolist()
        families = ([p_below(k, n, g) for k, g in zip(ks, goals, strict=True)] for ks in drawn)
        return float(np.mean([min(stats.holm(family)) < 0.05 for family in families]))

    def false_losses(n: int, true: int) -> float:
        midp = functools.cache(stats.mcnemar_midp)
        random = sim.generator("bh", n)
        same = random.multinomial(n, [0.05, 0.05, 0.9], (EVALS, 5))[..., :2].tolist()
        worse = random.multinomial(n, [0.15, 0.05, 0.8], (EVALS, true))[..., :2].tolist()
        shares = []
        for five, others in zip(same, worse, strict=True):
            adjusted = stats.benjamini_hochberg([midp(*one) for one in five + others])
            found = [p <= 0.05 for p in adjusted]
            shares.append(sum(found[:5]) / max(1, sum(found)))
        return float(np.mean(shares))

    return [
        ("5 goals reached, any called a gap (Holm)", any_gap),
        ("5 guards unchanged, any called a loss (BH)", lambda n: false_losses(n, 0)),
        ("5 unchanged and 5 lost, share of wrong losses (BH)", lambda n: false_losses(n, 5)),
    ]


def ten_looks() -> list[Row]:
    """Ten adapters that are just not good enough, one after the other on the same items."""

    def closed(n: int, rate: float) -> float:
        drawn = sim.generator("ten looks", n, rate).binomial(n, rate, (EVALS, 10, 1))

        @functools.cache
        def found(right: int, look: int) -> bool:
            level = level_at(look).of_interval
            return stats.mean_interval(sim.alone(right, n), level).low >= rate

        return sim.share_of_series(drawn, found)

    def kept(n: int, drop: float, gained: float) -> float:
        random = sim.generator("ten looks", n, drop, gained)
        rates = [drop + gained, gained, 1 - drop - 2 * gained]
        drawn = random.multinomial(n, rates, (EVALS, 10))[..., :2]

        @functools.cache
        def found(lost: int, got: int, look: int) -> bool:
            return stats.change_bounds(lost, got, n, level_at(look).of_bound)[0] > -drop

        return sim.share_of_series(drawn, found)

    return [
        (
            "ten looks at a goal just missed, ever called closed (worst of 4)",
            lambda n: max(closed(n, rate) for rate in (0.5, 0.8, 0.95, 0.99)),
        ),
        (
            "ten looks at max_drop lost, ever called kept (worst of 6)",
            lambda n: max(kept(n, d, g) for d in (0.02, 0.05) for g in (0.0, 0.01, 0.05)),
        ),
    ]


@pytest.mark.parametrize(
    "of",
    [
        ("right or wrong", lambda: rates() + changes()),
        ("looks at test", ten_looks),
        ("right or wrong, in clusters", clustered),
        ("scores between", other_scores),
        ("many questions", many),
    ],
    ids=lambda of: of[0],
)
def test_type_one_errors_of_the_simulation(of: tuple[str, Callable[[], list[Row]]]) -> None:
    title, rows = of
    table = printed(f"{title}: wrong findings, % of 10,000 evals", rows())
    assert [label for label, shares in table.items() if max(shares) > LIMIT] == []


def test_wilson_in_the_simulation() -> None:
    rows: list[Row] = [
        (
            f"the interval leaves {rate} out, Wilson",
            partial(left_out, rate=rate, interval=usual.wilson),
        )
        for rate in (0.5, 0.8, 0.95, 0.99)
    ]
    table = printed("not used: % of 10,000 evals", rows)
    assert max(map(max, table.values())) > LIMIT


def graded_power(
    n: int, kind: sim.Kind, change: sim.Change, drop: float, make: Structure, max_drop: float
) -> float:
    return sim.share_kept(kind, change, drop, make(n), max_drop)


def loss_power(n: int, make: Structure) -> float:
    return sim.share_forgotten(F1, sim.rewritten, 0.1, make(n))


def gap_power(n: int, make: Structure) -> float:
    return sim.shares_misjudged(F1, make(n), F1.mean + 0.1)[0]


def power() -> list[Row]:
    rows: list[Row] = [
        ("0.70 where the goal is 0.8, called a gap", partial(gap, rate=0.7, goal=0.8)),
        ("0.75 where the goal is 0.8, called a gap", partial(gap, rate=0.75, goal=0.8)),
        ("0.85 where 0.78 is needed, called met", partial(met, rate=0.85, floor=0.78)),
        ("0.80 where 0.78 is needed, called met", partial(met, rate=0.8, floor=0.78)),
    ]
    for each in (0.0, 0.01):
        for max_drop in (0.02, 0.05):
            label = f"{each:.0%} lost, {each:.0%} gained, kept at {max_drop}"
            rows.append((label, partial(kept, lost=each, gained=each, max_drop=max_drop)))
    for lost, gained in ((0.06, 0.01), (0.12, 0.02)):
        label = f"{lost:.0%} lost, {gained:.0%} gained, called a loss"
        rows.append((label, partial(changed, lost=lost, gained=gained)))
    for label, make in list(STRUCTURES.items())[:2]:
        for kind, change, drop, max_drop, what in (
            (F1, sim.rewritten, 0.0, 0.05, "f1 rewritten, not worse"),
            (ROUGE, sim.rewritten, 0.0, 0.05, "rouge rewritten, not worse"),
            (PERPLEXITY, sim.a_little, 0.005, 0.02, "perplexity, 0.005 lost by all a little"),
        ):
            is_kept = partial(
                graded_power, kind=kind, change=change, drop=drop, make=make, max_drop=max_drop
            )
            rows.append((f"{label}: {what}, kept at {max_drop}", is_kept))
        what = "f1 rewritten, 0.1 lost, called a loss"
        rows.append((f"{label}: {what}", partial(loss_power, make=make)))
        what = "f1 0.10 below the goal, called a gap"
        rows.append((f"{label}: {what}", partial(gap_power, make=make)))
    return rows


def test_power_in_the_simulation() -> None:
    table = printed("right findings, % of 10,000 evals", power())
    for label, shares in table.items():
        assert shares == sorted(shares), label


def shares_kept(kind, change, drop: float, max_drop: float, sizes: np.ndarray) -> dict[str, float]:
    """The share called `kept` by every method, on the same evals."""
    random, counts = (
        sim.generator("methods", len(sizes)),
        dict.fromkeys((*usual.METHODS, "ours"), 0),
    )
    for _ in range(0, EVALS, sim.BLOCK):
        values = sim.differences(kind, change, drop, sizes, sim.BLOCK, random)
        sums, floats = sim.sums_of(values, sizes), sizes.astype(float)
        for method, bounds in usual.lower_bounds(sums, floats).items():
            counts[method] += int((bounds > -max_drop).sum())
        lows, _ = resampled_means(sums, floats, -1.0, 1.0)
        counts["ours"] += int(sim.is_above(lows, -max_drop, 0.05).sum())
    return {method: count / EVALS for method, count in counts.items()}


def test_other_bootstraps_in_the_simulation() -> None:
    names = (*usual.METHODS, "ours")
    print(f"\n\n| called kept, % of 10,000 evals | n | {' | '.join(names)} |")
    print("|---" * (len(names) + 2) + "|")
    worst = dict.fromkeys(names, 0.0)
    for title, change, drop, wrong in (
        ("0.05 lost, all of it by a few that drop to 0", sim.some_lost, 0.05, True),
        ("0.05 lost, some rewritten for the worse", sim.rewritten, 0.05, True),
        ("right: rewritten, not worse", sim.rewritten, 0.0, False),
    ):
        for label, make in list(STRUCTURES.items())[:2]:
            for n in SIZES:
                shares = shares_kept(F1, change, drop, 0.05, make(n))
                shown = " | ".join(f"{100 * shares[name]:.1f}" for name in names)
                print(f"| {title}; {label} | {n:,} | {shown} |", flush=True)
                if wrong:
                    worst = {name: max(worst[name], shares[name]) for name in names}
    assert worst["ours"] <= LIMIT
    assert min(worst[name] for name in usual.METHODS) > LIMIT


def test_items_advised_in_the_simulation() -> None:
    print(
        "\n\n| to show (promised: 80%) | items advised | settled, % of 3,000 evals |\n|---|---|---|"
    )
    shares = []
    for label, make in list(STRUCTURES.items())[:2]:
        sizes = make(300)
        clusters = tuple(np.repeat(np.arange(len(sizes)), sizes).tolist())
        for kind, change, drop, max_drop in (
            (F1, sim.rewritten, 0.02, 0.07),
            (F1, sim.some_lost, 0.01, 0.04),
            (ROUGE, sim.some_lost, 0.01, 0.03),
            (PERPLEXITY, sim.some_lost, 0.01, 0.05),
        ):
            random = sim.generator("advised", kind.name, label)
            values = sim.differences(kind, change, drop, sizes, 1, random)[:, 0]
            before = np.maximum(0, -values)
            pairs = PairedItems(tuple(before), tuple(before + values), clusters)
            items = sample_size.items_to_show_kept(pairs, max_drop)
            assert items is not None
            shares.append(sim.share_of_more(values, sizes, items, -max_drop, 0.05, -1.0))
            what = f"{kind.name}, {change.__name__.replace('_', ' ')}, kept at {max_drop}; {label}"
            print(f"| {what} | {items:,} | {100 * shares[-1]:.1f} |", flush=True)
        for kind, room in ((NEARLY_ALL, 0.04), (F1, 0.1), (ROUGE, 0.05), (PERPLEXITY, 0.04)):
            seen = sim.scores(kind, sizes, 1, sim.generator("advised", kind.name, label))[:, 0]
            floor = seen.mean() - room
            items = sample_size.items_to_show_rate(Scores(tuple(seen), clusters), floor)
            assert items is not None
            shares.append(sim.share_of_more(seen, sizes, items, floor, 0.025, 0.0))
            what = f"{kind.name}, mean {room} above what is needed, met; {label}"
            print(f"| {what} | {items:,} | {100 * shares[-1]:.1f} |", flush=True)
    assert min(shares) >= 0.75
    assert max(shares) <= 0.95
