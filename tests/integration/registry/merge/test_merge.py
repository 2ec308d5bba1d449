"""Merging: the same logits in memory and in a new process, or a refusal that names the module."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from registry.errors import GateRefusedError, UserError
from registry.merge.changes import LowRank, read_changes
from registry.merge.one import merge_adapter, targets_of
from registry.merge.proof import check_merged, check_saved, refuse_unlike_peft
from registry.merge.weights import (
    Targets,
    Weights,
    kept_as_loaded,
    merged_weights,
    save_merged,
    unlike_saved,
)
from registry.models.adapters import write_scaled
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.models.parity import BOUNDS, distance, logits_in_new_process, logits_of, prompt_tokens
from tests.support import tiny_models

# PEFT warns of what it does wrong itself: tied weights, whole modules, biases of no layer.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

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
    targets: Targets
    merged: Weights

    @property
    def tokens(self) -> list[list[int]]:
        return prompt_tokens(self.loaded)

    def check(self, merged: Weights) -> float:
        found = check_merged(self.loaded, merged, self.targets, self.reference, self.tokens)
        return distance(self.reference, found)


@dataclass(frozen=True)
class Kind:
    """A kind of adapter on a kind of base."""

    base: str = "llama"
    tied: bool = False
    untied: bool = False  # the merged model has to be
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


GPT2: dict[str, Any] = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
PATTERNS = {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6}}
PATTERNS |= {"alpha_pattern": {"k_proj": 1, "layers.2.self_attn.q_proj": 3}}
EMBED = {"target_modules": ["embed_tokens", "q_proj"]}
HEAD = {"target_modules": ["lm_head", "q_proj"]}
ENSURE = {"ensure_weight_tying": True}
KINDS = {
    "rslora": Kind(settings={"use_rslora": True}),
    "patterns": Kind(settings=PATTERNS),
    "rslora with patterns": Kind(settings={"use_rslora": True, **PATTERNS}),
    "dora": Kind(settings={"use_dora": True}),
    "dora on Conv1D and embedding": Kind(
        "gpt2", True, True, settings={**GPT2, "target_modules": ["c_attn", "wte"], "use_dora": True}
    ),
    "Conv1D": Kind("gpt2", True, settings=GPT2),
    "lora_bias": Kind("gpt2", True, settings={**GPT2, "lora_bias": True}),
    "lora_bias, rslora": Kind(
        "gpt2", True, settings={**GPT2, "lora_bias": True, "use_rslora": True}
    ),
    "a parameter by itself": Kind(
        settings={"target_modules": ["v_proj"], "target_parameters": ["q_proj.weight"]}
    ),
    "all biases": Kind("gpt2", True, settings={**GPT2, "bias": "all"}),
    "biases of LoRA's layers": Kind(
        config={"attention_bias": True}, settings={"bias": "lora_only"}
    ),
    "embedding": Kind(settings=EMBED),
    "embedding that is scaled": Kind("gemma3", True, True, settings=EMBED),
    "whole LM head": Kind(settings={"modules_to_save": ["lm_head"]}),
    "whole norms": Kind(settings={"modules_to_save": ["norm"]}),
    "tokens": Kind(settings={"trainable_token_indices": [1, 5, 300]}),
    "tied: embedding": Kind(tied=True, untied=True, settings=EMBED),
    "tied: LM head": Kind(tied=True, untied=True, settings=HEAD),
    "tied: both, ensured": Kind(tied=True, settings={**EMBED, **ENSURE}),
    "tied: whole LM head": Kind(tied=True, untied=True, settings={"modules_to_save": ["lm_head"]}),
    "tied: whole LM head, ensured": Kind(
        tied=True, settings={"modules_to_save": ["lm_head"], **ENSURE}
    ),
    "tied: tokens": Kind(tied=True, settings={"trainable_token_indices": [1, 5, 300]}),
}


def save_kind(folder: Path, kind: Kind) -> tuple[Path, Path]:
    """A base, and an adapter of this kind whose every trained value was moved at random."""
    tied = {"tie_word_embeddings": True} if kind.tied and kind.base != "gpt2" else {}
    base = tiny_models.save(folder / "base", kind.base, **tied, **kind.config)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **kind.settings}
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(**config, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.add_(torch.randn_like(weight) * 0.15)
    wrapped.save_pretrained(folder / "adapter")
    return base, folder / "adapter"


@contextmanager
def prepared(
    folder: Path, dtype: str = "fp32", kind: str = "llama", scale: float = 1.0
) -> Iterator[Case]:
    base = tiny_models.save(folder / "base", kind)
    conv = {"fan_in_fan_out": True} if kind == "gpt2" else {}
    adapter = tiny_models.save_adapter(folder / "adapter", base, **conv)
    if scale != 1.0:
        tensors = load_file(adapter / "adapter_model.safetensors")
        scaled = {n: t * (scale if "lora_B" in n else 1.0) for n, t in tensors.items()}
        save_file(scaled, adapter / "adapter_model.safetensors")
    with merged_in_memory(folder, base, adapter, dtype) as case:
        yield case


@contextmanager
def merged_in_memory(
    folder: Path, base: Path, adapter: Path, dtype: str = "fp32"
) -> Iterator[Case]:
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype=dtype), folder)
    with kept_as_loaded(loaded, [adapter]) as kept:
        targets, reference = targets_of(loaded, adapter, kept)
        yield Case(loaded, adapter, reference, targets, merged_weights(targets))


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Iterator[Case]:
    with ExitStack() as stack:
        yield stack.enter_context(prepared(tmp_path_factory.mktemp("merge")))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("fp32", "llama"), ("bf16", "llama"), ("fp32", "gpt2")]
)
def test_a_merged_model_answers_the_same_here_and_in_a_new_process(
    tmp_path, request, dtype, kind
) -> None:
    with prepared(tmp_path, dtype, kind) as case:
        loaded, adapter = case.loaded, case.adapter
    before = logits_of(loaded.model, prompt_tokens(loaded))
    parity = merge_adapter(loaded, adapter, tmp_path / "out").parity
    assert parity.merged <= BOUNDS[dtype]
    assert parity.reloaded <= BOUNDS[dtype]
    assert parity.moved > 0.2  # the adapter does something: parity with it means something
    if dtype == "fp32":
        assert parity.reloaded < 1e-5
    if (dtype, kind) == ("fp32", "llama"):  # in a Python of its own, as users have it
        request.getfixturevalue("python_of_its_own")
        there = logits_in_new_process(tmp_path / "out", case.tokens)
        assert distance(case.reference, there) < 1e-5
    after = logits_of(loaded.model, prompt_tokens(loaded))
    assert np.array_equal(before, after)  # the loaded base is as it was
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.safetensors", "config.json", "generation_config.json"}
    assert names >= {"tokenizer.json", "chat_template.jinja"}
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    for path in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in path.read_text()


def exact_logits(base: Path, adapter: Path | None, tokens: list[list[int]]) -> torch.Tensor:
    """The logits in float64 throughout, with the adapter on by PEFT."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).double().eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([row])).logits[0] for row in tokens])


