"""The settings of a merge, as the spec or the command line says them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

Method = Literal[
    "cat",
    "linear",
    "svd",
    "ties",
    "dare_ties",
    "dare_linear",
    "slerp",
    "mergekit:task_arithmetic",
    "mergekit:breadcrumbs",
    "mergekit:breadcrumbs_ties",
    "mergekit:della",
    "mergekit:della_linear",
    "mergekit:sce",
    "mergekit:model_stock",
    "mergekit:ram",
    "mergekit:ramplus_tl",
    "mergekit:multislerp",
    "mergekit:nuslerp",
    "mergekit:karcher",
]
SEARCH: Literal["search"] = "search"


@dataclass(frozen=True)
class Rule:
    """What one of mergekit's rules takes.

    Attributes:
        weighted: a weight for each adapter.
        density: what mergekit calls the share of every delta that is kept; None without one.
        drawn: it draws at random.
        on_arc: it goes along arcs: weights are shares, none of them negative.
        pair: it takes two adapters, no more.
        over_base: it reads the base too; otherwise the merged models alone.
    """

    weighted: bool = False
    density: str | None = None
    drawn: bool = False
    on_arc: bool = False
    pair: bool = False
    over_base: bool = True


_DELTAS = Rule(weighted=True, density="density")
_DRAWN = Rule(weighted=True, density="density", drawn=True)

MERGEKIT: dict[str, Rule] = {
    "mergekit:task_arithmetic": Rule(weighted=True),
    "mergekit:breadcrumbs": _DELTAS,
    "mergekit:breadcrumbs_ties": _DELTAS,
    "mergekit:della": _DRAWN,
    "mergekit:della_linear": _DRAWN,
    "mergekit:sce": Rule(density="select_topk"),
    "mergekit:model_stock": Rule(),
    "mergekit:ram": Rule(),
    "mergekit:ramplus_tl": Rule(),
    "mergekit:multislerp": Rule(weighted=True, on_arc=True),
    "mergekit:nuslerp": Rule(weighted=True, on_arc=True, pair=True),
    "mergekit:karcher": Rule(over_base=False),
}
"""mergekit's rules that merge any number of models, or two, of one base; TIES and DARE are ours."""

THINNED = (
    *("ties", "dare_ties", "dare_linear"),
    *(name for name, rule in MERGEKIT.items() if rule.density),
)
"""The methods that keep a part of every delta: the ones that have a density."""

SEEDED = (
    *("dare_ties", "dare_linear"),
    *(name for name, rule in MERGEKIT.items() if rule.drawn),
)
"""The methods that draw at random."""

PAIRS = ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.7, 0.7))
"""What two adapters are weighed by in a search."""

SHARES = (0.5, 0.3, 0.7)
"""The first of two adapters' share of their weight, where a method averages."""

_DENSITY = 0.5
_ON_ARC = ("slerp", *(name for name, rule in MERGEKIT.items() if rule.on_arc))
_AVERAGED = ("linear", *_ON_ARC)
_PAIR = ("slerp", *(name for name, rule in MERGEKIT.items() if rule.pair))
_TWO = 2

Weight = Annotated[float, Field(allow_inf_nan=False)]


class MergeSpec(BaseModel):
    """How several adapters become one.

    `weights` are in the order of the adapters and are used as given: 1 each where there are none,
    and equal shares of 1 for `linear` and `slerp`; `search` finds them on dev. `density` is the
    share of every delta that `ties` and `dare_*` keep, `rank` what `svd` cuts to, `seed` what
    `dare_*` draw by. `mergekit:` names a rule of mergekit, an extra; `MERGEKIT` says what it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "cat"
    weights: tuple[Weight, ...] | Literal["search"] | None = None
    density: float | None = Field(default=None, gt=0, le=1)
    rank: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def rule(self) -> Rule | None:
        """What mergekit's rule takes; None for a method of our own."""
        return MERGEKIT.get(self.method)

    @property
    def kept(self) -> float | None:
        """The density in force; None for a method that has none."""
        if self.method not in THINNED:
            return None
        return _DENSITY if self.density is None else self.density

    @property
    def drawn_by(self) -> int | None:
        """The seed in force; None for a method that draws nothing."""
        return self.seed if self.method in SEEDED else None


