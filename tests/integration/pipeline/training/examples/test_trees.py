"""Rows that share a prompt: the same logits, losses and gradients as by themselves, no leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training import compute
from pipeline.training.examples import layout
from pipeline.training.examples.encode import IGNORED, EncodedRow
from pipeline.training.examples.layout import PrefixTree
from pipeline.training.losses import attention
from pipeline.training.losses.loss import (
    PackedRows,
    pack_rows,
    packed_loss,
    row_by_row_loss,
    why_not_shared,
)
from tests.support import tiny_models

KINDS = ("llama", "qwen3", "gemma3", "mistral", "gpt2")  # the 3rd and 4th have windows of 24 tokens


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny() -> Callable[[str], Any]:
    """A tiny model of an architecture, made once."""
    found: dict[str, Any] = {}

    def load(kind: str) -> Any:
        if kind not in found:
            found[kind] = tiny_models.model(kind)
        return found[kind]

    return load


def family(prompt: int, *answers: int, seed: int = 0) -> list[EncodedRow]:
    """Answers of so many random tokens to one random prompt."""
    rng = np.random.default_rng((seed, prompt))
    asked = rng.integers(7, 512, prompt)
    rows = []
    for number, length in enumerate(answers):
        ids = np.concatenate([asked, rng.integers(7, 512, length)]).astype(np.int32)
        labels = np.where(np.arange(len(ids)) < prompt, IGNORED, ids).astype(np.int32)
        rows.append(EncodedRow(1000 * prompt + number, ids, labels))
    return rows


def mixed() -> list[EncodedRow]:
    """Trees of several shapes, of which some are attended together, and rows by themselves."""
    rows = [
        *family(40, 10, 30, 3),
        *family(36, 8, 8, 20),
        *family(20, 50, 2),
        *family(90, 4, 5, 6, 7),
        *family(70, 40, 41),
        *family(66, 38, 44),
        *family(17, 9),
        *family(5, 3, 3),  # too short a prompt to be worth it
    ]
    return sorted(rows, key=lambda row: -row.tokens)


def logits_by_row(model: Any, rows: PackedRows, **inputs: Any) -> list[torch.Tensor]:
    """The logits that predict each row's tokens, by `uid` order."""
    given = inputs or {"input_ids": rows.input_ids}
    logits = model(
        **given,
        position_ids=rows.position_ids,
        attention_mask=None,
        use_cache=False,
        packed_layout=rows.layout(),
    ).logits[0]
    sources = rows.sources[0] if rows.sources is not None else torch.arange(-1, len(logits) - 1)
    parts = [logits[part[1:]] for part in sources.split(list(rows.lengths))]
    return [parts[place] for place in np.argsort(rows.uids)]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_rows_by_themselves(tiny: Callable[[str], Any], kind: str) -> None:
    model, rows = tiny(kind), mixed()
    with torch.no_grad(), compute.packed(model):
        shared = pack_rows(rows, share=True)
        assert len(shared.trees) == 6
        assert shared.input_ids.shape[1] < 0.7 * sum(shared.lengths)
        groups = [g for g in shared.layout().groups if isinstance(g, layout.TreeGroup)]
        assert any(group.trees > 1 for group in groups)
        assert any(group.bundle > 1 for group in groups)
        apart = logits_by_row(model, pack_rows(rows))
        for one, other in zip(logits_by_row(model, shared), apart, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_rows_by_themselves(kind: str) -> None:
    model, rows = tiny_models.model(kind).requires_grad_(), mixed()

    def gradients(loss: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    alone, expected = gradients(row_by_row_loss(model, pack_rows(rows)))
    with compute.packed(model):
        shared, found = gradients(packed_loss(model, pack_rows(rows, share=True)))
    assert shared == pytest.approx(alone, rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_turns_of_one_conversation_cost_their_common_part_once(
    tiny: Callable[[str], Any],
) -> None:
    rng = np.random.default_rng(3)
    asked, said, more = (rng.integers(7, 512, n) for n in (60, 9, 50))
    turns = []
    for prompt in (asked, np.concatenate([asked, said[4:], more])):
        ids = np.concatenate([prompt, said]).astype(np.int32)
        labels = np.where(np.arange(len(ids)) < len(prompt), IGNORED, ids).astype(np.int32)
        turns.append(EncodedRow(1, ids, labels))
    turns.reverse()  # the longest first
    model = tiny("qwen3")
    with torch.no_grad():
        alone = row_by_row_loss(model, pack_rows(turns))
        with compute.packed(model):
            packed = pack_rows(turns, share=True)
            assert packed.input_ids.shape[1] == sum(packed.lengths) - 60
            shared = packed_loss(model, packed)
    assert shared.item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_crosses_from_branch_to_branch(tiny: Callable[[str], Any], kind: str) -> None:
    model = tiny(kind)
    rows = pack_rows([*family(50, 6, 5), *family(20, 30, 9, 9), *family(31, 3)], share=True)
    ends = np.cumsum([0, rows.lengths[0]])
    own = {rows.uids[0]: [range(*ends)]}
    begin, uids = int(ends[1]), list(rows.uids[1:])
    for tree in rows.trees:
        token = begin + tree.prefix
        for length in tree.branches:
            parts = [range(begin, begin + tree.prefix), range(token, token + length)]
            own[uids.pop(0)] = parts
            token += length
        begin = token
    embeddings = model.get_input_embeddings()(rows.input_ids).detach().requires_grad_()
    with compute.packed(model):
        logits = logits_by_row(model, rows, inputs_embeds=embeddings)
        for uid, part in zip(sorted(rows.uids), logits, strict=True):
            (grad,) = torch.autograd.grad(part.logsumexp(-1).sum(), embeddings, retain_graph=True)
            touched = grad[0].abs().amax(1) > 0
            expected = torch.zeros_like(touched)
            for tokens in own[uid]:
                expected[list(tokens)] = True
            expected[own[uid][-1][-1]] = False  # a row's last token predicts none
            assert torch.equal(touched, expected)


def test_trained_tokens_of_a_shared_prefix_count_once_a_row(tiny: Callable[[str], Any]) -> None:
    """The answers begin alike: more than the prompt is shared, and it is trained twice."""
    model = tiny("llama")
    first, second = family(30, 12, 12)
    ids = second.input_ids.copy()
    ids[30:35] = first.input_ids[30:35]
    ids[35] = first.input_ids[35] + 1
    labels = np.where(np.arange(len(ids)) < 30, IGNORED, ids).astype(np.int32)
    labels[32] = IGNORED  # not even the labels have to be the same
    rows = [first, EncodedRow(7, ids, labels)]
    shared = pack_rows(rows, share=True)
    assert [tree.prefix for tree in shared.trees] == [35]
    assert int((shared.labels != IGNORED).sum()) == sum(row.trained_tokens for row in rows)
    with torch.no_grad():
        alone = row_by_row_loss(model, pack_rows(rows))
        with compute.packed(model):
            together = packed_loss(model, shared)
    assert together.item() == pytest.approx(alone.item(), rel=1e-6)


def test_equal_rows_keep_a_token_each(tiny: Callable[[str], Any]) -> None:
    model = tiny("llama")
    (row,) = family(30, 6)
    shared = pack_rows([row, row], share=True)
    assert shared.trees == (PrefixTree(35, (1, 1)),)
    with torch.no_grad():
        alone = row_by_row_loss(model, pack_rows([row, row]))
        with compute.packed(model):
            assert packed_loss(model, shared).item() == pytest.approx(alone.item(), rel=1e-6)


def test_rows_that_share_do_not_go_one_by_one(tiny: Callable[[str], Any]) -> None:
    shared = pack_rows(family(30, 6, 5), share=True)
    with pytest.raises(ValueError, match="share tokens"):
        row_by_row_loss(tiny("llama"), shared)


def test_inputs_of_a_collator_are_the_same_rows() -> None:
    rows = pack_rows(mixed(), share=True)
    again = PackedRows.from_inputs({**rows.as_inputs(), "epoch": 0})
    assert again.layout().groups[0] == rows.layout().groups[0]
    assert (again.trees, again.lengths, again.uids) == (rows.trees, rows.lengths, rows.uids)
    assert again.sources is rows.sources


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_shares_is_found_so(tiny: Callable[[str], Any], kind: str) -> None:
    with compute.packed(tiny(kind)):
        assert why_not_shared(tiny(kind), same=1e-5) is None


def test_a_model_whose_branches_see_each_other_is_found_so(
    tiny: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    with compute.packed(model):
        with monkeypatch.context() as patched:
            patched.setattr(layout, "seen_mask", lambda ages, _: torch.zeros(ages.shape)[:, None])
            assert why_not_shared(model, same=1e-3) == (
                "an answer changes with another one to the same prompt"
            )

        def forgets_the_prompt(rows: PackedRows) -> Any:
            trees = [(tree.prefix, *tree.branches) for tree in rows.trees]
            lengths = [n for tree in trees for n in tree]
            return layout.make_layout(lengths or rows.lengths)

        monkeypatch.setattr(PackedRows, "layout", forgets_the_prompt)
        assert why_not_shared(model, same=1e-3) == (
            "answers with a shared prompt have other losses than by themselves"
        )


def test_bf16_is_attended_in_fp32() -> None:
    model = tiny_models.model("llama").bfloat16()
    rows = mixed()
    with torch.no_grad(), compute.packed(model):
        shared = packed_loss(model, pack_rows(rows, share=True))
        apart = packed_loss(model, pack_rows(rows))
    assert shared.item() == pytest.approx(apart.item(), rel=5e-3)
    part = torch.randn(1, 2, 60, 16)
    places = layout.make_layout([], trees=[PrefixTree(40, (12, 8))])
    layer = torch.nn.Identity()
    low = part.bfloat16()
    found, _ = attention.packed_attention(layer, low, low, low, None, packed_layout=places)
    full = low.float()
    exact, _ = attention.packed_attention(layer, full, full, full, None, packed_layout=places)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_it_is_the_same() -> None:
    rows = pack_rows(mixed(), share=True)
    inputs = {k: v.cuda() if torch.is_tensor(v) else v for k, v in rows.as_inputs().items()}
    model = tiny_models.model("llama")
    with torch.no_grad(), compute.packed(model):
        on_cpu = packed_loss(model, rows).item()
        on_cuda = packed_loss(model.cuda(), PackedRows.from_inputs(inputs)).item()
    assert on_cuda == pytest.approx(on_cpu, rel=1e-4)
