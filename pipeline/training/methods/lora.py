"""LoRA modules: put into a loaded model, computed in one fused step, and taken out again."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import linear

from pipeline.training.machine import processes
from pipeline.training.methods.new_rows import keep_masters, new_rows
from pipeline.training.methods.targets import LoraTargets, lora_targets
from registry.errors import ModelError
from registry.models.quiet import quiet_libraries
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peft import PeftModel

    from pipeline.spec.train import TrainSpec
    from registry.models.load import LoadedModel

ADAPTER = "default"


class _FusedLora(torch.autograd.Function):
    """x W' + b + (x A') (s B)' with the second product accumulated into the first.

    Shapes: x [N, in], weight [out, in], a [r, in], b [out, r]. The frozen weight and bias get no
    gradient; a and b are fp32 masters and are rounded to x's dtype where that is lower.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> Any:
        low_a, scaled_b = a.to(x.dtype), (b * scale).to(x.dtype)
        low = x @ low_a.t()
        out = linear(x, weight, bias)
        out.addmm_(low, scaled_b.t())
        ctx.save_for_backward(x, weight, low_a, scaled_b, low)
        ctx.scale = scale
        ctx.master = a.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, weight, low_a, scaled_b, low = ctx.saved_tensors
        grad = grads[0]
        grad_low = grad @ scaled_b
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(grad_low, low_a)
        grad_a = (grad_low.t() @ x).to(ctx.master)
        # Turned: the product of [r, N] and [N, out] is the faster one.
        grad_b = (low.t() @ grad).t().to(ctx.master) * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None


_fused_lora: Any = _FusedLora.apply  # it has no types


@contextmanager
def lora_modules(loaded: LoadedModel, spec: TrainSpec) -> Iterator[PeftModel]:
    """Put fresh LoRA modules into the base for a while; afterwards it is as it was.

    The start of A is drawn from torch's generator: seed it first.

    Raises:
        UserError: a target that the base doesn't have, or a rank above its layers' size.
    """
    with quiet_libraries():
        from peft import LoraConfig, get_peft_model

    loaded.use(None)
    model = loaded.model
    targets = lora_targets(model, spec)
    rows = new_rows(loaded)
    _refuse_quantised(model, targets, spec)
    _refuse_twice(rows, targets)
    if spec.dropout and "target_parameters" in targets.for_peft():
        raise ModelError(
            "LoRA on experts has no dropout", "train.dropout", "0, or targets without experts"
        )
    before: dict[str, torch.Tensor] = {}
    if spec.method == "pissa":
        # PEFT takes the main part out of these weights; they are put back at the end.
        before = {name: layer.weight.data.clone() for name, layer in targets.layers.items()}
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.dropout,
        **targets.for_peft(),
        bias="none",
        task_type="CAUSAL_LM",
        use_dora=spec.method == "dora",
        use_rslora=spec.method == "rslora",
        init_lora_weights="pissa" if spec.method == "pissa" else True,
        trainable_token_indices=rows or None,
    )
    use_cache = getattr(model.config, "use_cache", None)
    try:
        with quiet_libraries():
            peft_model = get_peft_model(model, config, adapter_name=ADAPTER)
    except ValueError as error:
        said = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"PEFT can't put LoRA on this base: {said}", "train.targets", "names of other layers"
        ) from error
    # PEFT writes where the base was loaded from, which is a folder of this machine.
    config.base_model_name_or_path = loaded.identity.name
    try:
        fuse_lora(model)
        keep_masters(model)
        yield peft_model
    finally:
        peft_model.unload()
        for name, weight in before.items():
            model.get_submodule(name).weight.data = weight
        for name in ("peft_config", "_hf_peft_config_loaded"):
            if name in vars(model):
                delattr(model, name)
        if use_cache is not None:
            model.config.use_cache = use_cache
        model.requires_grad_(requires_grad=False)
        model.zero_grad(set_to_none=True)
        model.eval()


def _refuse_twice(rows: dict[str, list[int]], targets: LoraTargets) -> None:
    both = sorted(rows.keys() & targets.layers.keys())
    if both:
        raise ModelError(
            f"{both[0]} has rows of new tokens, which are trained whole, and can't have LoRA too",
            "train.targets",
            "other layers",
            "leave it out, or leave out new_tokens",
        )


