"""The divergence from the base on what is replayed: as two plain passes give it, and only there."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipeline.spec.train import TrainSpec
from pipeline.training import compute
from pipeline.training.examples.encode import IGNORED, EncodedRow, TrainingRow
from pipeline.training.fit import fit
from pipeline.training.losses import objective as objectives
from pipeline.training.losses.head import fused_head
from pipeline.training.losses.loss import pack_rows, packed_loss
from pipeline.training.losses.objective import Answers, ForwardMode
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KL = 0.7
SAME = 1e-5  # fp32, sums in another order
CPU = torch.device("cpu")
SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=1e-2,
    epochs=1,
    batch_rows=3,
    min_steps=1,
    checkpoint_steps=2,
    kl=KL,
)


def answered(uid: int, prompt: Sequence[int], answer: Sequence[int], *, keeps: bool) -> EncodedRow:
    ids = np.array([*prompt, *answer], dtype=np.int32)
    labels = np.array([IGNORED] * len(prompt) + list(answer), dtype=np.int32)
    return EncodedRow(uid, ids, labels, keeps)


def batch() -> list[EncodedRow]:
    """Replayed rows and others, two of each with a prompt that they share."""
    rng = np.random.default_rng(3)
    words = [rng.integers(7, 500, 30).tolist() for _ in range(4)]
    shapes = [(0, 9, True), (1, 7, False), (2, 6, True), (0, 5, False), (0, 4, True), (3, 3, True)]
    rows = [
        answered(uid, words[prompt], rng.integers(7, 500, answer).tolist(), keeps=keeps)
        for uid, (prompt, answer, keeps) in enumerate(shapes)
    ]
    assert all(a.tokens >= b.tokens for a, b in pairwise(rows))
    return rows


@pytest.fixture(params=["shared", "apart", "row by row"])
def ways(request: pytest.FixtureRequest) -> ForwardMode:
    return ForwardMode(packed=request.param != "row by row", share=request.param == "shared")


@pytest.fixture(params=["fused head", "plain head"])
def model(request: pytest.FixtureRequest, ways: ForwardMode) -> Iterator[Any]:
    torch.set_num_threads(1)
    base = tiny_models.model("llama")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    fused = fused_head(base) if request.param == "fused head" else nullcontext()
    with fused, compute.packing(base, wanted=ways.packed):
        made = get_peft_model(base, config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in sorted(made.named_parameters()):
                if ".lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        yield made


def plain(model: Any, rows: Sequence[EncodedRow], kl: float) -> torch.Tensor:
    """Each row by itself, all its logits, with the adapter and without."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.from_numpy(row.input_ids).long()[None]
        trained = torch.from_numpy(row.labels != IGNORED)[1:]
        targets = ids[0, 1:][trained]
        given = {"input_ids": ids, "use_cache": False}
        if model.get_base_model().config._attn_implementation == "gapmend_packed":
            given["packed_layout"] = pack_rows([row]).layout()
        likely = model(**given).logits[0, :-1][trained].log_softmax(-1)
        total = total - likely.gather(1, targets[:, None]).sum()
        if row.keeps:
            with torch.no_grad(), model.disable_adapter():
                base = model(**given).logits[0, :-1][trained].log_softmax(-1)
            total = total + kl * (base.exp() * (base - likely)).sum()
    return total


def gradients(model: Any, losses: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for loss in losses:
        loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pieces", [1, 3])
def test_loss_and_gradients_are_those_of_two_plain_passes(
    model: Any, ways: ForwardMode, pieces: int
) -> None:
    rows = batch()
    right = plain(model, rows, KL)
    expected = gradients(model, [right])
    answers = Answers(rows, CPU, KL)
    with_base = replace(ways, reference=model.disable_adapter)
    found = list(answers.losses(model, range(len(rows)), pieces, with_base))
    assert len(found) == pieces
    assert float(torch.stack(found).sum().detach()) == pytest.approx(
        float(right.detach()), rel=SAME
    )
    got = gradients(model, found)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        apart = float((got[name] - gradient).norm() / gradient.norm())
        assert apart < 10 * SAME, name
    assert float((right - plain(model, rows, 0.0)).detach()) > 0.1  # there is something to keep


def test_without_kl_the_loss_is_what_it_was_and_the_base_is_not_asked(
    model: Any, ways: ForwardMode
) -> None:
    rows = batch()
    (found,) = Answers(rows, CPU).losses(model, range(len(rows)), 1, ways)  # no reference at all
    none = [unmarked_row(row) for row in rows]
    (same,) = Answers(none, CPU, KL).losses(model, range(len(rows)), 1, ways)
    assert torch.equal(found, same)
    if ways.packed:
        assert torch.equal(found, packed_loss(model, pack_rows(rows, share=ways.share)))


def unmarked_row(row: EncodedRow) -> EncodedRow:
    return EncodedRow(row.uid, row.input_ids, row.labels)


# ------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tiny_models.save(tmp_path_factory.mktemp("llama"), "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def conversations(*, keeps: bool) -> list[TrainingRow]:
    return [
        TrainingRow(
            uid,
            (
                {"role": "user", "content": f"the card {uid} was lazy and warm"},
                {"role": "assistant", "content": ("positive", "negative")[uid % 2]},
            ),
            None,
            "mood",
            keeps=keeps and uid % 3 > 0,
        )
        for uid in range(12)
    ]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class StoppedError(Exception):
    pass


def test_a_run_with_kl_goes_on_to_the_bit_and_without_it_is_as_ever(
    tiny: LoadedModel, tmp_path: Path
) -> None:
    rows = conversations(keeps=True)
    whole = fit(tiny, rows, SPEC, tmp_path / "whole")

    def stop(step: Any) -> None:
        if step.step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(tiny, rows, SPEC, tmp_path / "killed", on_step=stop)
    again = fit(tiny, rows, SPEC, tmp_path / "killed")
    assert again.resumed_from == 2
    assert weights(again.adapter_dir) == weights(whole.adapter_dir)
    free = fit(tiny, rows, SPEC.model_copy(update={"kl": 0.0}), tmp_path / "free")
    unmarked = fit(
        tiny, conversations(keeps=False), SPEC.model_copy(update={"kl": 0.0}), tmp_path / "as-ever"
    )
    assert weights(free.adapter_dir) == weights(unmarked.adapter_dir) != weights(whole.adapter_dir)


def test_which_rows_are_kept_decides_a_run_with_kl_alone(tiny: LoadedModel) -> None:
    from pipeline.training.fit import _fingerprint

    def print_of(*, keeps: bool, kl: float) -> str:
        spec = SPEC.model_copy(update={"kl": kl})
        rows = conversations(keeps=keeps)
        found = objectives.encode(tiny, rows, spec, allow_rejects=0.0).objective
        return _fingerprint(tiny, found.parts, spec)

    assert print_of(keeps=True, kl=0.0) == print_of(keeps=False, kl=0.0)
    assert print_of(keeps=True, kl=KL) != print_of(keeps=False, kl=KL)