def off(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).abs().max() / reference.abs().max())


# In the long test alone: what these have, another one has too, with something else beside it.
PARTS = {"rslora", "patterns", "Conv1D", "lora_bias"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.soak) if one in PARTS else one for one in KINDS],
)
def test_every_kind_is_merged_as_float64_says(tmp_path, name) -> None:
    """Merged, saved and loaded in float64: what is left is the rounding of the weights to fp32."""
    kind = KINDS[name]
    base, adapter = save_kind(tmp_path, kind)
    with merged_in_memory(tmp_path, base, adapter) as case:
        tokens = case.tokens
        assert case.check(case.merged) < 1e-5
        assert bool(case.targets.parted()) == kind.untied
        save_merged(case.loaded, case.merged, tmp_path / "out")
        exact = exact_logits(base, adapter, tokens)
        assert off(exact, exact_logits(base, None, tokens)) > 0.05
        assert off(exact, exact_logits(tmp_path / "out", None, tokens)) < 2e-6
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config.get("tie_word_embeddings", False) == (kind.tied and not kind.untied)
        # A module's change is missed: by its name, and by the logits where they show it. Every
        # third, as a layer has seven: each of the seven, in one layer or another.
        names = list(case.targets.names)
        for lost in names[::3] if len(names) > 5 else names:
            dropped = {n: w for n, w in case.merged.items() if n != lost}
            with pytest.raises(GateRefusedError, match="what differs: "):
                case.check(dropped)
        lost = case.targets.names[0]
        wrong = {**case.merged, lost: case.targets.base[lost]}
        with pytest.raises(GateRefusedError, match=f"differs: {lost.removesuffix('.weight')}"):
            case.check(wrong)
    again = load_model("again", BaseSpec(model=str(base)), tmp_path)
    plain, other = (logits_of(one.model, tokens) for one in (again, case.loaded))
    assert np.array_equal(plain, other)  # PEFT left nothing behind


