"""DPO, ORPO and KTO through the trainer: they learn, repeat, resume, and switch their reference."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.spec.train import Method, Objective, TrainSpec, ValidationSpec
from pipeline.training import compute
from pipeline.training.examples.pairs import FeedbackRow, PreferenceRow
from pipeline.training.fit import RunWatch, fit
from pipeline.training.losses import preference
from pipeline.training.losses.objective import TrainingExample
from pipeline.training.losses.preference import PackedPairs
from pipeline.training.methods import lora
from pipeline.training.record.metrics import StepMetrics
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.integration.pipeline.training.methods.test_methods import files_of
from tests.integration.pipeline.training.test_training import conversations
from tests.support import tiny_models

SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=5e-3,
    epochs=3,
    batch_tokens=256,
    min_steps=1,
    checkpoint_steps=2,
    seed=5,
)
OBJECTIVES: tuple[Objective, ...] = ("dpo", "orpo", "kto")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("base")
    tiny_models.save(root, "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def by(kind: Objective, **changes: object) -> TrainSpec:
    return SPEC.model_copy(update={"objective": kind, **changes})


def rows(kind: Objective, count: int = 24) -> list[TrainingExample]:
    """Questions of which the good answer is always `positive`."""
    rng = random.Random(2)
    words = ["the", "film", "was", "good", "dull", "but", "warm", "as", "a", "card", "lazy", "dog"]
    found: list[TrainingExample] = []
    for uid in range(count):
        text = " ".join(rng.choices(words, k=rng.randint(20, 40)))
        asked = ({"role": "user", "content": text},)
        good, bad = ({"role": "assistant", "content": word} for word in ("positive", "negative"))
        if kind == "kto":
            answer = rng.choice((good, bad))
            found.append(FeedbackRow(uid, (*asked, answer), answer is good, None, "mood"))
        else:
            found.append(PreferenceRow(uid, asked, (good,), (bad,), None, "mood"))
    return found


def margin(base: LoadedModel, adapter: Path | None) -> float:
    """How much likelier the good answer is than the bad one, over questions."""
    from pipeline.training.examples.pairs import encode_pairs
    from pipeline.training.losses.preference import pack_pairs, summed_log_probs

    asked = [row for row in rows("dpo", 8) if isinstance(row, PreferenceRow)]
    pairs, _ = encode_pairs(base, asked, allow_rejects=0)
    base.use(adapter)
    packed: PackedPairs = pack_pairs(pairs, share=False)
    with torch.no_grad():
        scores = summed_log_probs(base.model, packed.rows, packed=False)
    base.use(None)
    return float((scores[list(packed.chosen)] - scores[list(packed.rejected)]).mean())


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_it_comes_to_prefer_the_good_answer(
    base: LoadedModel, tmp_path: Path, kind: Objective
) -> None:
    before = margin(base, None)
    first = fit(base, rows(kind), by(kind), tmp_path / "one")
    assert margin(base, first.adapter_dir) > before + 0.5
    assert first.shared
    assert files_of(fit(base, rows(kind), by(kind), tmp_path / "two")) == files_of(first)


def test_dpo_begins_at_log_two(base: LoadedModel, tmp_path: Path) -> None:
    """Before the first step policy and reference are one; after it they aren't."""
    result = fit(base, rows("dpo"), by("dpo"), tmp_path / "run")
    assert result.losses[0].loss == pytest.approx(0.693147, abs=1e-5)
    assert result.losses[-1].loss < 0.6