def read_spec(given: Mapping[str, object]) -> MergeSpec:
    """Return the settings that a command line names.

    Raises:
        UserError: one isn't what it may be.
    """
    try:
        return MergeSpec.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where, value = ".".join(str(part) for part in first["loc"][:1]), first["input"]
        raise SpecError(f"{value!r} can't be: {first['msg']}", where) from None


def checked(spec: MergeSpec, adapters: int) -> MergeSpec:
    """Return `spec`, if it fits so many adapters.

    Raises:
        UserError: it names what its method has no use for, or its weights don't fit.
    """
    if adapters < _TWO:
        raise SpecError(f"{spec.method} merges several adapters, not {adapters}", expected="two")
    if spec.method in _PAIR and adapters != _TWO:
        raise SpecError(
            f"{spec.method} goes from one model to another, not {adapters}", expected="two"
        )
    if spec.density is not None and spec.method not in THINNED:
        raise SpecError(f"{spec.method} has no density", "density", " or ".join(THINNED))
    if spec.rank is not None and spec.method != "svd":
        raise SpecError(f"{spec.method} has no rank to choose", "rank", "svd")
    if spec.rule is not None and spec.weights is not None:
        _check_weighted(spec, spec.rule)
    if isinstance(spec.weights, tuple):
        _check_weights(spec, spec.weights, adapters)
    return spec


def weights_of(spec: MergeSpec, adapters: int) -> tuple[float, ...]:
    """Return the weights of so many adapters; a search begins with them.

    None at all for a rule that weighs by itself.
    """
    if isinstance(spec.weights, tuple):
        return spec.weights
    if spec.rule is not None and not spec.rule.weighted:
        return ()
    share = 1 / adapters if spec.method in _AVERAGED else 1.0
    return (share,) * adapters


def trials(
    spec: MergeSpec, best: Sequence[float]
) -> Generator[tuple[float, ...], Sequence[float] | None, None]:
    """Yield, for each pair of adapters, the weights to try next; send in the best so far.

    A coarse grid over one pair at a time, the others as they are. A generator: `send` the best
    weights after each, so that a later pair starts from what an earlier one found.
    """
    now = tuple(best)
    for first, second in itertools.combinations(range(len(now)), 2):
        total = now[first] + now[second]
        averaged = spec.method in _AVERAGED
        grid = [(total * share, total * (1 - share)) for share in SHARES] if averaged else PAIRS
        for pair in grid:
            tried = list(now)
            tried[first], tried[second] = pair
            found = yield tuple(round(weight, 9) for weight in tried)
            now = now if found is None else tuple(found)


def _check_weighted(spec: MergeSpec, rule: Rule) -> None:
    if not rule.weighted:
        weighted = " or ".join(name for name, other in MERGEKIT.items() if other.weighted)
        raise SpecError(f"{spec.method} weighs by itself", "weights", f"none, or {weighted}")
    if spec.weights == SEARCH:
        raise SpecError(
            f"{spec.method}: the weights of mergekit's rules aren't searched",
            "weights",
            "numbers, one for each adapter",
        )


def _check_weights(spec: MergeSpec, weights: tuple[float, ...], adapters: int) -> None:
    if len(weights) != adapters:
        raise SpecError(
            f"{len(weights)} weights for {adapters} adapters", "weights", "one for each, in order"
        )
    if not any(weights):
        raise SpecError("all weights are 0: that is the base", "weights", "one that isn't")
    if spec.method in _ON_ARC and (min(weights) < 0 or not math.isfinite(sum(weights))):
        raise SpecError(f"{spec.method} has no negative weights", "weights", "shares")
