"""What gets LoRA, and what does not: routers, pictures' parts, layers that are passed by, heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from pipeline.training.fit import fit
from pipeline.training.methods import methods
from pipeline.training.methods.targets import lora_targets
from registry.errors import UserError
from registry.merge.one import merge_adapter
from registry.models.load import LoadedModel
from registry.models.parity import distance, logits_of, prompt_tokens
from tests.architectures.chain import SPEC, plainly, rows

Base = Callable[..., LoadedModel]


def spec(**changes: Any) -> Any:
    return SPEC.model_copy(update=changes)


def last_names(names: Any) -> set[str]:
    return {".".join(re.sub(r"\.\d+\.", ".", name).split(".")[-2:]) for name in names}


@pytest.mark.parametrize(
    ("kind", "router", "wanted"),
    [
        ("mixtral", "gate", {"self_attn.q_proj", "experts.gate_up_proj", "experts.down_proj"}),
        ("qwen2_moe", "gate, shared_expert_gate", {"shared_expert.up_proj", "experts.down_proj"}),
        ("deepseek_v3", "gate", {"mlp.up_proj", "shared_experts.down_proj", "experts.down_proj"}),
        ("phimoe", "router", {"self_attn.q_proj", "experts.gate_up_proj"}),
        ("llama4_text", "router", {"shared_expert.gate_proj", "experts.gate_up_proj"}),
        ("qwen3_next", "gate, shared_expert_gate", {"linear_attn.out_proj"}),
    ],
)
def test_attention_and_experts_are_trained_and_the_router_is_not(
    base: Base, kind: str, router: str, wanted: set[str]
) -> None:
    found = lora_targets(base(kind).model, SPEC)
    names = last_names([*found.layers, *found.weights])
    assert wanted <= names
    assert not {name for name in names if re.search(r"router|\.gate$|expert_gate", name)}
    assert f"the router ({router}) is left as it is" in found.left[0]


@pytest.mark.parametrize("method", ["dora", "pissa"])
def test_a_method_that_is_not_for_experts_is_refused_before_the_first_step(
    base: Base, tmp_path: Path, method: str
) -> None:
    with pytest.raises(UserError, match=f"{method} is not for the weights of experts.*down_proj"):
        fit(base("mixtral"), rows(), spec(method=method), tmp_path)
    named = lora_targets(base("mixtral").model, spec(method=method, targets=("q_proj",)))
    assert last_names(named.layers) == {"self_attn.q_proj"}
    assert named.patterns == {"q_proj"}


def test_experts_can_be_named(base: Base) -> None:
    model = base("deepseek_v3").model
    assert not lora_targets(model, spec(targets=("experts",))).layers
    found = lora_targets(model, spec(targets=("down_proj",)))
    assert last_names(found.weights) == {"experts.down_proj"}
    assert last_names(found.layers) == {"mlp.down_proj", "shared_experts.down_proj"}


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl", "llava"])
def test_of_a_wrapper_the_part_that_reads_text_is_trained(base: Base, kind: str) -> None:
    model = base(kind).model
    found = lora_targets(model, SPEC)
    assert found.layers
    assert all("language_model" in name for name in found.layers)
    assert "reads text alone (model.language_model)" in found.left[0]
    with methods.trained_weights(base(kind), spec(method="freeze", layers=1)) as trained:
        names = [n for n, p in trained.model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("model.language_model.layers.1.") for name in names)
    with pytest.raises(UserError, match="the base has 2 layers, and the last 3"):
        methods.trained_weights(base(kind), spec(method="freeze", layers=3)).__enter__()
    with methods.trained_weights(base(kind), spec(method="full")) as trained:
        names = [n for n, p in trained.model.named_parameters() if p.requires_grad]
    assert not [name for name in names if "vis" in name or "projector" in name]
    assert any("embed_tokens" in name for name in names)


@pytest.mark.parametrize(
    ("kind", "out", "wanted"),
    [
        ("falcon_h1", "out_proj", {"mamba.in_proj", "self_attn.o_proj"}),
        ("mamba", "dt_proj, out_proj", {"mixer.in_proj", "mixer.x_proj"}),
    ],
)
def test_a_hybrid_gets_the_targets_that_have_an_effect(
    base: Base, kind: str, out: str, wanted: set[str]
) -> None:
    model = base(kind).model
    state = torch.get_rng_state()
    found = lora_targets(model, SPEC)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert wanted <= last_names(found.layers)
    assert found.left == (
        f"LoRA is not on {out}: this architecture uses their weights past their layers",
    )
    with pytest.raises(UserError, match="out_proj can't have LoRA: this architecture uses its"):
        lora_targets(model, spec(targets=("out_proj",)))


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("phimoe", "router", "'router' chooses among experts, and a router is not trained"),
        ("mixtral", "gate", "'gate' chooses among experts, and a router is not trained"),
        ("gemma3", "fc1", r"'fc1' reads no text: it is outside model\.language_model"),
        ("llama", "norm", r"no linear layer 'norm' \(it is a LlamaRMSNorm\)"),
    ],
)
def test_a_target_that_is_not_trained_says_why(
    base: Base, kind: str, target: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        lora_targets(base(kind).model, spec(targets=(target,)))
    assert "train.targets" in str(raised.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_head_and_embeddings_can_be_named(
    base: Base, tmp_path: Path, target: str, *, tied: bool
) -> None:
    loaded = base("llama", tie_word_embeddings=tied)
    tokens = prompt_tokens(loaded)
    before = logits_of(loaded.model, tokens)
    run = spec(targets=(target, "q_proj"), rank=4)
    found = fit(loaded, rows(), run, tmp_path / "run")
    assert found.losses[-1].loss < found.losses[0].loss
    file = load_file(found.adapter_dir / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in file.values()) == found.trainable
    assert any(target in name and bool(one.any()) for name, one in file.items() if "_B" in name)
    assert (logits_of(loaded.model, tokens) == before).all()
    folder = Path(loaded.model.config._name_or_path)
    tuned = logits_of(plainly(folder, found.adapter_dir), tokens)
    loaded.use(found.adapter_dir)
    assert distance(tuned, logits_of(loaded.model, tokens)) < 1e-6
    loaded.use(None)
    merge_adapter(loaded, found.adapter_dir, tmp_path / "merged")
    assert distance(tuned, logits_of(plainly(tmp_path / "merged"), tokens)) < 1e-5
    assert isinstance(loaded.model, torch.nn.Module)
    assert not isinstance(loaded.model, PeftModel)


def test_pissa_has_no_start_for_embeddings(base: Base) -> None:
    with pytest.raises(UserError, match="pissa has no start for embeddings"):
        lora_targets(base("llama").model, spec(method="pissa", targets=("embed_tokens",)))