@pytest.mark.soak  # the test above loads the same files in this process
@pytest.mark.parametrize(
    "name", ["tied: LM head", "tied: whole LM head, ensured", "tied: tokens", "all biases"]
)
def test_tied_and_untied_models_load_in_a_new_process(tmp_path, name) -> None:
    kind = KINDS[name]
    base, adapter = save_kind(tmp_path, kind)
    loaded = load_model("tiny", BaseSpec(model=str(base)), tmp_path)
    parity = merge_adapter(loaded, adapter, tmp_path / "out").parity
    assert parity.reloaded < 1e-5
    assert parity.untied == kind.untied


@pytest.mark.parametrize("name", ["rslora", "dora", "lora_bias", "embedding", "tied: tokens"])
def test_a_formula_that_is_not_peft_s_is_refused_by_name(tmp_path, name) -> None:
    base, adapter = save_kind(tmp_path, KINDS[name])
    loaded = load_model("tiny", BaseSpec(model=str(base)), tmp_path)
    with kept_as_loaded(loaded, [adapter]) as kept:
        loaded.use(adapter)
        changes = read_changes(loaded, adapter, kept.base)
        refuse_unlike_peft(loaded, adapter, changes, kept.base)
        for lost in changes:
            fewer = {n: c for n, c in changes.items() if n != lost}
            module = lost.rpartition(".")[0]
            with pytest.raises(GateRefusedError, match=rf"what differs: {module}$"):
                refuse_unlike_peft(loaded, adapter, fewer, kept.base)
        if name == "rslora":  # scaled by the rank and not by its root
            wrong = {
                n: LowRank(c.a, c.b, c.scaling / 2, c.flip) if isinstance(c, LowRank) else c
                for n, c in changes.items()
            }
            with pytest.raises(GateRefusedError, match=f"and {len(MODULES) - 3} more"):
                refuse_unlike_peft(loaded, adapter, wrong, kept.base)


@pytest.mark.parametrize("module", MODULES)
def test_one_lost_delta_is_refused_by_name(case, module) -> None:
    dropped = {n: w for n, w in case.merged.items() if n != f"{module}.weight"}
    assert len(dropped) == len(case.merged) - 1
    logits = logits_of(case.loaded.model, case.tokens, dropped)
    assert distance(case.reference, logits) > 10 * BOUNDS["fp32"]
    with pytest.raises(GateRefusedError, match=rf"what differs: {module}$"):
        case.check(dropped)


def test_a_lost_delta_too_small_for_the_logits_is_refused_by_name(tmp_path) -> None:
    with prepared(tmp_path, scale=1e-4) as case:
        lost = "model.layers.1.mlp.up_proj"
        dropped = {n: w for n, w in case.merged.items() if n != f"{lost}.weight"}
        logits = logits_of(case.loaded.model, case.tokens, dropped)
        assert distance(case.reference, logits) < BOUNDS["fp32"]
        with pytest.raises(GateRefusedError, match=lost):
            case.check(dropped)
        assert case.check(case.merged) < 1e-5


def test_a_scaling_that_was_squared_is_refused(case) -> None:
    own = dict(case.loaded.model.named_parameters())
    twice = {n: own[n] + 2 * (w - own[n]) for n, w in case.merged.items()}
    with pytest.raises(GateRefusedError, match=f"and {len(MODULES) - 3} more"):
        case.check(twice)


def test_a_saved_weight_that_is_the_base_again_is_refused_by_name(case, tmp_path) -> None:
    save_merged(case.loaded, case.merged, tmp_path)
    lost = "model.layers.2.self_attn.v_proj"
    saved = load_file(tmp_path / "model.safetensors")
    saved[f"{lost}.weight"] = dict(case.loaded.model.named_parameters())[f"{lost}.weight"].clone()
    save_file(saved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GateRefusedError, match=f"new process.*what differs: {lost}$"):
        check_saved(case.loaded, case.merged, tmp_path, case.reference, case.tokens)


