"""Preference losses are TRL's, whatever rows share and however a step is split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pipeline.training import compute
from pipeline.training.examples.encode import IGNORED, EncodedRow
from pipeline.training.examples.packing import Family, plan_batches
from pipeline.training.examples.pairs import (
    EncodedFeedback,
    EncodedPair,
    FeedbackRow,
    PreferenceRow,
    encode_feedback,
    encode_pairs,
    mismatched,
    pair_families,
    question_tokens,
)
from pipeline.training.losses import preference
from pipeline.training.losses.loss import PackedRows, pack_rows
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[4] / "golden/preference.json").read_text("utf-8")
)
BETA: float = GOLDEN["beta"]
WAYS = ("shared", "apart", "row by row")


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How rows go through the model: packed and shared, unless a test asks for others."""
    return str(getattr(request, "param", WAYS[0]))


@pytest.fixture
def model(way: str) -> Iterator[Any]:
    """The model that TRL had, with its LoRA matrices."""
    torch.set_num_threads(1)
    base = tiny_models.model("llama")
    made = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **GOLDEN["lora"]))
    fill(made, GOLDEN["seed"])
    with compute.packing(base, wanted=way != "row by row"):
        yield made


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tiny_models.save(tmp_path_factory.mktemp("llama"), "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def fill(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def answered(uid: int, prompt: list[int], answer: list[int]) -> EncodedRow:
    ids = np.array(prompt + answer, dtype=np.int32)
    labels = np.array([IGNORED] * len(prompt) + answer, dtype=np.int32)
    return EncodedRow(uid, ids, labels)


def pairs() -> list[EncodedPair]:
    return [
        EncodedPair(
            uid,
            answered(uid, row["prompt"], row["chosen"]),
            answered(uid, row["prompt"], row["rejected"]),
        )
        for uid, row in enumerate(GOLDEN["rows"])
    ]


def judged(good: list[bool]) -> list[EncodedFeedback]:
    return [
        EncodedFeedback(pair.uid, pair.chosen if is_good else pair.rejected, is_good)
        for pair, is_good in zip(pairs(), good, strict=True)
    ]


def packed_as(way: str, rows: PackedRows) -> bool:
    """Whether to pack; also that the batch is what the way says."""
    assert bool(rows.trees) == (way == "shared")
    return way != "row by row"


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name.split("model.model.")[-1]: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def check_gradients(model: nn.Module, loss: torch.Tensor, expected: dict[str, float]) -> None:
    found = {name: float(grad.norm()) for name, grad in gradients(model, loss).items()}
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


# ----------------------------------------------------------------------------- against TRL


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_dpo_is_trls(model: Any, way: str) -> None:
    batch = preference.pack_pairs(pairs(), share=way == "shared")
    packed = packed_as(way, batch.rows)
    golden = GOLDEN["dpo"]
    with torch.no_grad():
        policy = preference.summed_log_probs(model, batch.rows, packed=packed)
        with model.disable_adapter():
            reference = preference.summed_log_probs(model, batch.rows, packed=packed)
    for name, values in (("", policy), ("reference_", reference)):
        for side, places in (("chosen", batch.chosen), ("rejected", batch.rejected)):
            assert values[list(places)].tolist() == pytest.approx(golden[name + side], rel=1e-5)
    losses = preference.dpo_losses(model, batch, model.disable_adapter, beta=BETA, packed=packed)
    assert losses.mean().item() == pytest.approx(golden["loss"], abs=1e-5)
    check_gradients(model, losses.mean(), golden["gradients"])


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_orpo_is_trls(model: Any, way: str) -> None:
    batch = preference.pack_pairs(pairs(), share=way == "shared", whole=True)
    packed = packed_as(way, batch.rows)
    tokens = sum(batch.rows.lengths[one] - 1 for one in batch.chosen) / len(batch.chosen)
    losses = preference.orpo_losses(model, batch, beta=BETA, tokens=tokens, packed=packed)
    assert losses.mean().item() == pytest.approx(GOLDEN["orpo"]["loss"], abs=1e-5)
    check_gradients(model, losses.mean(), GOLDEN["orpo"]["gradients"])


def test_orpos_parts_are_trls() -> None:
    golden = GOLDEN["orpo"]
    chosen, rejected = (torch.tensor(golden[side]) for side in ("chosen", "rejected"))
    nll = torch.full_like(chosen, golden["nll"])
    losses = preference.orpo_loss(chosen, rejected, nll, beta=BETA, tokens=1)
    assert losses.mean().item() == pytest.approx(golden["loss"], abs=1e-5)


@pytest.mark.parametrize("golden", GOLDEN["kto"], ids=lambda golden: f"kl {golden['kl']:.3f}")
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_kto_is_trls(model: Any, way: str, golden: dict[str, Any]) -> None:
    fill(model, golden["seed"])
    rows = judged(golden["good"])
    batch = preference.pack_feedback(rows, share=way == "shared")
    packed = packed_as(way, batch.rows)
    others, _ = preference.pack_answers(mismatched(rows, context=512), share=way == "shared")
    kl = preference.kl_of(model, [others], model.disable_adapter, packed=packed)
    assert kl.item() == pytest.approx(golden["kl"], abs=1e-5)
    losses = preference.kto_losses(
        model,
        batch,
        model.disable_adapter,
        kl,
        beta=BETA,
        good_weight=GOLDEN["good_weight"],
        bad_weight=GOLDEN["bad_weight"],
        packed=packed,
    )
    assert losses.mean().item() == pytest.approx(golden["loss"], abs=1e-5)
    check_gradients(model, losses.mean(), golden["gradients"])


def test_the_golden_cases_can_tell() -> None:
    """Both sides of the clamp, verdicts of both kinds, and an adapter that moves each answer."""
    estimates = [golden["kl"] for golden in GOLDEN["kto"]]
    assert min(estimates) == 0 < max(estimates)
    for golden in GOLDEN["kto"]:
        policy, reference = (torch.tensor(golden[f"{side}_kl"]) for side in ("policy", "reference"))
        assert preference.kl_estimate(policy, reference).item() == pytest.approx(golden["kl"])
        assert set(golden["good"]) == {True, False}
    for side in ("chosen", "rejected"):
        moved = np.subtract(GOLDEN["dpo"][side], GOLDEN["dpo"][f"reference_{side}"])
        assert np.abs(moved).min() > 0.01


# ----------------------------------------------------------------------------- splits, extremes


def test_a_step_split_in_any_way_has_the_same_gradient(model: Any) -> None:
    rows = pairs()
    tokens = float(np.mean([pair.chosen.tokens - 1 for pair in rows]))

    def step(cuts: tuple[int, ...], kind: str) -> dict[str, torch.Tensor]:
        total = torch.zeros(())
        for begin, end in zip((0, *cuts), (*cuts, len(rows)), strict=True):
            batch = preference.pack_pairs(rows[begin:end], share=True, whole=kind == "orpo")
            if kind == "dpo":
                off = model.disable_adapter
                losses = preference.dpo_losses(model, batch, off, beta=BETA, packed=True)
            else:
                losses = preference.orpo_losses(model, batch, beta=BETA, tokens=tokens, packed=True)
            total = total + losses.sum() / len(rows)
        return gradients(model, total)

    for kind in ("dpo", "orpo"):
        whole = step((), kind)
        for cuts in ((1,), (2, 5), (1, 2, 3, 4, 5)):
            for name, grad in step(cuts, kind).items():
                assert (grad - whole[name]).abs().max() <= 1e-5 * whole[name].abs().max()


def test_a_kto_step_split_in_any_way_has_the_same_estimate_and_gradient(model: Any) -> None:
    golden = GOLDEN["kto"][1]
    fill(model, golden["seed"])
    rows = judged(golden["good"])
    others = mismatched(rows, context=512)

    def step(cuts: tuple[int, ...]) -> dict[str, torch.Tensor]:
        bounds = list(zip((0, *cuts), (*cuts, len(rows)), strict=True))
        off = model.disable_adapter
        apart = [preference.pack_answers(others[a:b], share=True)[0] for a, b in bounds]
        kl = preference.kl_of(model, apart, off, packed=True)
        assert kl.item() == pytest.approx(golden["kl"], abs=1e-5)
        total = torch.zeros(())
        for a, b in bounds:
            batch = preference.pack_feedback(rows[a:b], share=True)
            losses = preference.kto_losses(model, batch, off, kl, beta=BETA, packed=True)
            total = total + losses.sum() / len(rows)
        return gradients(model, total)

    whole = step(())
    for cuts in ((1,), (2, 5)):
        for name, grad in step(cuts).items():
            assert (grad - whole[name]).abs().max() <= 1e-5 * whole[name].abs().max()


def test_the_reference_is_the_base_and_has_no_gradient(model: Any) -> None:
    batch = preference.pack_pairs(pairs(), share=True)
    before = [p.requires_grad for p in model.parameters()]
    losses = preference.dpo_losses(model, batch, model.disable_adapter, beta=BETA, packed=True)
    assert [p.requires_grad for p in model.parameters()] == before
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    same = preference.dpo_losses(model, batch, model.disable_adapter, beta=BETA, packed=True)
    assert same.tolist() == pytest.approx([float(np.log(2))] * len(same), abs=1e-6)
    assert (losses - same).abs().min() > 1e-3


@pytest.mark.parametrize("mean", [-1e-6, -0.1, -0.6931, -0.7, -30.0, -200.0])
def test_orpo_is_finite_where_an_answer_is_nearly_sure_or_impossible(mean: float) -> None:
    chosen = torch.tensor([mean], requires_grad=True)
    rejected = torch.tensor([-2.0], requires_grad=True)
    loss = preference.orpo_loss(chosen, rejected, torch.zeros(1), beta=1.0, tokens=1)
    loss.sum().backward()
    exact = torch.tensor([mean, -2.0], dtype=torch.float64)
    odds = exact - torch.log(-torch.expm1(exact))
    expected = -torch.nn.functional.logsigmoid(odds[0] - odds[1])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert chosen.grad is not None
    assert torch.isfinite(chosen.grad).all()


# ------------------------------------------------------------------------------------ encoding

ASKED = (
    {"role": "user", "content": "Review: a wonderful film, warm and funny. Sentiment?"},
    {"role": "assistant", "content": "maybe"},
    {"role": "user", "content": "The answer is yes, the answer is no, the answer is maybe?"},
)


def said(text: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "assistant", "content": text},)


