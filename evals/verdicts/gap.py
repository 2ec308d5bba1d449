"""The verdict on a gap: what the base lacks, before training and after. Pure, no model.

Before: `met` (lower bound of the base's score at or above goal - margin), `prompt` (the best prompt
on half A of dev has its lower bound at or above goal - margin on half B), `tune` (the upper bound
is below the goal, Holm over capabilities, and so is that of the best prompt on half B, if any was
tried), else `inconclusive`.
After, on test: `closed` (met's rule), `open` (upper bound below the goal), else `inconclusive`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evals.verdicts.looks import DEV, Level
from evals.verdicts.sample_size import items_to_show_rate
from evals.verdicts.stats import Interval, Scores, holm, mean_interval, p_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.verdicts.anytime import Ended

GapVerdict = Literal["met", "prompt", "tune", "inconclusive"]
ClosedVerdict = Literal["closed", "open", "inconclusive"]


@dataclass(frozen=True, slots=True)
class ArmScore:
    """How one prompt did on either half of dev, and what it costs in tokens per call.

    `ended` is set where half B ended early.
    """

    arm: str
    half_a: Scores
    half_b: Scores
    prompt_tokens: float
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class MeasuredCapability:
    """All that is measured of a capability: the base without examples, and every other prompt.

    `unfit` are the prompts that are too long for the base's context. `ended` is set where the score
    without examples ended early.
    """

    capability: str
    goal: float
    margin: float
    base: Scores
    base_prompt_tokens: float
    arms: tuple[ArmScore, ...] = ()
    unfit: tuple[str, ...] = ()
    ended: Ended | None = None

    def base_interval(self, level: Level = DEV) -> Interval:
        """Return the score without examples, as it is judged."""
        return _interval(self.base, self.ended, level)


@dataclass(frozen=True, slots=True)
class GapFinding:
    """The verdict on one capability, with every figure it rests on.

    `gap`, `gap_low` and `gap_high` are the goal minus the base's mean and bounds. `best_prompt` was
    chosen on half A; `best_prompt_interval` is its score on half B. `items_to_settle` is set for
    `inconclusive` alone, None also where no number of items would settle it. `base_of` and
    `best_prompt_of` are the items that there were, where a score ended early.
    """

    capability: str
    goal: float
    margin: float
    base: Interval
    gap: float
    gap_low: float
    gap_high: float
    best_prompt: str | None
    best_prompt_interval: Interval | None
    prompt_tokens: float
    base_prompt_tokens: float
    verdict: GapVerdict
    p_value: float
    p_holm: float
    items_to_settle: int | None
    reason: str
    base_of: int | None = None
    best_prompt_of: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedFinding:
    """Whether the tuned model reaches the goal, judged by `met`'s rule."""

    goal: float
    margin: float
    score: Interval
    verdict: ClosedVerdict
    items_to_settle: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The best prompt on half A with its score on half B."""

    arm: ArmScore
    score: Interval


def half_of(cluster: int) -> Literal["A", "B"]:
    """Return the half of dev that a duplicate cluster belongs to, by hash."""
    return "A" if hashlib.sha256(f"half:{cluster}".encode()).digest()[0] % 2 == 0 else "B"


def judge_gaps(measured: Sequence[MeasuredCapability], level: Level = DEV) -> list[GapFinding]:
    """Judge every capability, with Holm's correction over all that are given, in their order.

    Args:
        measured: the capabilities.
        level: the errors that the verdicts on scores may make which did not end early.
    """
    # One that ended early brings the p-value of its rule. Of gaps that are none, one ends early as
    # a gap with probability TAIL at most; of the others, Holm finds one at `level` at most.
    p_values = [
        one.ended.rule.p_gap(one.base) if one.ended else p_below(one.base, one.goal)
        for one in measured
    ]
    return [
        _judge(one, p_value, p_holm, len(measured), level)
        for one, p_value, p_holm in zip(measured, p_values, holm(p_values), strict=True)
    ]


def judge_closed(
    scores: Scores, *, goal: float, margin: float, level: Level = DEV, later: Level | None = None
) -> ClosedFinding:
    """Judge whether scores of the tuned model close the gap.

    Args:
        scores: of the tuned model.
        goal: the mean score that is wanted.
        margin: how far below it still counts.
        level: the errors that the verdict may make.
        later: the errors allowed to whoever looks again with more items; by default `level`.
    """
    score = mean_interval(scores, level.of_interval)
    verdict: ClosedVerdict = "inconclusive"
    if _reaches(score, goal - margin):
        verdict, reason = "closed", f"{_shown(score)} is at least {goal - margin:.3g}"
    elif score.n and score.high < goal:
        verdict, reason = "open", f"{_shown(score)} is below the goal {goal:.3g}"
    else:
        reason = f"{_shown(score)} neither reaches {goal - margin:.3g} nor misses {goal:.3g}"
    unsettled = verdict == "inconclusive"
    at = (later or level).of_interval
    settle = _items_to_settle(scores, goal, margin, at, at) if unsettled else None
    return ClosedFinding(goal, margin, score, verdict, settle, _advice(reason, unsettled, settle))


def _judge(
    measured: MeasuredCapability, p_value: float, p_holm: float, family: int, level: Level
) -> GapFinding:
    goal, margin, at = measured.goal, measured.margin, level.of_interval
    base, prompt = measured.base_interval(level), _best_prompt(measured, level)
    verdict = _verdict(measured, base, prompt, below=p_holm < 1 - at)
    unsettled = verdict == "inconclusive"
    settle = None
    if (
        unsettled and prompt and base.high < goal
    ):  # the prompt is what isn't settled, on half of dev
        half = _items_to_settle(prompt.arm.half_b, goal, margin, at, at)
        settle = half and 2 * half
    elif unsettled:
        settle = _items_to_settle(measured.base, goal, margin, at, 1 - (1 - at) / family)
    return GapFinding(
        capability=measured.capability,
        goal=goal,
        margin=margin,
        base=base,
        gap=goal - base.mean,
        gap_low=goal - base.high,
        gap_high=goal - base.low,
        best_prompt=prompt.arm.arm if prompt else None,
        best_prompt_interval=prompt.score if prompt else None,
        prompt_tokens=prompt.arm.prompt_tokens if prompt else measured.base_prompt_tokens,
        base_prompt_tokens=measured.base_prompt_tokens,
        verdict=verdict,
        p_value=p_value,
        p_holm=p_holm,
        items_to_settle=settle,
        reason=_advice(_reason(verdict, measured, base, prompt), unsettled, settle),
        base_of=measured.ended.of if measured.ended else None,
        best_prompt_of=prompt.arm.ended.of if prompt and prompt.arm.ended else None,
    )


def _verdict(
    measured: MeasuredCapability, base: Interval, prompt: _Prompt | None, *, below: bool
) -> GapVerdict:
    floor = measured.goal - measured.margin
    if _reaches(base, floor):
        return "met"
    if prompt and _reaches(prompt.score, floor):
        return "prompt"
    if below and (prompt is None or prompt.score.high < measured.goal):
        return "tune"
    return "inconclusive"


def _best_prompt(measured: MeasuredCapability, level: Level) -> _Prompt | None:
    """Return the arm that is best on half A; of equals the cheaper one."""
    arms = [arm for arm in measured.arms if arm.half_a.n and arm.half_b.n]
    if not arms:
        return None
    best = min(arms, key=lambda arm: (-arm.half_a.mean, arm.prompt_tokens, arm.arm))
    return _Prompt(best, _interval(best.half_b, best.ended, level))


def _interval(scores: Scores, ended: Ended | None, level: Level) -> Interval:
    return ended.rule.interval(scores) if ended else mean_interval(scores, level.of_interval)


def _reaches(score: Interval, floor: float) -> bool:
    return score.n > 0 and score.low >= floor


def _items_to_settle(
    scores: Scores, goal: float, margin: float, met: float, gap: float
) -> int | None:
    """Return the fewer of the items that would show `met` and those that would show the gap."""
    if not scores.n:
        return None
    ways = []
    if scores.mean > goal - margin:
        ways.append(items_to_show_rate(scores, goal - margin, met))
    if scores.mean < goal:
        ways.append(items_to_show_rate(scores, goal, gap))
    return min((way for way in ways if way is not None), default=None)


def _reason(
    verdict: GapVerdict, measured: MeasuredCapability, base: Interval, prompt: _Prompt | None
) -> str:
    goal, floor = measured.goal, measured.goal - measured.margin
    shown = _shown(base, measured.ended)
    tried = (
        f"{prompt.arm.arm} scores {_shown(prompt.score, prompt.arm.ended)} on the half it wasn't "
        "chosen on"
        if prompt
        else "no other prompt was tried"
    )
    if measured.unfit:
        tried += f" (too long for the base's context: {', '.join(measured.unfit)})"
    match verdict:
        case "met":
            return f"{shown} is at least {floor:.3g}"
        case "prompt":
            tokens = f"{prompt.arm.prompt_tokens:.0f}" if prompt else "?"
            return f"{tried}, at least {floor:.3g}, for {tokens} tokens a call"
        case "tune":
            return f"{shown} is below the goal {goal:.3g}; {tried}"
        case "inconclusive":
            return f"{shown} neither reaches {floor:.3g} nor misses {goal:.3g}; {tried}"


def _advice(reason: str, unsettled: bool, items: int | None) -> str:  # noqa: FBT001
    if not unsettled:
        return reason
    if items is None:
        return f"{reason}; no number of items would settle it"
    return f"{reason}; about {items:,} items would settle it"


def _shown(score: Interval, ended: Ended | None = None) -> str:
    after = f" after {score.n:,} of {ended.of:,} items" if ended else ""
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]{after}"
