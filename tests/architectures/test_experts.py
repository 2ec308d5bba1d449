"""LoRA on the weights of experts: put on, taken off, merged exactly, and refused when it isn't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from pipeline.training.fit import fit
from registry.errors import GateRefusedError, UserError
from registry.merge import changes as merge_changes
from registry.merge.changes import ExpertsLowRank
from registry.merge.one import merge_adapter
from registry.merge.several import merge_adapters
from registry.merge.spec import read_spec
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.models.parity import distance, logits_of, prompt_tokens
from tests.architectures.chain import SPEC, plainly, rows

Base = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def tuned(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains an adapter on a tiny model and makes its deltas large."""

    def make(kind: str, seed: int = 0, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        spec = SPEC.model_copy(update={"epochs": 1, "seed": seed, **changes})
        made = fit(base(kind), rows(), spec, folder).adapter_dir
        draw = torch.Generator().manual_seed(seed)
        file = load_file(made / "adapter_model.safetensors")
        wide = {
            name: torch.randn(one.shape, generator=draw) * 0.2 if "lora_B" in name else one
            for name, one in file.items()
        }
        save_file(wide, made / "adapter_model.safetensors", metadata={"format": "pt"})
        return made

    return make


@pytest.mark.parametrize(
    "kind",
    [
        "mixtral",
        "gpt_oss",
        *(pytest.param(one, marks=pytest.mark.soak) for one in ("deepseek_v3", "llama4_text")),
    ],
)
def test_each_expert_gets_its_own_delta(
    base: Base, tuned: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    loaded, adapter = base(kind), tuned(kind)
    tokens = prompt_tokens(loaded)
    by_peft = plainly(Path(loaded.model.config._name_or_path), adapter)
    assert isinstance(by_peft, PeftModel)
    tuned_logits = logits_of(by_peft, tokens)
    parity = merge_adapter(loaded, adapter, tmp_path / "merged").parity
    assert parity.moved > 0.1
    assert parity.reloaded < 1e-5
    merged = plainly(tmp_path / "merged")
    assert distance(tuned_logits, logits_of(merged, tokens)) < 1e-5
    wanted = dict(by_peft.merge_and_unload().named_parameters())
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, wanted[name], atol=1e-6, rtol=1e-5)


def test_a_delta_of_one_expert_by_hand() -> None:
    a = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])  # two experts of rank 1, two inputs
    b = torch.tensor([[[1.0], [0.0], [2.0]], [[0.0], [1.0], [0.0]]])  # three outputs
    found = ExpertsLowRank(a, b, 0.5, flip=False).apply(torch.zeros(2, 3, 2))
    wanted = [[[0.5, 1.0], [0.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 1.5], [0.0, 0.0]]]
    assert found.tolist() == wanted
    turned = ExpertsLowRank(a, b, 0.5, flip=True).apply(torch.zeros(2, 2, 3))
    assert torch.equal(turned, found.mT)


