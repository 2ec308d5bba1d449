"""Half precision is taken where this machine is fast in it, and warned of where it isn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.spec.train import TrainSpec
from pipeline.training.machine.dtype import slow_choices, training_dtype
from registry.models import base, half
from registry.models.base import BaseIdentity, BaseSpec, identify
from tests.unit.registry.models.test_identity import write_weights

OLD = "this CPU is without avx512_bf16 and AMX, and takes many times fp32's time for it"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this one another: its device, what it has instructions for, and its speeds."""

    def be(device: str, *has: str, **speeds: float) -> list[str]:
        timed: list[str] = []

        def time(one: str) -> dict[str, float]:
            timed.append(one)
            return speeds

        monkeypatch.setattr(half, "_device", lambda: (device, frozenset(has)))
        monkeypatch.setattr(half, "_timed", time)
        return timed

    return be


def test_without_instructions_nothing_is_timed(machine: Any, tmp_path: Path) -> None:
    timed = machine("cpu")
    assert half.why_slow("bf16", tmp_path) == OLD
    assert not timed


def test_it_is_timed_once_for_a_machine(machine: Any, tmp_path: Path) -> None:
    timed = machine("cpu", "bf16", fp32=90.0, bf16=400.0)
    assert half.why_slow("bf16", tmp_path) is None
    assert half.why_slow("bf16", tmp_path) is None
    assert timed == ["bf16"]
    machine("cpu", "bf16", fp32=90.0, bf16=2.0)  # what was found stays
    assert half.why_slow("bf16", tmp_path) is None
    other = tmp_path / "other"
    assert half.why_slow("bf16", other) == "it takes 45.0 times fp32's time on this CPU"


def test_a_large_base_is_never_computed_in_what_is_slow(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    config = {"max_position_embeddings": 77, "dtype": "bfloat16", "hidden_size": 576}
    (tmp_path / "base/config.json").write_text(json.dumps(config))
    write_weights(tmp_path / "base/model.safetensors", (3, 5), b"\1")
    assert identify("b", BaseSpec(model="base"), tmp_path).width == 576

    def dtype(**given: Any) -> str:
        return identify("b", BaseSpec(model="base", **given), tmp_path).dtype

    machine("cpu")
    assert dtype() == "fp32"  # a small one is, anywhere
    monkeypatch.setattr(base, "FP32_UP_TO_PARAMETERS", 0)
    assert dtype() == "fp32"
    assert dtype(dtype="bf16") == "bf16"
    machine("cuda", "bf16")
    assert dtype() == "bf16"


def test_a_gpu_trains_a_real_model_in_bf16(machine: Any) -> None:
    def trained(parameters: int, dtype: Any = "fp32", *, quantised: bool = False) -> str | None:
        one = BaseIdentity("b", "b", "ab" * 32, parameters, 2048, "Llama", dtype)
        return training_dtype(one, quantised=quantised)

    machine("cuda", "bf16", "fp16")
    assert trained(135_000_000) == "bf16"
    assert trained(2_000_000) is trained(10**9, "fp16") is trained(10**9, quantised=True) is None
    machine("cuda", "fp16")
    assert trained(135_000_000) is None
    machine("cpu", "bf16", fp32=1.0, bf16=7.0)
    assert trained(135_000_000) is None


def test_a_slow_choice_is_warned_of(machine: Any, tmp_path: Path) -> None:
    bases = {"a": BaseSpec(model="nano", dtype="bf16"), "b": BaseSpec(model="nano")}
    train = TrainSpec(base="a", dtype="bf16")
    machine("cpu")
    first, second = slow_choices(bases, train, tmp_path)
    assert first == f"bases.a.dtype: bf16 is slow here: {OLD}; leave it out, or take fp32"
    assert second.startswith("train.dtype: ")
    machine("cuda", "bf16")
    assert not list(slow_choices(bases, train, tmp_path))
