"""The methods: which weights are trained, at which rates, and what is kept of them.

Each is a context in which the model's trainable weights require gradients. All go through the
same trainer.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.training.losses import head
from pipeline.training.methods import fused, lora, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from pipeline.spec.train import TrainSpec
    from pipeline.training.losses.preference import Switch
    from registry.models.load import LoadedModel


@dataclass(frozen=True)
class TrainableModel:
    """A model whose weights can be trained.

    Attributes:
        model: goes into the trainer.
        save: writes what was trained into a new folder; equal weights give equal bytes.
        reference: a context in which the model is the base, where the method can switch to it.
    """

    model: torch.nn.Module
    save: Callable[[Path], None]
    reference: Switch | None = None


@contextmanager
def trained_weights(loaded: LoadedModel, spec: TrainSpec) -> Iterator[TrainableModel]:
    """Let the weights that the method trains be trained for a while.

    Raises:
        UserError: the method can't be used on this base.
    """
    if spec.is_lora:
        computed = next(p.dtype for p in loaded.model.parameters() if p.is_floating_point())
        with (
            head.fused_head(loaded.model),
            fused.fused_modules(loaded.model, computed),
            lora.lora_modules(loaded, spec) as model,
        ):
            if spec.activation_checkpointing:
                _recompute(loaded.model)
            start = lora.started_from(model, spec)
            yield TrainableModel(
                model,
                lambda folder: lora.save_adapter(model, folder, start),
                # PiSSA takes its start out of the base, which is another one without the adapter.
                None if start else model.disable_adapter,
            )
    else:
        with whole.whole_weights(loaded, spec) as before:
            if spec.activation_checkpointing:
                _recompute(loaded.model)
            yield TrainableModel(
                loaded.model, lambda folder: whole.save_changed(loaded, spec, before, folder)
            )
    if spec.activation_checkpointing:
        older = loaded.model.gradient_checkpointing_disable
        getattr(loaded.model, "activation_checkpointing_disable", older)()


def _recompute(model: Any) -> None:
    # Transformers 5.17 and earlier call it by another name.
    older = model.gradient_checkpointing_enable
    getattr(model, "activation_checkpointing_enable", older)()


def rate_groups(model: torch.nn.Module, spec: TrainSpec) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: those of one rate and one decay together.

    LoRA+ gives B a higher rate than A (Hayou et al., "LoRA+", 2024). Matrices decay; biases, norms
    and magnitudes, which are no matrices, and rows of new tokens, most of which are the base's,
    don't.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in lora.trainable(model).items():
        fast = spec.method == "lora+" and (".lora_B." in name or ".lora_embedding_B" in name)
        decays = weight.ndim > 1 and "trainable_tokens" not in name
        rate = spec.rate * spec.lora_plus_ratio if fast else spec.rate
        groups.setdefault((rate, spec.weight_decay if decays else 0.0), []).append(weight)
    return [
        {"params": weights, "lr": rate, "weight_decay": decay}
        for (rate, decay), weights in groups.items()
    ]