@pytest.mark.parametrize("lost", ["an expert", "the scaling", "the order"])
def test_what_is_not_what_peft_computes_is_refused(
    base: Base,
    tuned: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    def wrong(self: ExpertsLowRank, weight: torch.Tensor) -> torch.Tensor:
        a, b, scaling = self.a.double(), self.b.double(), self.scaling
        if lost == "an expert":
            b = b * torch.tensor([1.0, 1.0, 0.0, 1.0])[:, None, None]
        elif lost == "the order":
            b = b.flip(0)
        else:
            scaling *= 1.001
        return weight.double() + scaling * (b @ a)

    monkeypatch.setattr(merge_changes.ExpertsLowRank, "apply", wrong)
    with pytest.raises(GateRefusedError, match=r"PEFT computes something else.*experts"):
        merge_adapter(base("mixtral"), tuned("mixtral"), tmp_path / "merged")


def test_adapters_that_change_other_weights_follow_each_other(
    base: Base, tuned: Callable[..., Path]
) -> None:
    loaded = base("mixtral")
    tokens = prompt_tokens(loaded)
    plain = logits_of(loaded.model, tokens)
    folder = Path(loaded.model.config._name_or_path)
    adapters = [tuned("mixtral"), tuned("mixtral", targets=("down_proj",))]
    adapters += [tuned("mixtral", targets=("q_proj",)), adapters[0]]
    for adapter in adapters:
        loaded.use(adapter)
        wanted = logits_of(plainly(folder, adapter), tokens)
        assert distance(wanted, logits_of(loaded.model, tokens)) < 1e-6
        assert distance(wanted, plain) > 0.01
    loaded.use(None)
    assert (logits_of(loaded.model, tokens) == plain).all()


def test_several_are_merged_with_the_same_proof(
    base: Base, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = base("qwen3_moe")
    pair = [tuned("qwen3_moe", seed=seed) for seed in (1, 2)]
    spec = read_spec({"method": "linear", "weights": [0.5, 0.5]})
    found = merge_adapters(loaded, pair, spec, tmp_path / "merged", tmp_path / "adapter")
    assert found.parity.reloaded < 1e-5
    assert found.parity.moved > 0.01
    assert "experts" in str(found.no_adapter)


def test_in_bf16_the_experts_that_rounding_would_choose_do_not_refuse_a_merge(
    base: Base, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(base("mixtral").model.config._name_or_path)
    loaded = load_model("tiny", BaseSpec(model=str(folder), dtype="bf16"), folder)
    adapter = tuned("mixtral")
    parity = merge_adapter(loaded, adapter, tmp_path / "merged").parity
    assert 0 < parity.merged <= parity.bound
    assert parity.reloaded == 0  # it is the same weights, which choose for themselves
    assert parity.reference.endswith("with its choice of experts")
    spec = read_spec({"method": "linear", "weights": [0.5, 0.5]})
    pair = [adapter, tuned("mixtral", seed=1)]
    found = merge_adapters(loaded, pair, spec, tmp_path / "two", tmp_path / "adapter")
    assert found.parity.merged <= found.parity.bound


def test_in_bf16_on_a_quantised_base_too(
    base: Base, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(base("mixtral").model.config._name_or_path)
    given = BaseSpec(model=str(folder), dtype="bf16", quantize="nf4")
    found = merge_adapter(load_model("tiny", given, folder), tuned("mixtral"), tmp_path / "merged")
    assert found.quantised is not None
    assert found.quantised.dequantised <= found.parity.bound
    assert found.parity.reference.endswith("by PEFT, with its choice of experts")


def test_the_files_are_the_same_every_time(base: Base, tmp_path: Path) -> None:
    one, other = (fit(base("deepseek_v3"), rows(), SPEC, tmp_path / name) for name in "ab")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one.adapter_dir / name).read_bytes() == (other.adapter_dir / name).read_bytes()
    config = json.loads((one.adapter_dir / "adapter_config.json").read_text("utf-8"))
    parameters = config["target_parameters"]
    assert parameters == sorted(parameters)
    assert "model.layers.1.mlp.experts.gate_up_proj" in parameters
    assert "model.layers.1.mlp.shared_experts.up_proj.weight" in parameters
    assert not config["rank_pattern"]


def test_on_a_quantised_base(base: Base, tmp_path: Path) -> None:
    folder = Path(base("deepseek_v3").model.config._name_or_path)
    given = BaseSpec(model=str(folder), dtype="fp32", quantize="nf4")
    loaded = load_model("tiny", given, folder)
    said: list[str] = []
    found = fit(loaded, rows(), SPEC, tmp_path / "run", log=said.append)
    assert found.losses[-1].loss < found.losses[0].loss
    shared = "down_proj, gate_proj, up_proj: quantised, and PEFT takes them by their weight here"
    assert f"warning: LoRA is not on {shared}" in said
    merged = merge_adapter(loaded, found.adapter_dir, tmp_path / "merged")
    assert merged.quantised is not None
    assert merged.quantised.dequantised < 1e-5
    named = SPEC.model_copy(update={"targets": ("up_proj",)})
    with pytest.raises(UserError, match="up_proj is quantised, and on this architecture PEFT"):
        fit(loaded, rows(), named, tmp_path / "named")
