"""The verdicts on gaps: one test a rule, and their corners."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.verdicts.gap import (
    ArmScore,
    GapFinding,
    MeasuredCapability,
    half_of,
    judge_closed,
    judge_gaps,
)
from evals.verdicts.sample_size import items_to_show_rate
from evals.verdicts.stats import Scores, mean_interval, p_below


def scores(right: int, n: int) -> Scores:
    values = (1.0,) * right + (0.0,) * (n - right)
    return Scores(values, tuple(range(n)))


GOOD = scores(450, 500)


def arm(name: str, a: int, b: int, n: int = 500, tokens: float = 100) -> ArmScore:
    return ArmScore(name, scores(a, n), scores(b, n), tokens)


def measured(right: int, *arms: ArmScore, n: int = 1000, goal: float = 0.8) -> MeasuredCapability:
    return MeasuredCapability("c", goal, 0.02, scores(right, n), 20.0, arms)


def judge(*capabilities: MeasuredCapability):
    return judge_gaps(capabilities)


def test_met_needs_the_lower_bound_at_goal_less_margin() -> None:
    assert judge(measured(810))[0].verdict == "met"  # [.785, .833]
    assert judge(measured(800))[0].verdict == "inconclusive"  # [.774, .824]: .78 isn't reached


def test_tune_needs_the_upper_bound_below_the_goal() -> None:
    finding = judge(measured(600))[0]
    assert finding.verdict == "tune"
    assert finding.gap == pytest.approx(0.2)
    assert finding.gap_low == pytest.approx(0.8 - finding.base.high)
    assert finding.gap_high == pytest.approx(0.8 - finding.base.low)
    assert finding.gap_low < finding.gap < finding.gap_high
    assert finding.items_to_settle is None


def test_a_prompt_that_reaches_the_goal_on_the_other_half_is_enough() -> None:
    finding = judge(measured(600, arm("few_shot_5", 440, 430, tokens=310)))[0]
    assert finding.verdict == "prompt"
    assert (finding.best_prompt, finding.prompt_tokens) == ("few_shot_5", 310)
    assert finding.best_prompt_interval is not None
    assert finding.best_prompt_interval.mean == pytest.approx(0.86)


def test_the_prompt_is_chosen_on_half_a_and_judged_on_half_b() -> None:
    """The best on A fails on B; another would do on B, but that it was not chosen for."""
    finding = judge(measured(600, arm("few_shot_5", 450, 300), arm("cot", 440, 450)))[0]
    assert finding.best_prompt == "few_shot_5"
    assert finding.verdict == "tune"


def test_a_prompt_that_may_reach_the_goal_is_no_reason_to_train() -> None:
    """16 of 16 is perfect and shows .794 at least: nothing says that the prompt doesn't do it."""
    finding = judge(measured(2, arm("few_shot_5", 14, 16, n=16), n=30, goal=0.9))[0]
    assert finding.base.high < 0.9
    assert finding.best_prompt_interval is not None
    assert finding.best_prompt_interval.low < 0.88
    assert finding.verdict == "inconclusive"
    assert finding.items_to_settle is not None
    assert 30 < finding.items_to_settle < 200


def test_of_equal_prompts_the_cheaper_one_is_best() -> None:
    dear, cheap = arm("few_shot_20", 440, 430, tokens=900), arm("few_shot_5", 440, 430, tokens=200)
    assert judge(measured(600, dear, cheap))[0].best_prompt == "few_shot_5"


def test_a_met_capability_needs_no_prompt() -> None:
    assert judge(measured(900, arm("few_shot_5", 490, 490)))[0].verdict == "met"


def test_holm_asks_more_of_each_gap_the_more_are_tested() -> None:
    edge = measured(773)  # alone: upper bound .7978, below .8
    assert judge(edge)[0].verdict == "tune"
    together = judge(edge, *[measured(788)] * 4)
    assert together[0].p_holm == pytest.approx(5 * together[0].p_value)
    assert together[0].verdict == "inconclusive"


def test_inconclusive_says_how_many_items_would_settle_it() -> None:
    finding = judge(measured(39, n=50))[0]
    assert finding.verdict == "inconclusive"
    assert finding.items_to_settle is not None
    assert finding.items_to_settle > 1000
    assert f"{finding.items_to_settle:,} items" in finding.reason
    more = round(finding.items_to_settle * 0.78)
    assert judge(measured(more, n=finding.items_to_settle))[0].verdict == "tune"


