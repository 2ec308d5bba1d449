"""What a verdict may err by, and what repeated looks at one test set cost. Pure.

Who looks at a test set often enough finds an adapter that does well on it by luck. So the looks
share one error: look i may err by 5% / 2^i, half of what is left, which adds up to 5% however many
there are. That is alpha-spending, a weighted Bonferroni correction with weights that are fixed
before anything is seen (Foster and Stine 2008, JRSS B 70; Tian and Ramdas 2021, Statistical
Methods in Medical Research 30, section 3). It asks nothing of how the looks depend on each other,
nor of how an adapter was chosen after the look before. By simulation over ten looks: statistics.md.

Not O'Brien and Fleming's or Pocock's rule, which want to know beforehand how many looks there will
be; not online fallback, which gives back what a promotion cost: so long as one gate is right by
luck alone, it would pay for the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from evals.verdicts.stats import CONFIDENCE


@dataclass(frozen=True, slots=True)
class Level:
    """The errors of a verdict: of an interval with two sides, and of a bound with one."""

    interval: float
    bound: float

    @property
    def of_interval(self) -> float:
        """Return the confidence of an interval."""
        return 1 - self.interval

    @property
    def of_bound(self) -> float:
        """Return the confidence of a bound on one side."""
        return 1 - self.bound


_ALPHA = round(1 - CONFIDENCE, 12)  # and not what is left of 0.95 in binary

DEV = Level(interval=_ALPHA, bound=_ALPHA)
"""On dev, where what is chosen is judged again on test."""


def level_at(look: int) -> Level:
    """Return the errors of the verdicts at the `look`-th look at a test set, from 1.

    Each side of an interval errs by as much as a bound does: 2.5% at the first look, 1.25% at the
    second.
    """
    if look < 1:
        message = f"looks are counted from 1, got {look}"
        raise ValueError(message)
    bound = _ALPHA / 2**look
    return Level(interval=2 * bound, bound=bound)