def trained_text(loaded: LoadedModel, row: EncodedRow) -> str:
    return str(loaded.tokenizer.decode(row.labels[row.labels != IGNORED]))


def test_a_preference_row_trains_its_answers_alone(loaded: LoadedModel) -> None:
    row = PreferenceRow(5, ASKED, said("yes, always"), said("no"), None, "x")
    (pair,), rejects = encode_pairs(loaded, [row], allow_rejects=0)
    assert not rejects
    assert trained_text(loaded, pair.chosen) == "yes, always<|end|>"
    assert trained_text(loaded, pair.rejected) == "no<|end|>"
    batch = preference.pack_pairs([pair], share=True)
    assert batch.rows.input_ids.shape[1] == pair.tokens
    assert pair.tokens < pair.chosen.tokens + pair.rejected.tokens


@pytest.mark.parametrize("template", [None, "{{ bos_token }}" + tiny_models.CHAT_TEMPLATE])
def test_both_answers_have_one_first_token_and_the_same_question(
    tmp_path: Path, template: str | None
) -> None:
    """Axolotl's issue 1616: a first token before each answer, too.

    TRL's pull request 1153: a question that ends with a space was read otherwise before a $.
    """
    tiny_models.save(tmp_path, "llama", bos=True)
    loaded = load_model("tiny", BaseSpec(model=str(tmp_path), dtype="fp32"), tmp_path)
    loaded.tokenizer.chat_template = template
    asked = ({"role": "user", "content": "How much is it? "},)
    row = PreferenceRow(5, asked, said("46 euro"), said("$46 euro"), None, "x")
    (pair,), _ = encode_pairs(loaded, [row], allow_rejects=0)
    first = loaded.tokenizer.bos_token_id
    context = [list(one.input_ids[: question_tokens(one)]) for one in (pair.chosen, pair.rejected)]
    assert context[0] == context[1]
    for one in (pair.chosen, pair.rejected):
        assert list(one.input_ids).count(first) == 1
        assert one.input_ids[0] == first


