"""The arithmetic of merging: each rule against its published formula, and against PEFT's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils as by_peft
from pydantic import ValidationError

from registry.errors import UserError
from registry.merge.rules import (
    compressed,
    drop,
    dropped,
    elect,
    factored,
    slerp,
    stacked,
    ties,
    trim,
    weighted_sum,
)
from registry.merge.spec import MergeSpec, checked, trials, weights_of

SHAPE = (7, 5)
WEIGHTS = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


def three(seed: int) -> list[torch.Tensor]:
    return [drawn(seed + place) for place in range(3)]


def near(one: torch.Tensor, other: torch.Tensor, within: float = 1e-12) -> bool:
    return float((one - other).abs().max()) <= within * max(1.0, float(other.abs().max()))


@given(st.integers(0, 99), WEIGHTS)
def test_the_sum_is_numpy_s(seed: int, weights: list[float]) -> None:
    deltas = three(seed)
    wanted = sum(w * d.numpy() for w, d in zip(weights, deltas, strict=True))
    assert np.allclose(weighted_sum(deltas, weights).numpy(), wanted, atol=1e-12)


@given(st.integers(0, 99), st.floats(0.01, 1))
def test_trimming_keeps_the_largest(seed: int, density: float) -> None:
    delta = drawn(seed)
    kept = trim(delta, density)
    count = int(density * delta.numel())
    assert int((kept != 0).sum()) == count
    assert torch.equal(kept[kept != 0], delta[kept != 0])
    if 0 < count < delta.numel():
        assert delta[kept == 0].abs().max() <= kept[kept != 0].abs().min()
    if density < 1:  # PEFT's is right here
        assert near(kept, by_peft.magnitude_based_pruning(delta, density), 0)


def test_of_equal_entries_the_first_stay() -> None:
    assert trim(torch.tensor([1.0, -1.0, 1.0, 2.0]).double(), 0.5).tolist() == [1, 0, 0, 2]
    assert trim(torch.zeros(4).double(), 0.5).tolist() == [0, 0, 0, 0]
    assert trim(torch.ones(3).double(), 0.2).tolist() == [0, 0, 0]
    assert trim(torch.tensor([0.0, -3.0, 1.0]).double(), 1.0).tolist() == [0, -3, 1]


def by_the_paper(deltas: list[torch.Tensor], scale: float, density: float) -> torch.Tensor:
    """TIES-Merging, algorithm 1, entry by entry."""
    trimmed = [trim(delta, density).flatten().tolist() for delta in deltas]
    merged = []
    for entries in zip(*trimmed, strict=True):
        sign = (sum(entries) > 0) - (sum(entries) < 0)
        agreeing = [e for e in entries if e and (e > 0) - (e < 0) == sign]
        merged.append(scale * sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(merged, dtype=torch.float64).reshape(deltas[0].shape)


@given(st.integers(0, 99), st.floats(0.1, 1), st.floats(0.1, 2))
def test_ties_is_the_paper_s_algorithm(seed: int, density: float, scale: float) -> None:
    deltas = three(seed)
    assert near(ties(deltas, [scale] * 3, density), by_the_paper(deltas, scale, density))


@given(st.integers(0, 99), st.floats(0.1, 0.99))
def test_ties_is_peft_s_on_whole_deltas_of_one_weight(seed: int, density: float) -> None:
    deltas = three(seed)
    wanted = by_peft.ties(deltas, torch.tensor([0.8, 0.8, 0.8], dtype=torch.float64), density)
    assert near(ties(deltas, [0.8] * 3, density), wanted)


@given(st.integers(0, 99))
def test_a_weight_of_zero_is_as_if_it_weren_t_there(seed: int) -> None:
    deltas = three(seed)
    for rule in (elect, weighted_sum):
        assert near(rule(deltas, [0.5, 0.0, 1.0]), rule([deltas[0], deltas[2]], [0.5, 1.0]))


@given(st.integers(0, 99))
def test_the_order_of_adapters_changes_nothing(seed: int) -> None:
    deltas, weights = three(seed), [0.3, 1.0, 0.7]
    for order in itertools.permutations(range(3)):
        moved = [deltas[place] for place in order], [weights[place] for place in order]
        assert near(elect(*moved), elect(deltas, weights))
        assert near(ties(*moved, 0.4), ties(deltas, weights, 0.4))


def test_opposite_signs_leave_nothing() -> None:
    assert not elect([torch.tensor([1.0]), torch.tensor([-1.0])], [1.0, 1.0]).any()


def test_dropping_keeps_the_expectation() -> None:
    delta = torch.full((200, 200), 0.5, dtype=torch.float64)
    for density in (0.1, 0.5, 0.9):
        kept = drop(delta, density, torch.Generator().manual_seed(3))
        assert sorted(set(kept.flatten().tolist())) == [0.0, 0.5 / density]
        # 4 standard errors of a mean over 40,000 draws
        error = 4 * 0.5 * math.sqrt((1 - density) / density / delta.numel())
        assert abs(float(kept.mean()) - 0.5) < error
    assert torch.equal(drop(delta, 1.0, torch.Generator()), delta)


def test_what_is_dropped_depends_on_seed_place_and_name_alone() -> None:
    deltas = [torch.ones(50, 50, dtype=torch.float64)] * 2
    first, second = dropped(deltas, 0.5, 0, "q_proj")
    assert not torch.equal(first, second)
    again = dropped(deltas, 0.5, 0, "q_proj")
    assert torch.equal(first, again[0])
    assert not torch.equal(first, dropped(deltas, 0.5, 1, "q_proj")[0])
    assert not torch.equal(first, dropped(deltas, 0.5, 0, "k_proj")[0])
    # Drawn the same on any machine: the first entries of this seed, place and name.
    assert (first[0, :12] != 0).int().tolist() == DRAWN


DRAWN = [1, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1]


def test_of_a_density_as_many_stay_as_draws_are_below_it() -> None:
    draws = torch.rand(20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for below, density in enumerate(sorted(draws.tolist())):
        kept = drop(torch.ones(20).double(), density, torch.Generator().manual_seed(5))
        assert int((kept != 0).sum()) == below


@given(st.integers(0, 99), st.floats(0, 1))
def test_slerp_is_an_arc(seed: int, share: float) -> None:
    first, second = drawn(seed), drawn(seed + 1)
    second *= first.norm() / second.norm()
    found = slerp(first, second, share)
    assert found.norm().item() == pytest.approx(first.norm().item())  # it stays on the sphere
    cosine = float((first * second).sum() / first.norm() / second.norm())
    angle = float((first * found).sum() / first.norm() / found.norm())
    assert math.acos(min(1, angle)) == pytest.approx(share * math.acos(cosine), abs=1e-7)
    assert near(slerp(second, first, 1 - share), found)


@given(st.integers(0, 99), st.floats(0, 1))
def test_slerp_of_near_weights_is_the_straight_way(seed: int, share: float) -> None:
    first = drawn(seed)
    for size, within in ((1e-4, 1e-8), (0.0, 1e-15)):
        second = first + size * drawn(seed + 1)
        assert near(slerp(first, second, share), (1 - share) * first + share * second, within)
    nothing = torch.zeros_like(first)
    assert near(slerp(first, nothing, share), (1 - share) * first)
    assert near(slerp(nothing, first, share), share * first)


def test_slerp_of_a_right_angle_is_by_hand() -> None:
    one, two = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    half = slerp(one, two, 0.5)
    assert half.tolist() == pytest.approx([math.sqrt(0.5)] * 2)


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))
def test_stacked_and_compressed_lose_nothing(seed: int, r1: int, r2: int) -> None:
    parts = [(drawn(seed, r1, 5), drawn(seed + 1, 7, r1)), (drawn(seed + 2, r2, 5),) * 2]
    parts[1] = (parts[1][0], drawn(seed + 3, 7, r2))
    wanted = sum((b @ a for a, b in parts), torch.zeros(7, 5, dtype=torch.float64))
    whole = stacked(parts)
    assert whole.a.shape[0] == r1 + r2
    assert near(whole.b @ whole.a, wanted)
    assert whole.size == pytest.approx(float(wanted.norm()))
    same = compressed(whole)
    assert same.a.shape[0] == min(r1 + r2, 5)
    assert same.error == 0
    assert near(same.b @ same.a, wanted, 1e-10)


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(1, 5))
def test_a_cut_is_the_nearest_of_its_rank(seed: int, rank: int) -> None:
    whole = stacked([(drawn(seed, 4, 5), drawn(seed + 1, 7, 4))])
    delta = whole.b @ whole.a
    u, s, vh = np.linalg.svd(delta.numpy())
    nearest = torch.tensor(u[:, :rank] * s[:rank] @ vh[:rank])
    for found in (compressed(whole, rank), factored(delta, rank)):
        assert near(found.b @ found.a, nearest, 1e-10)
        lost = float((delta - found.b @ found.a).norm() / delta.norm())
        assert found.error == pytest.approx(lost, abs=1e-10)
    assert found.a.shape[0] == rank


def test_a_shared_rank_is_found() -> None:
    a, b = drawn(0, 2, 5), drawn(1, 7, 2)
    assert compressed(stacked([(a, b), (a, 2 * b)])).a.shape[0] == 2
    assert compressed(stacked([(a, b), (a, -b)])).a.shape[0] >= 1  # nothing is left; still a LoRA


def test_settings_that_don_t_fit_are_refused() -> None:
    for spec, adapters, said in (
        (MergeSpec(), 1, "several"),
        (MergeSpec(method="slerp"), 3, "slerp goes"),
        (MergeSpec(density=0.5), 2, "cat has no density"),
        (MergeSpec(method="ties", rank=4), 2, "ties has no rank"),
        (MergeSpec(weights=(1.0,)), 2, "1 weights for 2"),
        (MergeSpec(weights=(0.0, 0.0)), 2, "all weights are 0"),
        (MergeSpec(method="slerp", weights=(-1.0, 2.0)), 2, "negative"),
    ):
        with pytest.raises(UserError, match=said):
            checked(spec, adapters)
    for wrong in ({"density": 0}, {"rank": 0}, {"weights": [math.nan, 1]}, {"method": "mean"}):
        with pytest.raises(ValidationError):
            MergeSpec.model_validate(wrong)
    assert checked(MergeSpec(method="ties", density=0.2), 3).kept == 0.2
    assert weights_of(MergeSpec(method="linear"), 4) == (0.25,) * 4
    assert weights_of(MergeSpec(), 2) == (1.0, 1.0)


def test_a_search_goes_pair_by_pair_from_the_best_so_far() -> None:
    search = trials(MergeSpec(), (1.0, 1.0, 1.0))
    tried = [next(search)]
    while True:
        try:
            tried.append(search.send(max(tried, key=lambda w: -abs(w[0] - 0.5) - w[1])))
        except StopIteration:
            break
    assert len(tried) == 3 * 4
    assert (0.5, 1.0, 1.0) in tried
    assert (0.5, 0.5, 1.0) in tried  # the third pair starts from what the first one found
    shares = [next(iter(trials(MergeSpec(method="slerp"), (0.5, 0.5))))]
    assert all(sum(pair) == pytest.approx(1) for pair in shares)


def test_one_delta_is_a_sum_too() -> None:
    delta = drawn(1, 3, 4)
    assert torch.equal(weighted_sum([delta], [0.5]), 0.5 * delta)


def test_factors_side_by_side_lose_nothing_and_know_their_size() -> None:
    """However small: the size is that of the product."""
    parts = [(drawn(2, 2, 5) / 100, drawn(3, 4, 2)), (drawn(4, 1, 5), drawn(5, 4, 1) / 100)]
    whole = stacked(parts)
    product = parts[0][1] @ parts[0][0] + parts[1][1] @ parts[1][0]
    assert torch.allclose(whole.b @ whole.a, product, rtol=1e-12)
    assert (whole.a.shape, whole.b.shape, whole.error) == ((3, 5), (4, 3), 0.0)
    assert whole.size == pytest.approx(float(product.norm()), rel=1e-9)
    assert whole.size < 0.5


def test_a_product_at_its_own_rank_loses_nothing_and_nothing_has_rank_1() -> None:
    own = factored(drawn(6, 5, 2) @ drawn(7, 2, 6))
    assert (own.a.shape, own.b.shape, own.error) == ((2, 6), (5, 2), 0.0)
    nothing = factored(torch.zeros(3, 4, dtype=torch.float64))
    assert (nothing.a.shape, nothing.b.shape) == ((1, 4), (3, 1))
    assert (nothing.error, nothing.size) == (0.0, 0.0)
    assert not (nothing.b @ nothing.a).any()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_direction_counts_above_a_trillionth_of_the_largest_at_any_scale(scale: float) -> None:
    for least, rank in ((1.01e-12, 2), (0.99e-12, 1)):
        delta = scale * torch.diag(torch.tensor([1.0, least, 0.0]).double())
        assert factored(delta).a.shape[0] == rank


def test_factors_that_cancel_out_have_no_size() -> None:
    """The trace of what cancels is rounding, of either sign: its root is 0, or the root's size."""
    for seed in range(20):
        a, b = drawn(seed, 3, 5), drawn(seed + 1, 7, 3)
        assert 0 <= stacked([(a, b), (a, -b)]).size < 1e-6
