"""The verdicts on guards: one test a rule, and their corners."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.verdicts.forgetting import PairedScores, change_of, judge_guards
from evals.verdicts.sample_size import items_to_show_kept, items_to_show_loss
from evals.verdicts.stats import PairedItems, paired_difference


def guard(
    lost: int, gained: int, n: int = 1000, *, max_drop: float = 0.03, accept: bool = False
) -> PairedScores:
    """A guard whose first items were lost, and the next gained."""
    stay = n - lost - gained
    before = (1.0,) * lost + (0.0,) * gained + (1.0,) * stay
    after = (0.0,) * lost + (1.0,) * gained + (1.0,) * stay
    pairs = PairedItems(before, after, tuple(range(n)))
    return PairedScores("g", tuple(range(100, 100 + n)), pairs, max_drop, accept)


def verdict(*args, **kwargs) -> str:
    return judge_guards([guard(*args, **kwargs)])[0].verdict


def test_kept_needs_the_lower_bound_above_what_may_be_lost() -> None:
    assert verdict(10, 10) == "kept"
    assert verdict(0, 0) == "kept"
    assert verdict(0, 0, n=50) == "inconclusive"  # too few to rule out 3%


def test_forgotten_is_a_significant_loss() -> None:
    finding = judge_guards([guard(80, 10)])[0]
    assert finding.verdict == "forgotten"
    assert (finding.lost, finding.gained) == (80, 10)
    assert finding.lost_uids == tuple(range(100, 180))
    assert finding.gained_uids == tuple(range(180, 190))
    assert finding.p_bh < 1e-9
    assert not finding.passes


def test_a_gain_is_not_forgetting_however_significant() -> None:
    assert verdict(10, 80) == "kept"


def test_a_significant_gain_beside_a_large_cluster_is_no_loss() -> None:
    """Five of five gained: p is 1/32. Yet a cluster like the ten that answer alike may be lost."""
    before, after = (0.0,) * 5 + (1.0,) * 10, (1.0,) * 15
    pairs = PairedItems(before, after, (0, 1, 2, 3, 4, *[5] * 10))
    finding = judge_guards([PairedScores("g", tuple(range(15)), pairs, 0.05)])[0]
    assert finding.p_midp == 1 / 32
    assert finding.difference.low < -0.05
    assert finding.verdict == "inconclusive"


def test_a_loss_that_is_real_but_surely_within_max_drop_is_kept() -> None:
    finding = judge_guards([guard(12, 1)])[0]
    assert finding.p_midp < 0.05
    assert finding.verdict == "kept"


def test_neither_shown_nor_ruled_out_is_inconclusive_and_says_what_would_settle_it() -> None:
    finding = judge_guards([guard(8, 3, n=150)])[0]
    assert finding.verdict == "inconclusive"
    assert finding.items_to_settle is not None
    assert f"{finding.items_to_settle:,} items" in finding.reason


def test_the_correction_is_over_all_guards() -> None:
    edge = guard(15, 5, n=300)
    assert judge_guards([edge])[0].verdict == "forgotten"
    many = judge_guards([edge, *[guard(4, 4, n=300)] * 5])
    assert many[0].p_bh > many[0].p_midp
    assert many[0].verdict == "inconclusive"


def test_accept_takes_a_loss_and_is_not_needed_for_a_kept_guard() -> None:
    lost, kept = judge_guards([guard(80, 10, accept=True), guard(5, 5, accept=True)])
    assert (lost.verdict, lost.accepted, lost.passes) == ("forgotten", True, True)
    assert (kept.verdict, kept.accepted, kept.passes) == ("kept", False, True)


def test_items_of_one_cluster_are_one_loss() -> None:
    """Twelve near-copies that flip together are one event, not twelve."""
    before = (1.0,) * 400
    after = (0.0,) * 12 + (1.0,) * 388
    alone = PairedItems(before, after, tuple(range(400)))
    together = PairedItems(before, after, (0,) * 12 + tuple(range(1, 389)))
    uids = tuple(range(400))
    first, second = (
        judge_guards([PairedScores("g", uids, pairs, 0.02)])[0] for pairs in (alone, together)
    )
    assert first.verdict == "forgotten"
    assert not first.accepted  # unless the spec says so
    assert second.verdict == "inconclusive"


def test_scores_that_are_not_0_or_1_are_judged_too() -> None:
    before = tuple(0.5 + 0.001 * (i % 50) for i in range(400))
    uids = tuple(range(400))
    same = PairedItems(before, tuple(b - 0.001 for b in before), uids)
    worse = PairedItems(
        before, tuple(b - 0.05 - 0.001 * (i % 7) for i, b in enumerate(before)), uids
    )
    kept, lost = judge_guards([PairedScores("g", uids, p, 0.02) for p in (same, worse)])
    assert kept.verdict == "kept"
    assert lost.verdict == "forgotten"


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(80, 600), st.floats(0.005, 0.2))
def test_every_verdict_keeps_its_rule(lost, gained, n, max_drop) -> None:
    finding = judge_guards([guard(lost, gained, n, max_drop=max_drop)])[0]
    assert (finding.verdict == "kept") == (finding.difference.low > -max_drop)
    if finding.verdict == "forgotten":
        assert finding.lost > finding.gained
        assert finding.p_bh <= 0.05
    if finding.verdict == "inconclusive":
        assert finding.p_bh > 0.05 or finding.lost <= finding.gained


def test_what_is_lost_at_worst_has_to_be_less_than_what_may_be_lost() -> None:
    """Nothing lost of 50 leaves 1 - 0.05^(1/50) open: exactly that much allowed isn't enough."""
    open_ = 1 - 0.05 ** (1 / 50)
    at = -judge_guards([guard(0, 0, n=50)])[0].difference.low
    assert at == pytest.approx(open_)
    assert verdict(0, 0, n=50, max_drop=at) == "inconclusive"
    assert verdict(0, 0, n=50, max_drop=at + 1e-9) == "kept"


