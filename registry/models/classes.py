"""The class of transformers that a base is loaded by: one place for all that load one.

A text model has its causal class. What wraps one for pictures (Qwen2-VL, LLaVA) often has no other
class than its own: it is read whole, and used for text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def causal_class(config: Any, where: str | None = None) -> Any:
    """Return the auto class of transformers that makes a language model of this config.

    Args:
        config: of transformers.
        where: the base, as messages name it.

    Raises:
        UserError: none does.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    kind = type(config)
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or own_code:
        return AutoModelForCausalLM
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    raise ModelError(
        f"transformers has no language model of model_type '{config.model_type}'",
        where,
        expected="a causal language model, or a wrapper of one for pictures and text",
    )


def causal_class_of(folder: Path) -> Any:
    """As `causal_class`, of a model's folder."""
    from transformers import AutoConfig

    return causal_class(AutoConfig.from_pretrained(folder))