def _refuse_quantised(model: Any, targets: LoraTargets, spec: TrainSpec) -> None:
    if getattr(model, "quantization_method", None) is None:
        return
    if targets.renamed:
        name = min(targets.renamed)
        raise ModelError(
            f"{name} is quantised, and on this architecture PEFT takes it by its weight alone",
            where="train.targets",
            expected="names of other layers, or a base without `quantize`",
        )
    if spec.method == "dora" and getattr(model, "is_loaded_in_8bit", False):
        # PEFT measures DoRA's magnitudes on the dequantised weights, and bitsandbytes' layer has
        # lost its scales after that (peft 0.20, bitsandbytes 0.50).
        raise ModelError(
            "dora can't be trained on an int8 base: PEFT and bitsandbytes don't fit there",
            where="train.method",
            expected="dora with `quantize: nf4` or fp4; or lora, rslora or lora+",
        )
    if spec.method == "pissa":
        raise ModelError(
            f"{spec.method} takes its start from the weights, and this base's are quantised",
            where="train.method",
            expected="lora, dora, rslora or lora+; or a base without `quantize`",
        )


def fuse_lora(model: nn.Module) -> int:
    """Fuse the forward of every plain LoRA layer; returns how many were fused.

    Layers with dropout, DoRA, a bias of their own or a base layer that isn't a plain linear one
    (quantised, convolution) keep PEFT's forward.
    """
    from peft.tuners.lora import Linear

    fused = 0
    for module in model.modules():
        if type(module) is Linear and _is_plain(module):
            # An attribute of the instance: it goes when the module is taken out.
            module.forward = _fused_forward(module)
            fused += 1
    return fused


def _is_plain(module: Any) -> bool:
    base = module.get_base_layer()
    return (
        type(base) is nn.Linear
        and list(module.active_adapters) == [ADAPTER]
        and ADAPTER not in module.lora_variant
        and not module.lora_bias[ADAPTER]
        and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
        and not module.merged
        and not base.weight.requires_grad
    )


def _fused_forward(module: Any) -> Any:
    base = module.get_base_layer()
    a, b = module.lora_A[ADAPTER], module.lora_B[ADAPTER]

    def forward(x: torch.Tensor) -> torch.Tensor:
        if module.disable_adapters:
            return linear(x, base.weight, base.bias)
        flat = x.reshape(-1, x.shape[-1])
        out = _fused_lora(flat, base.weight, base.bias, a.weight, b.weight, module.scaling[ADAPTER])
        return out.view(*x.shape[:-1], out.shape[-1])

    return forward


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def started_from(peft_model: PeftModel, spec: TrainSpec) -> dict[str, torch.Tensor] | None:
    """Return the matrices that PiSSA starts from, by name in the file; None for other methods."""
    if spec.method != "pissa":
        return None
    return {name: p.detach().clone() for name, p in _matrices(peft_model).items()}


def _matrices(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    named = peft_model.named_parameters()
    return {name.replace(f".{ADAPTER}.", "."): p for name, p in named if ".lora_" in name}


def save_adapter(
    peft_model: PeftModel, folder: Path, start: dict[str, torch.Tensor] | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors; equal weights give equal bytes.

    With a `start` that was taken out of the base's weights (PiSSA; Meng et al., 2024), the same
    change is written for the base as it is: B A - B0 A0, of twice the rank.
    """
    with quiet_libraries():
        peft_model.save_pretrained(
            str(folder),
            safe_serialization=True,
            save_embedding_layers=False,
            state_dict={n: processes.gather(p.detach()) for n, p in trainable(peft_model).items()},
        )
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text("utf-8"))
    # PEFT keeps them in a set, whose order changes from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    if config.get("target_parameters"):
        config["target_parameters"] = sorted(config["target_parameters"])
    if start is not None:
        _write_difference(folder / ADAPTER_WEIGHTS, start)
        config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"]}
        config["init_lora_weights"] = True
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_difference(path: Path, start: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import load_file, save_file

    trained = load_file(path)
    both = {
        name: torch.cat([trained[name], begun.cpu()])
        if ".lora_A." in name
        else torch.cat([trained[name], -begun.cpu()], dim=1)
        for name, begun in start.items()
    }
    save_file(trained | both, path, metadata={"format": "pt"})
