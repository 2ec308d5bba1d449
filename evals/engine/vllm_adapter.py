"""The check that vLLM computes an adapter as PEFT does, by the adapter's configuration alone.

vLLM reads rank, alpha, rsLoRA and the matrices, refuses some of the rest and passes over the rest
of it in silence: what it doesn't know would be answered by another model than was trained.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.models.files import check_adapter
from registry.store.filenames import ADAPTER_CONFIG

if TYPE_CHECKING:
    from pathlib import Path

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank of an adapter."""

SPARE_RANK = 64
"""Adapters of an earlier spec may have a larger rank than today's; up to here it costs little."""

# Ways to begin that change the base's own weights, again at every loading by PEFT.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
# Key of the configuration -> what it is called.
_NOT_TAKEN = {
    "use_dora": "DoRA",
    "modules_to_save": "whole modules (modules_to_save)",
    "rank_pattern": "a rank of its own for some modules (rank_pattern)",
    "alpha_pattern": "an alpha of its own for some modules (alpha_pattern)",
    "lora_bias": "a bias (lora_bias)",
    "layer_replication": "repeated layers (layer_replication)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
    "target_parameters": "parameters that are no modules (target_parameters)",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "arrow_config": "routed adapters (arrow_config)",
    "alora_invocation_tokens": "activated LoRA",
}


def lora_rank(expected: int) -> int:
    """Return the largest rank that vLLM is told, for adapters of the rank `expected`.

    Raises:
        UserError: vLLM takes none of that rank.
    """
    fitting = [rank for rank in RANKS if rank >= max(expected, SPARE_RANK)]
    if not fitting:
        raise ModelError(
            f"vLLM takes no adapter of rank {expected}",
            "train.rank",
            f"at most {RANKS[-1]}",
            "lower it, or set evals.backend: gapmend",
        )
    return fitting[0]


def check_vllm_adapter(adapter: Path, rank: int) -> None:
    """Refuse an adapter that vLLM would not compute as it was trained.

    Raises:
        UserError: it has what vLLM doesn't take, which is named, or a rank above `rank`.
    """
    check_adapter(adapter)
    config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
    has = [name for key, name in _NOT_TAKEN.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        has.append(f"a bias (bias: {config['bias']})")
    begun = str(config.get("init_lora_weights")).lower()
    if begun.startswith(_CHANGES_BASE):
        has.append(f"changes of the base's own weights (init_lora_weights: {begun})")
    if config.get("peft_type") != "LORA":
        has.append(str(config.get("peft_type")))
    if int(config.get("r") or 0) > rank:
        has.append(f"rank {config['r']}, more than the {rank} that it was started for,")
    if has:
        raise ModelError(
            f"adapter {adapter.name[:12]} has {has[0]} and vLLM doesn't take that",
            "evals.backend",
            fix="score it with evals.backend: gapmend",
        )