def test_shared_clusters_make_a_verdict_harder() -> None:
    values = (1.0,) * 820 + (0.0,) * 180
    ten_each = tuple(i // 10 for i in range(1000))
    alone = MeasuredCapability("c", 0.8, 0.02, scores(820, 1000), 20)
    shared = MeasuredCapability("c", 0.8, 0.02, Scores(values, ten_each), 20)
    assert judge(alone)[0].verdict == "met"
    assert judge(shared)[0].verdict == "inconclusive"


def test_scores_that_are_not_0_or_1_are_judged_too() -> None:
    values = tuple(0.4 + 0.001 * (i % 100) for i in range(200))
    graded = MeasuredCapability("c", 0.8, 0.02, Scores(values, tuple(range(200))), 20)
    assert judge(graded)[0].verdict == "tune"


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.1, 1))
def test_every_verdict_keeps_its_rule(right, n, goal) -> None:
    finding = judge(measured(min(right, n), n=n, goal=goal))[0]
    reaches = finding.base.low >= goal - 0.02
    assert (finding.verdict == "met") == reaches
    if finding.verdict == "tune":
        assert finding.base.high < goal + 1e-9
    if finding.verdict == "inconclusive":
        assert finding.p_holm >= 0.05


def test_closed_by_the_rule_of_met() -> None:
    assert judge_closed(scores(820, 1000), goal=0.8, margin=0.02).verdict == "closed"
    assert judge_closed(scores(700, 1000), goal=0.8, margin=0.02).verdict == "open"
    unsettled = judge_closed(scores(79, 100), goal=0.8, margin=0.02)
    assert unsettled.verdict == "inconclusive"
    assert unsettled.items_to_settle is not None
    assert "] neither reaches 0.78 nor misses 0.8; about " in unsettled.reason


def test_a_half_is_the_parity_of_the_first_byte_of_its_hash() -> None:
    """By `printf half:0 | sha256sum`: the first two digits, even for A."""
    by_hand = {0: 0xFF, 1: 0x3D, 2: 0xBA, 3: 0x71, 4: 0x52, 5: 0xE0, 123_456_789_012_345: 0xA9}
    for cluster, first in by_hand.items():
        assert half_of(cluster) == ("B" if first % 2 else "A")
    assert {half_of(cluster) for cluster in by_hand} == {"A", "B"}


def test_halves_are_fixed_by_the_cluster_and_about_equal() -> None:
    halves = [half_of(cluster) for cluster in range(2000)]
    assert halves == [half_of(cluster) for cluster in range(2000)]
    assert 900 < halves.count("A") < 1100


def at(capability: str, base: Scores, goal: float, margin: float = 0.02, **more) -> GapFinding:
    return judge(MeasuredCapability(capability, goal, margin, base, 20, **more))[0]


def test_a_bound_at_the_limit_itself() -> None:
    """The lower bound may be the floor; the upper one has to be below the goal."""
    some = scores(60, 100)
    low, high = mean_interval(some).low, mean_interval(some).high
    assert at("c", some, low, 0.0).verdict == "met"
    assert judge_closed(some, goal=low, margin=0.0).verdict == "closed"
    assert judge_closed(some, goal=high, margin=0.02).verdict == "inconclusive"
    assert judge_closed(some, goal=high + 1e-9, margin=0.02).verdict == "open"
    half = arm("few_shot_5", 60, 60, n=100)
    on_b = mean_interval(half.half_b)
    assert at("c", scores(100, 1000), on_b.high, arms=(half,)).verdict == "inconclusive"
    assert at("c", scores(100, 1000), on_b.high + 1e-9, arms=(half,)).verdict == "tune"
    assert at("c", scores(100, 1000), on_b.low, 0.0, arms=(half,)).verdict == "prompt"
    open_ = at("c", some, high, arms=(arm("few_shot_5", 60, 62, n=100),))  # the base isn't below
    assert open_.items_to_settle == items_to_show_rate(some, high, 0.95)


