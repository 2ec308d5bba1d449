"""The report of bench-method: means and standard errors, paired tests, targets, plots."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from _method_figures import Result, item_differences, mean_and_error, over_items, over_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SIMPLER = {
    "balanced": "random",
    "gap_only": "random",
    "random_in_gap": "gap_only",
    "nearest": "random_in_gap",
    "replay": "random_in_gap",
    "self_replay": "replay",
    "kl": "self_replay",
    "own_answers": "self_replay",
    "mended": "shipped",
    "shipped": "balanced",
}
"""Arm -> the simpler one that it has to be better than."""

AS_SHIPPED = ("shipped", "mended")
"""What a user has: before mending, and after it."""

_ORDER = ("random", *SIMPLER)


def _goals(one: Result) -> float:
    found = one["capabilities"].values()
    return sum(each["mean"] for each in found) / len(found)


FIGURES: dict[str, Callable[[Result], float]] = {
    "score": _goals,
    "goals reached": lambda one: sum(each["reached"] for each in one["capabilities"].values()),
    "replayed lost": lambda one: one["replayed_moved"]["lost"],
    "replayed gained": lambda one: one["replayed_moved"]["gained"],
    "witnesses lost": lambda one: one["witnesses_moved"]["lost"],
    "witnesses gained": lambda one: one["witnesses_moved"]["gained"],
    "KL": lambda one: math.nan if one["kl"] is None else one["kl"],
    "wrong rows": lambda one: one["wrong_share"],
    "deciding tokens": lambda one: one["deciding_tokens"],
    "training tokens": lambda one: one["tokens"],
    "of all runs": lambda one: one["all_tokens"],
    "rows": lambda one: one["rows"],
    "seconds": lambda one: one["seconds"],
}

_TESTED: dict[str, tuple[str, ...]] = {
    "score": ("capabilities",),
    "replayed lost": ("replayed",),
    "witnesses lost": ("witnesses",),
    "KL": (),  # one figure a seed
}


def report(results: Sequence[Result]) -> Iterator[str]:
    """Yield, base by base, the table of means and the paired tests."""
    for base, arms in _by_base(results).items():
        seeds = max(map(len, arms.values()))
        yield f"\n{base}, at most {seeds} seeds: mean ± standard error"
        yield f"|arm|seeds|{'|'.join(FIGURES)}|"
        yield f"|---|---|{'---|' * len(FIGURES)}"
        for arm, found in arms.items():
            cells = (_cell([figure(one) for one in found.values()]) for figure in FIGURES.values())
            yield f"|{arm}|{len(found)}|{'|'.join(cells)}|"
        yield "\n|arm|beside|of what|difference|p over seeds|p over items|"
        yield "|---|---|---|---|---|---|"
        for arm, simpler in SIMPLER.items():
            if arm in arms and simpler in arms:
                yield from _tests(arm, simpler, arms)


def _tests(arm: str, simpler: str, arms: Mapping[str, Mapping[int, Result]]) -> Iterator[str]:
    seeds = sorted(arms[arm].keys() & arms[simpler].keys())
    if not seeds:
        return
    first, second = ([arms[name][seed] for seed in seeds] for name in (arm, simpler))
    for name, groups in _TESTED.items():
        a, b = ([FIGURES[name](one) for one in found] for found in (first, second))
        items = [one for group in groups for one in item_differences(first, second, group)]
        change = mean_and_error([x - y for x, y in zip(a, b, strict=True)])[0]
        within = f"{over_items(items):.3f}" if items else ""
        yield f"|{arm}|{simpler}|{name}|{change:+.3f}|{over_seeds(a, b):.3f}|{within}|"


def check(results: Sequence[Result], targets: Mapping[str, float] | None = None) -> Iterator[str]:
    """Yield a line for each target of `[method]` that what is shipped misses."""
    if targets is None:
        file = Path(__file__).parent / "targets.toml"
        targets = tomllib.loads(file.read_text("utf-8"))["method"]
    for base, arms in _by_base(results).items():
        for name in AS_SHIPPED:
            yield from _missed(f"{name} on {base}", arms.get(name, {}), arms, targets)


def _missed(
    what: str,
    found: Mapping[int, Result],
    arms: Mapping[str, Mapping[int, Result]],
    targets: Mapping[str, float],
) -> Iterator[str]:
    if not found:
        return
    lost, wrong, deciding, training = (
        mean_and_error([FIGURES[name](one) for one in found.values()])[0]
        for name in ("witnesses lost", "wrong rows", "deciding tokens", "training tokens")
    )
    figures = {"witness_loss": lost, "wrong_share": wrong, "deciding": deciding / training}
    for name, value in figures.items():
        if value > targets[name]:
            yield f"missed by {what}: {name} {value:.3f}, at most {targets[name]:g}"
    seeds = sorted(found.keys() & arms.get("balanced", {}).keys())
    beside = [_goals(found[seed]) - _goals(arms["balanced"][seed]) for seed in seeds]
    if beside and (change := mean_and_error(beside)[0]) < targets["beside_balanced"]:
        least = targets["beside_balanced"]
        yield f"missed by {what}: score beside balanced {change:+.3f}, at least {least:g}"


def plots(results: Sequence[Result], folder: Path) -> None:
    """Write a picture for each base: scores, what was lost, and tokens, arm by arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = (("score",), ("replayed lost", "witnesses lost"), ("deciding tokens", "of all runs"))
    folder.mkdir(parents=True, exist_ok=True)
    for base, arms in _by_base(results).items():
        figure, axes = plt.subplots(1, len(shown), figsize=(13, 4.5), sharey=True)
        names = list(arms)[::-1]
        for axis, figures in zip(axes, shown, strict=True):
            height = 0.8 / len(figures)
            for at, name in enumerate(figures):
                found = [
                    mean_and_error([FIGURES[name](one) for one in arms[arm].values()])
                    for arm in names
                ]
                places = [place + at * height for place in range(len(names))]
                errors = [0.0 if math.isnan(error) else error for _, error in found]
                means = [mean for mean, _ in found]
                axis.barh(places, means, height, xerr=errors, label=name, capsize=2)
            axis.set_yticks(range(len(names)), names)
            axis.locator_params(axis="x", nbins=4)
            axis.set_title(" and ".join(figures), fontsize=10)
            if len(figures) > 1:
                axis.legend(fontsize=8)
        figure.suptitle(f"{base}: mean and standard error over seeds")
        figure.tight_layout()
        figure.savefig(folder / f"method-{base}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


def _by_base(results: Sequence[Result]) -> dict[str, dict[str, dict[int, Result]]]:
    """Return base -> arm, the simplest first -> seed -> result."""
    found: dict[str, dict[str, dict[int, Result]]] = {}
    for one in sorted(results, key=lambda one: (one["base"], _ORDER.index(one["arm"]))):
        found.setdefault(one["base"], {}).setdefault(one["arm"], {})[one["seed"]] = one
    return found


def _cell(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    digits = 0 if mean >= 20 else 3  # noqa: PLR2004 - counts, not shares
    if math.isnan(error):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"