def test_a_guard_without_items_says_nothing() -> None:
    empty = PairedScores("g", (), PairedItems((), (), ()), 0.02, accept=True)
    finding = judge_guards([empty])[0]
    assert (finding.verdict, finding.n, finding.before, finding.after) == ("inconclusive", 0, 0, 0)
    assert finding.items_to_settle is None
    assert finding.accepted
    assert "no number of items would settle it" in finding.reason


def test_the_fewer_of_two_numbers_of_items_settle_it() -> None:
    for one, fewer in ((guard(3, 2, n=150), "kept"), (guard(4, 1, n=150), "loss")):
        finding = judge_guards([one])[0]
        kept, loss = items_to_show_kept(one.pairs, 0.03), items_to_show_loss(one.pairs)
        assert kept is not None
        assert loss is not None
        assert finding.verdict == "inconclusive"
        assert finding.items_to_settle == {"kept": kept, "loss": loss}[fewer] == min(kept, loss)
    beyond = guard(8, 3, n=150)  # more than .03 was lost: that it is kept can't be shown
    assert items_to_show_kept(beyond.pairs, 0.03) is None
    assert judge_guards([beyond])[0].items_to_settle == items_to_show_loss(beyond.pairs)
    assert judge_guards([guard(80, 10)])[0].items_to_settle is None


def test_the_reason_has_the_figures() -> None:
    kept, lost, unsure = judge_guards([guard(10, 10), guard(80, 10), guard(0, 0, n=50)])
    assert kept.reason.startswith("10 lost, 10 gained of 1000: at worst -0.0")
    assert kept.reason.endswith(" where -0.030 is allowed")
    assert (kept.before, kept.after) == (0.99, 0.99)
    assert lost.reason.startswith("80 lost, 10 gained of 1000: -0.070, corrected p = ")
    assert "at worst -0.058 where -0.030 is allowed, and no loss is shown" in unsure.reason


def test_uids_have_to_match() -> None:
    with pytest.raises(ValueError, match="guard g: 1 uids for 2 scores"):
        PairedScores("g", (1,), PairedItems((1.0, 1.0), (1.0, 0.0), (1, 2)), 0.02)


def test_a_change_is_counted_and_normalised_by_chance() -> None:
    """Three of four right, then two: a quarter of the score, a third of what is above chance."""
    pairs = PairedItems((1.0, 1.0, 1.0, 0.0), (1.0, 0.0, 0.0, 1.0), (0, 1, 2, 3))
    change = change_of(pairs, 0.25)
    assert (change.n, change.before, change.after) == (4, 0.75, 0.5)
    assert (change.lost, change.gained, change.chance) == (2, 1, 0.25)
    assert change.normalised_drop == pytest.approx(1 / 3)
    assert change.difference == paired_difference(pairs)
    assert (change.kl, change.reprompt) == (None, None)
    nothing = change_of(PairedItems((), (), ()), 0.0)
    assert (nothing.n, nothing.before, nothing.after, nothing.normalised_drop) == (0, 0, 0, 0)
