"""How far two adapters are apart, against the deltas themselves in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.models.distance import differences
from registry.models.files import read_adapter_config
from tests.support import tiny_models

MODULES = ("model.layers.0.q_proj", "model.layers.0.k_proj")


def write(folder: Path, seed: int, rank: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in MODULES:
        for side, shape in (("A", (rank, 8)), ("B", (6, rank))):
            name = f"base_model.model.{module}.lora_{side}.weight"
            tensors[name] = torch.randn(shape, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


def delta(tensors: dict[str, torch.Tensor], module: str, scale: float) -> torch.Tensor:
    name = f"base_model.model.{module}.lora_"
    return scale * tensors[f"{name}B.weight"].double() @ tensors[f"{name}A.weight"].double()


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({"r": 3, "lora_alpha": 6}, (2, 2)),
        ({"r": 3, "lora_alpha": 6, "use_rslora": True}, (6 / math.sqrt(3),) * 2),
        ({"r": 3, "lora_alpha": 6, "alpha_pattern": {"q_proj": 30}}, (10, 2)),
        ({"r": 9, "lora_alpha": 6, "rank_pattern": {"q_proj": 3, "k_proj": 3}}, (2, 2)),
    ],
)
def test_it_is_that_of_the_deltas(
    tmp_path: Path, config: dict[str, Any], scales: tuple[float, float]
) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    plain = {"r": 3, "lora_alpha": 3}
    found = differences(tmp_path / "a", plain, tmp_path / "b", config)
    for module, scale in zip(MODULES, scales, strict=True):
        one, other = delta(first, module, 1), delta(second, module, scale)
        expected = float((other - one).norm() / one.norm())
        assert found[module] == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_it_scales_as_peft_does(tmp_path: Path) -> None:
    """Against the weights of a merged model, which is what PEFT itself makes of an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tiny_models.save(tmp_path / "base", "llama")
    settings: dict[str, Any] = {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6},
        "alpha_pattern": {"layers.1.*": 5, "q_proj": 3, "(up|down)_proj": 7},
        "target_modules": [*("q_proj", "k_proj", "up_proj", "down_proj"), "embed_tokens"],
    }
    folders = [
        tiny_models.save_adapter(tmp_path / "a", base, seed=1, target_modules="all-linear"),
        tiny_models.save_adapter(tmp_path / "b", base, seed=2, **settings),
        tiny_models.save_adapter(tmp_path / "c", base, seed=3, use_rslora=True, **settings),
    ]
    for folder in folders:
        weights = load_file(folder / "adapter_model.safetensors")
        drawn = {k: torch.randn(v.shape) if ".lora_" in k else v for k, v in weights.items()}
        save_file(drawn, folder / "adapter_model.safetensors", {"format": "pt"})
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    own = {name: weight.clone() for name, weight in plain.named_parameters()}
    deltas, configs = [], [read_adapter_config(folder) for folder in folders]
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        deltas.append({k: (v - own[k]).detach() for k, v in merged.named_parameters()})
    for one, other, embedded in ((0, 1, False), (1, 2, True), (2, 0, False)):
        found = differences(folders[one], configs[one], folders[other], configs[other])
        assert len(found) == 3 * 4 + embedded
        for module, apart in found.items():
            first, second = (deltas[k][f"{module}.weight"] for k in (one, other))
            assert apart == pytest.approx(float((second - first).norm() / first.norm()), rel=1e-4)


def test_a_bias_counts(tmp_path: Path) -> None:
    name = f"base_model.model.{MODULES[0]}.lora_B.bias"
    tensors = [write(tmp_path / folder, seed) for seed, folder in enumerate("ab")]
    for folder, own in zip("ab", tensors, strict=True):
        own[name] = torch.randn(6)
        save_file(own, tmp_path / folder / "adapter_model.safetensors")
    config = {"r": 3, "lora_alpha": 6}
    found = differences(tmp_path / "a", config, tmp_path / "b", config)
    one, other = (torch.cat([delta(own, MODULES[0], 2), 2 * own[name].double()[:, None]], 1)
                  for own in tensors)  # fmt: skip
    assert found[MODULES[0]] == pytest.approx(float((other - one).norm() / one.norm()), rel=1e-9)


def test_a_module_with_dora_is_left_out_alone(tmp_path: Path) -> None:
    tensors = write(tmp_path / "a", 1)
    tensors[f"base_model.model.{MODULES[0]}.lora_magnitude_vector"] = torch.ones(6)
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    config = {"r": 3, "lora_alpha": 3}
    assert list(differences(tmp_path / "a", config, tmp_path / "a", config)) == [MODULES[1]]


def test_modules_with_targeted_parameters_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    config = {"r": 3, "lora_alpha": 3, "target_parameters": ["q_proj.weight"]}
    assert list(differences(tmp_path / "a", config, tmp_path / "a", config)) == [MODULES[1]]


def test_what_depends_on_the_base_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    config = {"r": 3, "lora_alpha": 3}
    assert differences(tmp_path / "a", config, tmp_path / "a", config | {"use_dora": True}) == {}
