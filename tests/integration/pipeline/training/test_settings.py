"""The settings of a run: its rates, decay, clipping, dropout, steps, and what memory decides."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.spec.train import TrainSpec
from pipeline.training import compute
from pipeline.training.arguments import share_of_rate
from pipeline.training.fit import FitResult, fit
from pipeline.training.machine.free_memory import FreeMemory
from pipeline.training.methods import methods
from pipeline.training.preview import preflight, recompute
from pipeline.training.preview.look import look
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.integration.pipeline.training.test_training import conversations
from tests.support import tiny_models

SPEC = TrainSpec(base="tiny", rank=4, learning_rate=1e-2, epochs=1, batch_rows=4, min_steps=1)


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


def spec(**changes: Any) -> TrainSpec:
    return TrainSpec.model_validate({**SPEC.model_dump(), **changes})


def weights_of(result: FitResult) -> str:
    file = result.adapter_dir / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [0.5 + 0.5 * math.cos(math.pi * step / 8) for step in range(8)]),
        ({"schedule": "linear"}, [1 - step / 8 for step in range(8)]),
        ({"schedule": "constant", "warmup": 0.25}, [1 / 3, 2 / 3, *[1.0] * 6]),
        ({"schedule": "linear", "warmup": 0.5}, [0.2, 0.4, 0.6, 0.8, 1, 0.75, 0.5, 0.25]),
    ],
)
def test_the_rate_at_each_step(given: dict[str, Any], expected: list[float]) -> None:
    made = spec(**given)
    assert [share_of_rate(step, 8, made) for step in range(8)] == pytest.approx(expected)


def test_a_run_takes_the_rates_and_the_part_of_a_pass(base: LoadedModel, tmp_path: Path) -> None:
    made = spec(schedule="linear", warmup=0.25, epochs=1.5)
    result = fit(base, conversations(), made, tmp_path)
    assert result.steps == 9  # 24 rows and 12, 4 in a step
    rates = [1e-2 * share_of_rate(step, 9, made) for step in range(9)]
    assert [one.learning_rate for one in result.losses] == pytest.approx(rates)


def test_few_rows_make_at_least_the_steps(base: LoadedModel, tmp_path: Path) -> None:
    said: list[str] = []
    few = fit(base, conversations(), spec(min_steps=12), tmp_path / "a", log=said.append)
    assert few.steps == 12
    assert not any("min_steps" in line for line in said)
    low = fit(base, conversations(8), spec(min_steps=12), tmp_path / "b", log=said.append)
    assert low.steps == 8
    assert sum("8 steps are below train.min_steps (12)" in line for line in said) == 1


def test_a_rate_that_is_left_out_is_that_of_the_width(base: LoadedModel, tmp_path: Path) -> None:
    made = spec(learning_rate=None)
    result = fit(base, conversations(8), made, tmp_path)
    width = base.model.config.hidden_size
    assert result.learning_rate == made.usual_rate(width) > 4e-4
    assert result.losses[0].learning_rate == pytest.approx(result.learning_rate)


def test_matrices_decay_and_norms_do_not(base: LoadedModel) -> None:
    made = spec(method="full", weight_decay=0.1)
    with compute.seeded(0), methods.trained_weights(base, made) as trained:
        decaying, rest = methods.rate_groups(trained.model, made)
        assert {p.ndim for p in decaying["params"]} == {2}
        assert {p.ndim for p in rest["params"]} == {1}
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize(
    "given", [{"weight_decay": 1.0}, {"max_grad_norm": 0.01}, {"dropout": 0.5}]
)
def test_each_decides_the_weights_and_repeats(
    base: LoadedModel, tmp_path: Path, given: dict[str, Any]
) -> None:
    rows = conversations(12)
    plain = fit(base, rows, spec(), tmp_path / "plain")
    one, again = (fit(base, rows, spec(**given), tmp_path / name) for name in "ab")
    assert weights_of(one) == weights_of(again) != weights_of(plain)


def test_without_a_norm_to_clip_to_the_gradient_stays(base: LoadedModel, tmp_path: Path) -> None:
    rows = conversations(12)
    never, high = (
        fit(base, rows, spec(max_grad_norm=norm), tmp_path / str(norm)) for norm in (None, 1e9)
    )
    assert weights_of(never) == weights_of(high)
    assert all(math.isfinite(one.grad_norm) for one in never.losses)


def test_experts_have_no_dropout(tmp_path: Path) -> None:
    tiny_models.save(tmp_path, "qwen3_next")
    experts = load_model("tiny", BaseSpec(model=str(tmp_path), dtype="fp32"), tmp_path)
    with pytest.raises(UserError, match=r"train\.dropout.*experts"):
        fit(experts, conversations(4), spec(dropout=0.1), tmp_path / "run")


def test_activations_are_recomputed_where_memory_is_short(
    base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = conversations(12)
    plain = fit(base, rows, spec(), tmp_path / "plain")
    expected = look(base, rows, spec()).estimate
    assert expected is not None
    assert not plain.recomputed

    def short(_device: torch.device) -> FreeMemory:
        return FreeMemory(expected.growth - 1, "a test", raises=False)

    monkeypatch.setattr(recompute, "free_memory", short)
    monkeypatch.setattr(preflight, "free_memory", short)
    said: list[str] = []
    saved = fit(base, rows, spec(), tmp_path / "saved", log=said.append)
    assert saved.recomputed
    assert any("activations are recomputed" in line for line in said)
    assert weights_of(saved) == weights_of(plain)  # so a resumed run may choose anew
    shown = look(base, rows, spec()).estimate
    assert shown is not None
    assert shown.activations < expected.activations
    kept = fit(base, rows, spec(activation_checkpointing=False), tmp_path / "kept")
    assert not kept.recomputed
