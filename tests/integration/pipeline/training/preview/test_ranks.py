"""What is warned of the adapter's rank and alpha, beside the layers it is for."""

from __future__ import annotations

import pytest
from torch import nn

from pipeline.spec.train import TrainSpec
from pipeline.training.preview.preflight import rank_warnings

SPEC = TrainSpec(base="b", rank=16)


def test_a_rank_above_what_some_layers_have() -> None:
    layers = {"0.k_proj": nn.Linear(64, 8), "1.k_proj": nn.Linear(64, 8), "0.up": nn.Linear(64, 99)}
    assert not list(rank_warnings(SPEC.model_copy(update={"rank": 8}), layers))
    (warning,) = rank_warnings(SPEC, layers)
    assert "train.rank 16 is above the smaller side of 2 of 3 layers (k_proj)" in warning


@pytest.mark.parametrize(
    ("alpha", "warned"), [(None, False), (4, False), (3, True), (128, False), (129, True)]
)
def test_alpha_far_from_the_rank(alpha: int | None, warned: bool) -> None:
    warnings = list(
        rank_warnings(SPEC.model_copy(update={"alpha": alpha}), {"0.up": nn.Linear(64, 64)})
    )
    assert len(warnings) == warned
    assert not warned or f"train.alpha {alpha} is" in warnings[0]