def test_nothing_measured_shows_nothing() -> None:
    finding = at("c", scores(0, 0), 0.02)  # a floor of 0, which an empty interval would reach
    assert (finding.verdict, finding.items_to_settle) == ("inconclusive", None)
    assert finding.reason.endswith("no number of items would settle it")
    assert at("c", scores(1, 1), 0.02).verdict == "met"  # one item reaches it
    closed = judge_closed(scores(0, 0), goal=0.02, margin=0.02)
    assert (closed.verdict, closed.items_to_settle) == ("inconclusive", None)
    halves = (ArmScore("a", scores(9, 9), scores(0, 0), 1), ArmScore("b", scores(0, 0), GOOD, 1))
    assert at("c", scores(600, 1000), 0.8, arms=halves).best_prompt is None
    third = (*halves, arm("c", 300, 300))
    assert at("c", scores(600, 1000), 0.8, arms=third).best_prompt == "c"


def test_equal_prompts_of_one_price_are_chosen_by_name() -> None:
    one, two = arm("b", 440, 430), arm("a", 440, 430)
    assert judge(measured(600, one, two))[0].best_prompt == "a"


def test_the_advice_is_that_of_the_question_that_is_open() -> None:
    base = scores(390, 500)  # .78, at the floor of .78: only "below .8" can be shown
    finding = at("c", base, 0.8)
    assert finding.items_to_settle == items_to_show_rate(base, 0.8, 0.95)
    three = judge(*[MeasuredCapability("c", 0.8, 0.02, base, 20)] * 3)[0]
    assert three.items_to_settle == items_to_show_rate(base, 0.8, 1 - 0.05 / 3)
    assert three.items_to_settle > finding.items_to_settle
    above = scores(205, 250)
    assert at("c", above, 0.8).items_to_settle == items_to_show_rate(above, 0.78)
    between = scores(395, 500)
    met, missed = items_to_show_rate(between, 0.78), items_to_show_rate(between, 0.8, 0.95)
    assert met is not None
    assert missed is not None
    assert at("c", between, 0.8).items_to_settle == min(met, missed)
    assert judge_closed(between, goal=0.8, margin=0.02).items_to_settle == min(met, missed)
    assert judge_closed(scores(99, 100), goal=0.8, margin=0.02).items_to_settle is None
    # The base is surely below; whether the prompt is enough is open, and it has half of dev.
    prompt = arm("few_shot_5", 84, 85, n=100)
    half = items_to_show_rate(prompt.half_b, 0.78)
    assert half is not None
    assert at("c", scores(100, 400), 0.8, arms=(prompt,)).items_to_settle == 2 * half
    # Neither is settled: the base is what is asked about.
    assert at("c", base, 0.8, arms=(prompt,)).items_to_settle == finding.items_to_settle


def test_perfect_answers_never_settle_that_a_goal_of_1_is_missed_or_met_without_a_margin() -> None:
    perfect = Scores((1.0,) * 6, (0, 0, 1, 1, 2, 2))
    finding = at("c", perfect, 1.0, 0.05)
    assert finding.verdict == "inconclusive"
    assert finding.items_to_settle == items_to_show_rate(perfect, 0.95)
    assert finding.items_to_settle is not None
    pairs = math.log(0.025) / math.log(0.95)  # in a row, all right
    assert finding.items_to_settle == pytest.approx(2 * pairs, rel=0.06)
    assert at("c", perfect, 1.0, 0.0).items_to_settle is None


def test_a_finding_has_the_figures_it_rests_on() -> None:
    prompt = arm("few_shot_5", 440, 430, tokens=310)
    finding = at("c", scores(600, 1000), 0.8, arms=(prompt,), unfit=("cot", "few_shot_20"))
    assert finding.base == mean_interval(scores(600, 1000))
    assert finding.best_prompt_interval == mean_interval(prompt.half_b)
    assert finding.p_value == finding.p_holm == pytest.approx(p_below(scores(600, 1000), 0.8))
    assert (finding.prompt_tokens, finding.base_prompt_tokens) == (310, 20)
    assert finding.reason.startswith("few_shot_5 scores 0.860 [0.8")
    assert "(too long for the base's context: cot, few_shot_20)" in finding.reason
    assert finding.reason.endswith("at least 0.78, for 310 tokens a call")
    plain = at("c", scores(600, 1000), 0.8)
    assert (plain.best_prompt, plain.best_prompt_interval) == (None, None)
    assert plain.prompt_tokens == 20
    assert plain.reason.endswith("is below the goal 0.8; no other prompt was tried")
    met = at("c", scores(900, 1000), 0.8)
    assert met.reason.endswith("] is at least 0.78")
    assert judge_closed(scores(900, 1000), goal=0.8, margin=0.02).reason == met.reason
