"""Merging: the same logits in memory and in a new process, or a refusal that names the module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.adapters import write_scaled
from registry.errors import GateRefusedError, UserError
from registry.merge import (
    check_merged,
    check_saved,
    merge_adapter,
    merged_weights,
    read_deltas,
    save_merged,
)
from registry.models import BaseSpec, LoadedModel, load_model
from registry.parity import BOUNDS, distance, logits_of, prompt_tokens
from tests import tiny_models

MODULES = [
    f"model.layers.{layer}.{part}"
    for layer in range(3)
    for part in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
]


@dataclass
class Case:
    loaded: LoadedModel
    adapter: Path
    reference: np.ndarray[Any, Any]
    merged: dict[str, torch.Tensor]
    folder: Path


def prepare(folder: Path, dtype: str = "fp32", kind: str = "llama", scale: float = 1.0) -> Case:
    base = tiny_models.save(folder / "base", kind)
    conv = {"fan_in_fan_out": True} if kind == "gpt2" else {}
    adapter = tiny_models.save_adapter(folder / "adapter", base, **conv)
    if scale != 1.0:
        tensors = load_file(adapter / "adapter_model.safetensors")
        scaled = {n: t * (scale if "lora_B" in n else 1.0) for n, t in tensors.items()}
        save_file(scaled, adapter / "adapter_model.safetensors")
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype=dtype), folder)
    loaded.use(adapter)
    reference = logits_of(loaded.model, prompt_tokens(loaded))
    deltas = read_deltas(loaded, adapter)
    loaded.use(None)
    return Case(loaded, adapter, reference, merged_weights(loaded, deltas), folder)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return prepare(tmp_path_factory.mktemp("merge"))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("fp32", "llama"), ("bf16", "llama"), ("fp32", "gpt2")]
)
def test_a_merged_model_answers_the_same_here_and_in_a_new_process(tmp_path, dtype, kind) -> None:
    case = prepare(tmp_path, dtype, kind)
    before = logits_of(case.loaded.model, prompt_tokens(case.loaded))
    parity = merge_adapter(case.loaded, case.adapter, tmp_path / "out")
    assert parity.merged <= BOUNDS[dtype]
    assert parity.reloaded <= BOUNDS[dtype]
    assert parity.moved > 0.2  # the adapter does something: parity with it means something
    if dtype == "fp32":
        assert parity.reloaded < 1e-5
    after = logits_of(case.loaded.model, prompt_tokens(case.loaded))
    assert np.array_equal(before, after)  # the loaded base is as it was
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.safetensors", "config.json", "generation_config.json"}
    assert names >= {"tokenizer.json", "chat_template.jinja"}
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    for path in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize("module", MODULES)
def test_one_lost_delta_is_refused_by_name(case, module) -> None:
    dropped = {n: w for n, w in case.merged.items() if n != f"{module}.weight"}
    assert len(dropped) == len(case.merged) - 1
    assert (
        distance(case.reference, logits_of(case.loaded.model, prompt_tokens(case.loaded), dropped))
        > 10 * BOUNDS["fp32"]
    )
    with pytest.raises(GateRefusedError, match=rf"what differs: {module}$"):
        check_merged(case.loaded, case.adapter, dropped, case.reference)


def test_a_lost_delta_too_small_for_the_logits_is_refused_by_name(tmp_path) -> None:
    case = prepare(tmp_path, scale=1e-4)
    lost = "model.layers.1.mlp.up_proj"
    dropped = {n: w for n, w in case.merged.items() if n != f"{lost}.weight"}
    logits = logits_of(case.loaded.model, prompt_tokens(case.loaded), dropped)
    assert distance(case.reference, logits) < BOUNDS["fp32"]
    with pytest.raises(GateRefusedError, match=lost):
        check_merged(case.loaded, case.adapter, dropped, case.reference)
    assert check_merged(case.loaded, case.adapter, case.merged, case.reference) < 1e-5


def test_a_scaling_that_was_squared_is_refused(case) -> None:
    own = dict(case.loaded.model.named_parameters())
    twice = {n: own[n] + 2 * (w - own[n]) for n, w in case.merged.items()}
    with pytest.raises(GateRefusedError, match=f"and {len(MODULES) - 3} more"):
        check_merged(case.loaded, case.adapter, twice, case.reference)


def test_a_saved_weight_that_is_the_base_again_is_refused_by_name(case, tmp_path) -> None:
    save_merged(case.loaded, case.merged, tmp_path)
    lost = "model.layers.2.self_attn.v_proj"
    saved = load_file(tmp_path / "model.safetensors")
    saved[f"{lost}.weight"] = dict(case.loaded.model.named_parameters())[f"{lost}.weight"].clone()
    save_file(saved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GateRefusedError, match=f"new process.*what differs: {lost}$"):
        check_saved(case.loaded, case.merged, tmp_path, case.reference)


def _changed(case: Case, folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    config = json.loads((case.adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    weights = (case.adapter / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]},
        {"ensure_weight_tying": True},
        {"peft_type": "IA3"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_kinds_are_refused_by_name(case, tmp_path, changes) -> None:
    adapter = _changed(case, tmp_path / "other", **changes)
    named = next(iter(changes)) if "peft_type" not in changes else "IA3"
    with pytest.raises(UserError, match=named):
        merge_adapter(case.loaded, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns that this can't end well
def test_a_tied_lm_head_is_refused(tmp_path) -> None:
    base = tiny_models.save(tmp_path / "base", "llama", tie_word_embeddings=True)
    adapter = tiny_models.save_adapter(
        tmp_path / "adapter", base, target_modules=["lm_head", "q_proj"]
    )
    loaded = load_model("tied", BaseSpec(model=str(base)), tmp_path)
    with pytest.raises(UserError, match="lm_head is tied"):
        merge_adapter(loaded, adapter, tmp_path / "out")


def test_a_scaled_adapter_is_the_adapter_at_that_scale(case, tmp_path) -> None:
    write_scaled(case.adapter, 0.7, tmp_path / "scaled")
    tokens = prompt_tokens(case.loaded)
    case.loaded.use(case.adapter, 0.7)
    wanted = logits_of(case.loaded.model, tokens)
    case.loaded.use(tmp_path / "scaled")
    found = logits_of(case.loaded.model, tokens)
    case.loaded.use(None)
    assert distance(wanted, found) < 1e-5
    assert distance(case.reference, found) > 0.05