def test_pairs_of_one_question_are_planned_together() -> None:
    rows = pairs()
    found = pair_families(rows)
    assert found == (Family((0, 1), 40), Family((4, 5), 30))
    lengths = [pair.tokens for pair in rows]
    (batch,) = plan_batches(lengths, epochs=1, seed=0, budget=10_000, shared=found)
    packed = preference.pack_pairs([rows[row] for row in batch.rows], share=True).rows
    planned = sum(lengths) - sum(family.prefix for family in found)
    assert packed.input_ids.shape[1] == planned


def test_feedback_is_on_the_last_answer(loaded: LoadedModel) -> None:
    row = FeedbackRow(5, (*ASKED, *said("no")), False, None, "x")
    (encoded,), _ = encode_feedback(loaded, [row], allow_rejects=0)
    assert trained_text(loaded, encoded.row) == "no<|end|>"
    assert not encoded.good


def test_rows_that_cannot_be_trained_on_are_named(loaded: LoadedModel) -> None:
    fine = PreferenceRow(1, ASKED, said("yes"), said("no"), None, "x")
    empty = PreferenceRow(2, ASKED, said("yes"), said(" "), None, "x")
    same = PreferenceRow(3, ASKED, said("yes"), said("yes"), None, "x")
    long = PreferenceRow(4, ASKED, said("yes " * 600), said("no"), None, "x")
    found, rejects = encode_pairs(loaded, [fine, empty, same, long], allow_rejects=0.8)
    assert [pair.uid for pair in found] == [1]
    reasons = {reject.uid: reject.reason for reject in rejects}
    assert reasons[2] == "rejected: an answer is empty"
    assert reasons[3] == "both answers are the same tokens"
    assert reasons[4].startswith("chosen: ")
    with pytest.raises(UserError, match=r"3 of 4 rows .*row 2: rejected: an answer is empty"):
        encode_pairs(loaded, [fine, empty, same, long], allow_rejects=0.5)
    with pytest.raises(UserError, match="no rows"):
        encode_feedback(loaded, [], allow_rejects=0.5)


