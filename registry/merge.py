"""Merging one LoRA adapter into its base, refused unless the logits stay the same.

The merged weight is W + scaling * B A, computed in float64 from the adapter's file and rounded
once. The reference is PEFT's own forward with the adapter on, so the two check each other.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from registry.adapters import CONFIG, WEIGHTS, save_tokenizer
from registry.errors import GateRefusedError, UserError
from registry.parity import (
    BOUNDS,
    Parity,
    distance,
    logits_in_new_process,
    logits_of,
    prompt_tokens,
    refuse_beyond,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from registry.models import LoadedModel
    from registry.parity import Logits

Weights = dict[str, "torch.Tensor"]

_REFUSED = {
    "use_dora": "DoRA rescales the whole weight",
    "use_rslora": "rsLoRA scales by the root of the rank",
    "use_qalora": "QA-LoRA pools its input",
    "use_bdlora": "BD-LoRA splits its matrices in blocks",
    "lora_bias": "lora_bias adds to a bias that the base may not have",
    "modules_to_save": "modules_to_save replaces whole modules",
    "trainable_token_indices": "trainable tokens replace rows of the embeddings",
    "target_parameters": "target_parameters changes parameters outside linear layers",
    "layer_replication": "layer_replication changes the number of layers",
    "alora_invocation_tokens": "aLoRA is active for a part of the tokens alone",
    "ensure_weight_tying": "ensure_weight_tying merges tied weights twice",
    "arrow_config": "Arrow routes between adapters",
    "kasa_config": "KaSA changes the base's weights",
    "velora_config": "VeLoRA changes the forward pass",
    "monteclora_config": "MonteCLoRA is a distribution over adapters",
}
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def merge_adapter(loaded: LoadedModel, adapter: Path, out: Path) -> Parity:
    """Write `loaded` with the adapter merged into its weights to the folder `out`, and prove it.

    `out` gets safetensors in the dtype that the base is computed in, config, generation config,
    tokenizer and chat template. `loaded` is left as it was.

    Raises:
        UserError: the adapter is of a kind that isn't merged, or the base is quantised.
        GateRefusedError: the logits, or a reloaded weight, are not those of base + adapter.
    """
    refuse_unmergeable(loaded, adapter)
    tokens = prompt_tokens(loaded)
    loaded.use(None)
    plain = logits_of(loaded.model, tokens)
    loaded.use(adapter)
    reference = logits_of(loaded.model, tokens)
    deltas = read_deltas(loaded, adapter)
    loaded.use(None)
    merged = merged_weights(loaded, deltas)
    in_memory = check_merged(loaded, adapter, merged, reference)
    save_merged(loaded, merged, out)
    reloaded = check_saved(loaded, merged, out, reference)
    return Parity(
        dtype=loaded.identity.dtype,
        bound=BOUNDS[loaded.identity.dtype],
        merged=in_memory,
        reloaded=reloaded,
        moved=distance(reference, plain),
        positions=len(reference),
    )


def refuse_unmergeable(loaded: LoadedModel, adapter: Path) -> None:
    """Refuse by name every adapter whose merge is more than adding B A to linear weights.

    Raises:
        UserError: it is one.
    """
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    where = f"{adapter.name[:12]}/{CONFIG}"
    if config.get("peft_type") != "LORA":
        raise UserError(f"{config.get('peft_type')} can't be merged", where, "LORA")
    for key, why in _REFUSED.items():
        if config.get(key):
            raise UserError(f"can't be merged: {why}", f"{where}: {key}", "plain LoRA")
    if config.get("bias", "none") != "none":
        raise UserError("can't be merged: it trained biases", f"{where}: bias", "none")
    if getattr(loaded.model, "is_quantized", False):
        raise UserError(
            f"base {loaded.identity.name} is quantised; merging into it would lose the adapter",
            expected="a base without quantize",
        )


def read_deltas(loaded: LoadedModel, adapter: Path) -> Weights:
    """Return parameter name -> what the adapter adds to it, in float64; the adapter is in use.

    Raises:
        UserError: it targets an embedding, or a weight that is tied to another.
        GateRefusedError: its file and the modules that PEFT made of it don't agree.
    """
    from safetensors.torch import load_file

    modules = dict(loaded.model.named_modules())
    layers = {name for name, module in modules.items() if hasattr(module, "lora_A")}
    _refuse_tied(loaded.model, {name: modules[name] for name in layers})
    sides: dict[str, Weights] = {}
    for key, tensor in load_file(adapter / WEIGHTS).items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise UserError(f"can't be merged: {key}", adapter.name[:12], "lora_A and lora_B alone")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.double()
    if layers != set(sides) or any(len(pair) != 2 for pair in sides.values()):  # noqa: PLR2004
        odd = ", ".join(sorted(layers ^ set(sides))[:3])
        message = f"merge refused: adapter file and model disagree about modules ({odd})"
        raise GateRefusedError(message)
    return {f"{name}.weight": _delta(modules[name], pair) for name, pair in sides.items()}


def merged_weights(loaded: LoadedModel, deltas: Mapping[str, torch.Tensor]) -> Weights:
    """Return parameter name -> W + delta in W's dtype; the adapter is not in use."""
    own = dict(loaded.model.named_parameters())
    return {
        name: (own[name].double() + delta.to(own[name].device)).to(own[name].dtype)
        for name, delta in deltas.items()
    }