@pytest.mark.parametrize(
    ("architecture", "changes"), [("gpt2", {}), ("llama", {"attention_dropout": 0.1})]
)
def test_no_unit_is_dropped_while_two_likelihoods_are_compared(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    """As LlamaFactory's pull request 10779: the reference was noise, and so was its difference."""
    folder = tiny_models.save(tmp_path / "base", architecture, **changes)
    base = load_model("tiny", BaseSpec(model=str(folder), dtype="fp32"), tmp_path)
    begins: dict[Objective, float] = {"dpo": 0.693147, "kto": 0.5}
    for kind, begin in begins.items():
        result = fit(base, rows(kind, 6), by(kind, epochs=1), tmp_path / kind)
        assert result.losses[0].loss == pytest.approx(begin, abs=1e-5)
    ids = torch.arange(7, 40)[None]
    base.model.train()  # afterwards the base has its dropout again
    assert not torch.equal(base.model(input_ids=ids).logits, base.model(input_ids=ids).logits)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_stopped_it_ends_with_the_same_bytes(
    base: LoadedModel, tmp_path: Path, kind: Objective
) -> None:
    whole = fit(base, rows(kind), by(kind), tmp_path / "whole")

    def stop(step: StepMetrics) -> None:
        if step.step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(base, rows(kind), by(kind), tmp_path / "cut", on_step=stop)
    assert files_of(fit(base, rows(kind), by(kind), tmp_path / "cut")) == files_of(whole)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_however_the_step_is_split_the_losses_are_the_same(
    base: LoadedModel, tmp_path: Path, kind: Objective
) -> None:
    """One batch a step, or several, hold the same rows: one epoch of one step."""
    once = by(kind, epochs=1, batch_tokens=100_000, batch_rows=99)
    parts = by(kind, epochs=1, batch_tokens=400, accumulation=100)
    one, other = (
        fit(base, rows(kind), spec, tmp_path / name).losses
        for name, spec in (("once", once), ("parts", parts))
    )
    assert len(one) == len(other) == 1
    assert one[0].loss == pytest.approx(other[0].loss, rel=1e-5)
    assert one[0].grad_norm == pytest.approx(other[0].grad_norm, rel=1e-4)


def test_the_fused_layers_can_be_switched_off(base: LoadedModel) -> None:
    ids = torch.arange(7, 40)[None]
    with torch.no_grad():
        plain = base.model(input_ids=ids).logits
    with compute.seeded(0), lora.lora_modules(base, SPEC) as model, torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
        changed = model(input_ids=ids).logits
        with model.disable_adapter():
            off = model(input_ids=ids).logits
        again = model(input_ids=ids).logits
    assert torch.equal(off, plain)
    assert torch.equal(again, changed)
    assert float((changed - plain).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_it_is_watched_by_its_own_loss(base: LoadedModel, tmp_path: Path, kind: Objective) -> None:
    spec = by(kind, validation=ValidationSpec(every=2, patience=9))
    result = fit(base, rows(kind)[:18], spec, tmp_path / "run", watch=RunWatch(rows(kind)[18:]))
    checks = [step.validation_loss for step in result.losses if step.validation_loss is not None]
    assert checks[-1] < checks[0]


def test_pairs_in_pieces(
    base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(base, rows("dpo"), by("dpo"), tmp_path / "whole")
    own = preference.dpo_losses
    raised: list[int] = []

    def short(model: torch.nn.Module, batch: PackedPairs, *args: Any, **kwargs: Any) -> Any:
        if len(batch.chosen) > 2:
            raised.append(len(batch.chosen))
            raise RuntimeError("can't allocate memory")
        return own(model, batch, *args, **kwargs)

    monkeypatch.setattr(preference, "dpo_losses", short)
    pieces = fit(base, rows("dpo"), by("dpo"), tmp_path / "pieces")
    assert raised
    assert pieces.pieces > 1
    for one, other in zip(whole.losses, pieces.losses, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=2e-3)


def test_rows_of_another_kind_are_refused(base: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1000 is not what dpo learns from") as raised:
        fit(base, conversations(3), by("dpo"), tmp_path / "run")
    assert "expected preference rows" in str(raised.value)
    with pytest.raises(UserError, match="row 0 is not what sft learns from"):
        fit(base, rows("kto"), SPEC, tmp_path / "run")


@pytest.mark.parametrize("method", ["pissa", "freeze", "full"])
def test_methods_that_change_the_reference_are_refused(method: Method) -> None:
    with pytest.raises(ValidationError, match="needs the base beside what is trained"):
        TrainSpec(base="tiny", objective="dpo", method=method)
    assert TrainSpec(base="tiny", objective="orpo", method=method).objective == "orpo"