def test_mismatched_rows_take_the_answer_before() -> None:
    rows = [
        EncodedFeedback(0, answered(0, [10, 11], [12]), True),
        EncodedFeedback(1, answered(1, [20], [21, 22]), False),
        EncodedFeedback(2, answered(2, [30, 31, 32], [33]), True),
    ]
    ids = [row.input_ids.tolist() for row in mismatched(rows, context=5)]
    assert ids == [[10, 11, 33], [20, 12], [30, 31, 32, 21, 22]]
    labels = [row.labels.tolist() for row in mismatched(rows, context=4)]
    assert labels == [[IGNORED, IGNORED, 33], [IGNORED, 12]]  # the third is too long


def test_inputs_of_a_collator_are_the_same_batch() -> None:
    pairs_batch = preference.pack_pairs(pairs(), share=True, whole=True)
    again = preference.PackedPairs.from_inputs({**pairs_batch.as_inputs(), "epoch": 1})
    assert again.rows.trees == pairs_batch.rows.trees
    assert (again.chosen, again.rejected) == (pairs_batch.chosen, pairs_batch.rejected)
    feedback = preference.pack_feedback(judged([True, False] * 3), share=True)
    assert preference.PackedFeedback.from_inputs(feedback.as_inputs()).good is feedback.good
    uids = [pair.uid % 2 == 0 for pair in pairs()]
    by_row = [uids[uid] for uid in feedback.rows.uids]
    assert feedback.good.tolist() == by_row
    assert pack_rows([pairs()[0].chosen]).order == (0,)