def test_experts_that_a_file_names_one_by_one_are_no_difference(tmp_path) -> None:
    base = tiny_models.save(tmp_path / "base", "jamba")
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    with merged_in_memory(tmp_path, base, adapter) as case:
        save_merged(case.loaded, case.merged, tmp_path / "out")
        assert any(".experts.0." in n for n in load_file(tmp_path / "out" / "model.safetensors"))
        assert unlike_saved(case.loaded, case.merged, tmp_path / "out") == []
        lost = case.targets.names[0]
        dropped = {n: w for n, w in case.merged.items() if n != lost}
        module = lost.removesuffix(".weight")
        assert unlike_saved(case.loaded, dropped, tmp_path / "out") == [module]


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
        {"alora_invocation_tokens": [1]},
        {"layer_replication": [[0, 2]]},
        {"arrow_config": {"top_k": 1}},
        {"kasa_config": {"beta": 0.1}},
        {"velora_config": {"num_groups": 4}},
        {"monteclora_config": {"num_samples": 2}},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"init_lora_weights": "pissa"},
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


def test_a_tensor_that_is_no_parameter_of_the_base_is_refused_by_name(case, tmp_path) -> None:
    adapter = _changed(case, tmp_path / "more")
    tensors = load_file(adapter / "adapter_model.safetensors")
    head = copy.deepcopy(dict(case.loaded.model.named_parameters())["lm_head.weight"]) + 1
    for key in ("lm_head.weight", "lm_head.base_layer.weight", "model.layers.0.gate.weight"):
        more = tensors | {f"base_model.model.{key}": head.contiguous()}
        save_file(more, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=key.replace(".base_layer", "")):
            merge_adapter(case.loaded, adapter, tmp_path / "out")


def test_lora_s_own_bias_on_a_layer_without_one_is_refused_by_name(tmp_path) -> None:
    base, adapter = save_kind(tmp_path, Kind(settings={"lora_bias": True}))
    loaded = load_model("tiny", BaseSpec(model=str(base)), tmp_path)
    with pytest.raises(UserError, match=r"q_proj\.bias is trained and the base has no such bias"):
        merge_adapter(loaded, adapter, tmp_path / "out")


def test_weights_that_the_config_can_t_untie_are_refused_by_name(tmp_path) -> None:
    base, adapter = save_kind(tmp_path, KINDS["tied: LM head"])
    loaded = load_model("tied", BaseSpec(model=str(base)), tmp_path)
    loaded.model.config.tie_word_embeddings = False  # tied by something else, as it were
    with pytest.raises(UserError, match=r"embed_tokens\.weight is tied to lm_head\.weight"):
        merge_adapter(loaded, adapter, tmp_path / "out")


@pytest.mark.parametrize(
    ("quantize", "dtype", "times"),
    [
        ("nf4", "bf16", 2),
        ("int8", "fp32", 1),  # its activations are rounded too, which no way of merging keeps
        pytest.param("nf4", "fp32", 1e3, marks=pytest.mark.soak),
        pytest.param("fp4", "fp32", 1e3, marks=pytest.mark.soak),
        pytest.param("fp4", "bf16", 2, marks=pytest.mark.soak),
    ],
)
def test_a_quantised_base_is_dequantised_and_the_other_ways_are_measured(
    tmp_path, quantize, dtype, times
) -> None:
    base = tiny_models.save(
        tmp_path / "base", "llama", hidden_size=64, head_dim=16, intermediate_size=128
    )
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base)
    spec = BaseSpec(model=str(base), dtype=dtype, quantize=quantize)
    loaded = load_model("small", spec, tmp_path)
    before = logits_of(loaded.model, prompt_tokens(loaded))
    done = merge_adapter(loaded, adapter, tmp_path / "out")
    ways = done.quantised
    assert ways is not None
    assert ways.dequantised == done.parity.merged <= done.parity.bound
    assert done.parity.reloaded <= done.parity.bound
    assert ways.original is not None
    print(quantize, dtype, ways)
    assert times * ways.dequantised < min(ways.original, ways.in_place)
    assert np.array_equal(before, logits_of(loaded.model, prompt_tokens(loaded)))
    assert loaded.model.is_quantized
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert all(
        t.is_floating_point() for t in load_file(tmp_path / "out/model.safetensors").values()
    )


def test_a_scaled_adapter_is_the_adapter_at_that_scale(case, tmp_path) -> None:
    write_scaled(case.adapter, 0.7, tmp_path / "scaled")
    case.loaded.use(case.adapter, 0.7)
    wanted = logits_of(case.loaded.model, case.tokens)
    case.loaded.use(tmp_path / "scaled")
    found = logits_of(case.loaded.model, case.tokens)
    case.loaded.use(None)
    assert distance(wanted, found) < 1e-5
    assert distance(case.reference, found) > 0.05
