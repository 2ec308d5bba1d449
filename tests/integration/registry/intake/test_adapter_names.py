"""Adapters whose tensors have other names than PEFT gives them today, or more than their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.errors import UserError
from registry.intake.adapter_places import check_fits
from registry.models.base import BaseSpec
from registry.models.load import nano_folder
from tests.support.tiny_models import save_adapter

pytestmark = [
    # What PEFT says to whoever trains on tied layers, and of patterns for fused experts.
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
]

WEIGHTS = "adapter_model.safetensors"
HEAD = "base_model.model.lm_head.base_layer.weight"
SIZE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def base(folder: Path, config: Any) -> Path:
    """A model of random weights, as save_pretrained leaves it."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    given = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(given), "utf-8")
    save_file(tensors, folder / WEIGHTS)
    return folder


def answers(model: Path, adapter: Path) -> torch.Tensor:
    """Logits of the base with an adapter, as PEFT loads it; no tensor may be left without place."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    put = PeftModel.from_pretrained(loaded, str(adapter)).eval()
    with torch.no_grad():
        return torch.as_tensor(put(torch.arange(12)[None]).logits)


@pytest.fixture
def with_head(tmp_path: Path) -> Path:
    folder = save_adapter(tmp_path / "a", nano_folder(), target_modules=["q_proj", "lm_head"])
    assert HEAD in load_file(folder / WEIGHTS)
    return folder


def test_a_layer_of_the_base_that_was_saved_along_is_left_out(
    with_head: Path, tmp_path: Path
) -> None:
    before = answers(nano_folder(), with_head)
    check_fits(with_head, "nano", BaseSpec(model="nano"), tmp_path)
    assert not [name for name in load_file(with_head / WEIGHTS) if ".lora_" not in name]
    assert torch.equal(answers(nano_folder(), with_head), before)


def test_a_layer_that_is_not_the_base_s_own_is_refused(with_head: Path, tmp_path: Path) -> None:
    tensors = load_file(with_head / WEIGHTS)
    tensors[HEAD][3, 3] += 0.01
    save_file(tensors, with_head / WEIGHTS)
    with pytest.raises(UserError, match=r"it holds .*lm_head.* is not what base nano has there"):
        check_fits(with_head, "nano", BaseSpec(model="nano"), tmp_path)


def test_lora_of_each_expert_is_taken_as_peft_takes_it(tmp_path: Path) -> None:
    from transformers import MixtralConfig

    model = base(
        tmp_path / "base", MixtralConfig(**SIZE, num_local_experts=2, num_experts_per_tok=1)
    )
    torch.manual_seed(1)
    sides = {"w1": (32, 16), "w2": (16, 32), "w3": (32, 16)}
    tensors = {}
    for layer, expert, (name, (rows, columns)) in [
        (layer, expert, side) for layer in (0, 1) for expert in (0, 1) for side in sides.items()
    ]:
        at = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
        tensors[f"{at}.lora_A.weight"] = torch.randn(2, columns)
        tensors[f"{at}.lora_B.weight"] = torch.randn(rows, 2)
    folder = write(tmp_path / "a", tensors, target_modules=["w1", "w2", "w3"])
    before = answers(model, folder)
    check_fits(folder, "b", BaseSpec(model=str(model)), tmp_path)
    assert all("mlp.experts" in name for name in load_file(folder / WEIGHTS))
    torch.testing.assert_close(answers(model, folder), before)
    check_fits(folder, "b", BaseSpec(model=str(model)), tmp_path)  # as its own names are


def test_prefixes_of_an_older_gemma_3_are_taken_as_peft_takes_them(tmp_path: Path) -> None:
    from transformers import Gemma3Config

    eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = Gemma3Config(
        text_config={**SIZE, "sliding_window": 8, "query_pre_attn_scalar": 8},
        vision_config={**eye, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    model = base(tmp_path / "base", config)
    torch.manual_seed(1)
    tensors = {
        f"base_model.model.language_model.model.layers.{layer}.self_attn.q_proj.{name}.weight": (
            torch.randn(*shape)
        )
        for layer in (0, 1)
        for name, shape in {"lora_A": (2, 16), "lora_B": (16, 2)}.items()
    }
    target = r".*language_model.*\.q_proj"
    folder = write(tmp_path / "a", tensors, target_modules=target)
    check_fits(folder, "b", BaseSpec(model=str(model)), tmp_path)
    now = load_file(folder / WEIGHTS)
    old = "base_model.model.language_model.model.layers"
    new = "base_model.model.model.language_model.layers"
    assert {name.replace(new, old) for name in now} == tensors.keys()
    assert all(torch.equal(one, tensors[name.replace(new, old)]) for name, one in now.items())
