"""Batches of bf16 and fp16 on a CPU: a few sizes only, and the same losses and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training import compute
from pipeline.training.examples.encode import IGNORED, EncodedRow
from pipeline.training.examples.rounding import TOKENS, round_tokens
from pipeline.training.losses import loss
from pipeline.training.losses.head import fused_head
from pipeline.training.losses.loss import pack_rows, packed_loss
from tests.support import tiny_models

SIZES = ((70, 31, 8), (129,), (100, 28), (60, 60, 59, 7, 6, 5, 1))


def rows_of(sizes: tuple[int, ...], *, prompt: int = 0) -> list[EncodedRow]:
    """Rows of so many random tokens behind a prompt that all of them begin with."""
    rng = np.random.default_rng(sizes)
    asked = rng.integers(7, 512, prompt)
    made = []
    for uid, size in enumerate(sizes):
        ids = np.concatenate([asked, rng.integers(7, 512, size + 1)]).astype(np.int32)
        labels = np.where(np.arange(len(ids)) < max(prompt, 1), IGNORED, ids).astype(np.int32)
        made.append(EncodedRow(uid, ids, labels))
    return made


def trained(model: Any, rows: loss.PackedRows) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss and the gradient of every weight."""
    model.zero_grad(set_to_none=True)
    with compute.packed(model):
        summed = packed_loss(model, rows)
        summed.backward()
    return summed.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("prompt", [0, 40])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_padding_changes_nothing(
    kind: str, sizes: tuple[int, ...], prompt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models.model(kind).requires_grad_()
    rows = pack_rows(rows_of(sizes, prompt=prompt), share=prompt > 0)
    assert bool(rows.trees) == (prompt > 0 and len(sizes) > 1)
    plain, gradients = trained(model, rows)
    monkeypatch.setattr(loss, "wants_whole_steps", lambda _: True)
    rounded, others = trained(model, rows)
    torch.testing.assert_close(rounded, plain, atol=0, rtol=1e-6)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6 * float(one.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("dtype", "is_rounded"),
    [(torch.bfloat16, True), (torch.float16, True), (torch.float32, False)],
)
def test_few_shapes_reach_the_products(dtype: torch.dtype, is_rounded: bool) -> None:
    model = tiny_models.model("llama").to(dtype)
    seen: set[int] = set()
    layer = model.model.layers[0].mlp.gate_proj
    layer.register_forward_hook(lambda _, given, __: seen.add(given[0].shape[1]))
    with torch.no_grad(), compute.packed(model), fused_head(model):
        seen.clear()
        for sizes in SIZES:
            packed_loss(model, pack_rows(rows_of(sizes)))
    if is_rounded:
        assert seen == {TOKENS, 2 * TOKENS}
    else:
        assert seen == {sum(sizes) + len(sizes) for sizes in SIZES}


def test_the_fused_head_has_the_same_losses_with_zeros_below() -> None:
    model = tiny_models.model("llama").to(torch.bfloat16)
    rows = pack_rows(rows_of((300, 41)))
    with torch.no_grad(), compute.packed(model):
        plain = packed_loss(model, rows)
        with fused_head(model):
            fused = packed_loss(model, rows)
    torch.testing.assert_close(fused, plain, rtol=2e-3, atol=0)


def test_a_whole_batch_is_left_as_it_is() -> None:
    rows = pack_rows(rows_of((100, 26)))
    layout = rows.layout()
    assert rows.input_ids.shape[1] == TOKENS
    ids, positions, same = round_tokens(rows.input_ids, rows.position_ids, layout)
    assert ids is rows.input_ids
    assert positions is rows.position_ids
    assert same is layout