def check_merged(loaded: LoadedModel, adapter: Path, merged: Weights, reference: Logits) -> float:
    """Return how far the merged logits are from `reference`, those of base + adapter.

    Raises:
        GateRefusedError: beyond the bound of the dtype, or a weight is not what PEFT says it is;
            names the modules.
    """
    loaded.use(None)
    bound = BOUNDS[loaded.identity.dtype]
    found = distance(reference, logits_of(loaded.model, prompt_tokens(loaded), merged))
    refuse_beyond(bound, found, "after the merge", _unlike_peft(loaded, adapter, merged))
    return found


def save_merged(loaded: LoadedModel, merged: Mapping[str, torch.Tensor], out: Path) -> None:
    """Save the model with the merged weights, its tokenizer, template and generation config."""
    from transformers.utils import logging

    state = {**loaded.model.state_dict(), **merged}
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded.model.save_pretrained(str(out), state_dict=state)
    finally:
        if shown:
            logging.enable_progress_bar()
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a local path, where there is one
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    save_tokenizer(loaded.tokenizer, out)


def check_saved(
    loaded: LoadedModel, merged: Mapping[str, torch.Tensor], folder: Path, reference: Logits
) -> float:
    """Return how far the saved model's logits are from `reference`, in a new process.

    Raises:
        GateRefusedError: a saved weight is not the merged one, bit for bit, or the logits are
            beyond the bound; names the modules.
    """
    wrong = _unlike_saved(loaded, merged, folder)
    found = distance(reference, logits_in_new_process(folder, prompt_tokens(loaded)))
    refuse_beyond(BOUNDS[loaded.identity.dtype], found, "reloaded in a new process", wrong)
    return found


def _delta(module: Any, pair: Weights) -> torch.Tensor:
    delta: torch.Tensor = module.scaling[module.active_adapters[0]] * (pair["B"] @ pair["A"])
    return delta.T if module.fan_in_fan_out else delta


def _refuse_tied(model: Any, layers: Mapping[str, Any]) -> None:
    seen: set[int] = set()
    shared: set[int] = set()  # addresses of weights that more than one name has
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (shared if parameter.data_ptr() in seen else seen).add(parameter.data_ptr())
    for name, module in layers.items():
        if module.get_base_layer().weight.data_ptr() in shared:
            raise UserError(
                f"can't be merged: {name} is tied to another weight, which would change too",
                expected="an adapter without a tied LM head or embedding",
            )


def _unlike_peft(loaded: LoadedModel, adapter: Path, merged: Weights) -> list[str]:
    """Return the modules whose merged weight isn't PEFT's, the furthest off first."""
    import torch

    loaded.use(adapter)
    off: dict[str, float] = {}
    for name, module in loaded.model.named_modules():
        if hasattr(module, "lora_A"):
            base = module.get_base_layer().weight
            delta = module.get_delta_weight(module.active_adapters[0]).double()
            found = merged.get(f"{name}.weight", base).double() - base.double()
            size = float(delta.abs().max()) or 1.0
            # Rounding of the sum to the weight's dtype is no difference.
            noise = float(base.abs().max()) * torch.finfo(base.dtype).eps
            off[name] = max(0.0, float((found - delta).abs().max()) - noise) / size
    loaded.use(None)
    return [name for name in sorted(off, key=lambda n: -off[n]) if off[name] > 1e-3]  # noqa: PLR2004


def _unlike_saved(
    loaded: LoadedModel, merged: Mapping[str, torch.Tensor], folder: Path
) -> list[str]:
    """Return the modules whose saved weight isn't, bit for bit, the one that was to be saved."""
    import torch
    from safetensors.torch import load_file

    saved: Weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        saved |= load_file(path)
    own: Mapping[str, torch.Tensor] = {**dict(loaded.model.named_parameters()), **merged}
    return [
        name.removesuffix(".weight")
        for name, weight in own.items()
        if name not in saved or not torch.equal(saved[name], weight.cpu())
    ]
