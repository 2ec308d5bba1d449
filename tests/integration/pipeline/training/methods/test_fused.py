"""What is computed in fewer passes gives what it gave: heads with losses, norms, gated layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.spec.train import TrainSpec
from pipeline.training import compute
from pipeline.training.losses.attention import make_layout
from pipeline.training.losses.head import fused_head, head_losses
from pipeline.training.methods import lora
from pipeline.training.methods.fused import fused_modules
from pipeline.training.methods.methods import trained_weights
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

SPEC = TrainSpec(base="tiny", rank=4)
# In a layer: a gated one and two norms, or four where queries and keys have them.
IN_A_LAYER = {"llama": 3, "qwen3": 5, "mistral": 3, "gpt2": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    found: dict[str, LoadedModel] = {}

    def load(kind: str) -> LoadedModel:
        if kind not in found:
            root = tmp_path_factory.mktemp(kind)
            tiny_models.save(root, kind)
            found[kind] = load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)
        return found[kind]

    return load


def gradients(model: nn.Module, ids: torch.Tensor, **kwargs: object) -> list[torch.Tensor]:
    for parameter in model.parameters():
        parameter.grad = None
    logits = model(input_ids=ids, use_cache=False, **kwargs).logits[0, :-1]
    loss = cross_entropy(logits, ids[0, 1:], reduction="sum")
    loss.backward()
    return [loss.detach(), *(p.grad for p in lora.trainable(model).values() if p.grad is not None)]


@pytest.mark.parametrize("kind", IN_A_LAYER)
def test_fused_modules_give_the_same_gradients(
    base: Callable[[str], LoadedModel], kind: str
) -> None:
    loaded = base(kind)
    ids = torch.arange(7, 40)[None]
    with compute.seeded(0), lora.lora_modules(loaded, SPEC) as model:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.1)
        plain = gradients(model, ids)
        with fused_modules(loaded.model, torch.float32) as count:
            fused = gradients(model, ids)
        again = gradients(model, ids)
    layers = loaded.model.config.num_hidden_layers
    assert count == (layers * IN_A_LAYER[kind] + 1 if IN_A_LAYER[kind] else 0)
    for one, other, back in zip(plain, fused, again, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
        assert torch.equal(back, one)


def test_a_norm_of_another_kind_is_left_alone(base: Callable[[str], LoadedModel]) -> None:
    """Gemma's weight is added to one: by its name it is an RMSNorm like any other."""
    loaded = base("gemma3")
    with fused_modules(loaded.model, torch.float32) as count:
        assert not any(
            "forward" in vars(m) for m in loaded.model.modules() if "Norm" in repr(type(m))
        )
        assert count == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_gives_losses_and_their_gradients(
    base: Callable[[str], LoadedModel], dtype: torch.dtype
) -> None:
    loaded = base("llama")
    ids = torch.arange(7, 40)[None]
    weights = torch.rand(32, generator=torch.Generator().manual_seed(0))
    model = loaded.model.to(dtype)
    found = []
    try:
        with compute.packed(model), fused_head(model):
            layout = make_layout([33])
            embedded = model.get_input_embeddings()(ids).detach()
            for fused in (False, True):
                given = embedded.clone().requires_grad_(True)
                call = {"inputs_embeds": given, "use_cache": False, "packed_layout": layout}
                places = torch.arange(32)
                if fused:
                    with head_losses(model, ids[0, 1:]) as are_losses:
                        assert are_losses
                        losses = model(**call, logits_to_keep=places).logits[0]
                else:
                    logits = model(**call, logits_to_keep=places).logits[0]
                    losses = cross_entropy(logits.float(), ids[0, 1:], reduction="none")
                (losses * weights).sum().backward()
                assert given.grad is not None
                found.append((losses.detach().float(), given.grad.float()))
        assert "forward" not in vars(model.get_output_embeddings())
    finally:
        loaded.model.to(torch.float32)
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    for one, other in zip(*found, strict=True):
        assert float((one - other).abs().max()) <= bound * float(one.abs().max())


def test_nothing_stays_replaced(base: Callable[[str], LoadedModel]) -> None:
    loaded = base("llama")
    with trained_weights(loaded, SPEC):
        assert sum("forward" in vars(module) for module in loaded.model.modules()) > 7
    assert not any("forward" in vars(module) for module in loaded.model.modules())
