"""A base is the base again after an adapter of any kind was on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.models.base import BaseSpec
from registry.models.load import LoadedModel, load_model
from tests.support.tiny_models import save, save_adapter

TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    save(tmp_path / "base", "llama", attention_bias=True)
    return load_model("base", BaseSpec(model="base"), tmp_path)


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(TOKENS).logits


def spoil(folder: Path, *names: str) -> Path:
    """Make what an adapter brings beside its matrices differ from the base's."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    changed = [name for name in tensors if any(one in name for one in names)]
    assert changed
    save_file({k: v + 0.3 if k in changed else v for k, v in tensors.items()}, path)
    return folder


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"modules_to_save": ["lm_head"]}, ("lm_head",)),
        ({"bias": "all", "target_modules": ["q_proj", "v_proj"]}, (".bias",)),
        ({"bias": "lora_only", "target_modules": ["q_proj", "v_proj"]}, (".bias",)),
        ({}, ("lora_B",)),
    ],
)
def test_taken_off_it_leaves_nothing(
    loaded: LoadedModel, tmp_path: Path, changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    adapter = spoil(save_adapter(tmp_path / "adapter", tmp_path / "base", **changes), *names)
    plain = save_adapter(tmp_path / "plain", tmp_path / "base", seed=2)
    before = logits(loaded)
    loaded.use(plain)
    other = logits(loaded)
    loaded.use(adapter)
    on = logits(loaded)
    assert (on - before).abs().max() > 0.05
    loaded.use(plain)
    assert torch.equal(logits(loaded), other)
    loaded.use(adapter)
    assert torch.equal(logits(loaded), on)
    loaded.use(None)
    assert torch.equal(logits(loaded), before)
