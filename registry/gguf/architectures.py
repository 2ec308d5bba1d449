"""The architectures that become GGUF, and what a reader has to know of them.

llama.cpp computes a model by its architecture's name and these figures. What it computes otherwise
than transformers does is refused by name here, so that no file says less than the model is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float32]]

Figures = dict[str, int | float | bool | str]

_QKV = frozenset({"q_proj", "k_proj", "v_proj"})
_ALL_LINEAR = _QKV | {"o_proj", "gate_proj", "up_proj", "down_proj"}
_GELU = "gelu_pytorch_tanh"
# llama.cpp's pattern of layers: every so many layers one attends to everything.
_GEMMA_PERIOD = {"gemma2": 2, "gemma3": 6}
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}
_GEMMA3_LOCAL_BASE = 10000.0


@dataclass(frozen=True)
class Architecture:
    """How one class of transformers is written.

    Attributes:
        model: the class that config.json names.
        name: what llama.cpp calls it.
        permuted: rows of q and k are stored in the order of a rope over neighbouring pairs.
        norm_offset: what the weights of norms are raised by (Gemma's are stored less 1).
        biases: linear layers that may have one.
        activation: of the feed-forward layers.
        own_head: whether the LM head may be another weight than the embedding.
    """

    model: str
    name: str
    permuted: bool = False
    norm_offset: float = 0.0
    biases: frozenset[str] = frozenset()
    activation: str = "silu"
    own_head: bool = True


ARCHITECTURES = {
    one.model: one
    for one in (
        Architecture("LlamaForCausalLM", "llama", permuted=True, biases=_ALL_LINEAR),
        # llama.cpp has no name of its own for it: Llama's, with a context within the window.
        Architecture("MistralForCausalLM", "llama", permuted=True),
        Architecture("Qwen2ForCausalLM", "qwen2", biases=_QKV),
        Architecture("Qwen3ForCausalLM", "qwen3"),
        Architecture(
            "GemmaForCausalLM", "gemma", norm_offset=1.0, activation=_GELU, own_head=False
        ),
        Architecture(
            "Gemma2ForCausalLM", "gemma2", norm_offset=1.0, activation=_GELU, own_head=False
        ),
        Architecture("Gemma3ForCausalLM", "gemma3", norm_offset=1.0, activation=_GELU),
    )
}


def architecture_of(config: Any, where: str) -> Architecture:
    """Return how a model of this config is written.

    Raises:
        UserError: its architecture, or something in its config, is computed otherwise by
            llama.cpp; named.
    """
    named = (config.architectures or [config.model_type])[0]
    found = ARCHITECTURES.get(str(named))
    if found is None:
        known = ", ".join(name.removesuffix("ForCausalLM") for name in ARCHITECTURES)
        raise ModelError(f"{named} is not written as GGUF", f"{where}: architectures", known)
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    _expect(activation, found.activation, where, "hidden_act")
    if not found.own_head:
        _expect(
            bool(config.tie_word_embeddings), wanted=True, where=where, key="tie_word_embeddings"
        )
    if found.name in _GEMMA_PERIOD:
        _check_gemma(config, found, where)
    return found


def figures(config: Any, arch: Architecture, where: str) -> Figures:
    """Return the model's figures under llama.cpp's names, without the architecture's prefix.

    Raises:
        UserError: its rope is scaled in a way that isn't written; named.
    """
    heads = int(config.num_attention_heads)
    size = head_size(config)
    found: Figures = {
        "context_length": _context(config, arch),
        "embedding_length": int(config.hidden_size),
        "block_count": int(config.num_hidden_layers),
        "feed_forward_length": int(config.intermediate_size),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.num_key_value_heads or heads),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": size,
        "attention.value_length": size,
        "rope.dimension_count": size,
        "vocab_size": int(config.vocab_size),
    }
    found |= _rope(config, where)
    if arch.name in _GEMMA_PERIOD:
        found["attention.sliding_window"] = int(config.sliding_window)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            found[key] = float(getattr(config, key))
    return found


def head_size(config: Any) -> int:
    """Return the length of one head's vectors."""
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def rope_factors(config: Any) -> Array | None:
    """Return what Llama 3.1 and later divide each frequency of the rope by; None without."""
    import numpy as np

    rope = _global_rope(config)
    if rope["rope_type"] != "llama3":
        return None
    size = head_size(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    wavelengths = 2 * math.pi / frequencies
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    # 1 for what turns often within the trained context, the whole factor for what hardly turns.
    smooth = np.clip((trained / wavelengths - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / float(rope["factor"]) + smooth)).astype(np.float32)


def permute(weight: Array, heads: int) -> Array:
    """Return rows of q or k in llama.cpp's order: the two halves of each head interleaved."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def unpermute(weight: Array, heads: int) -> Array:
    """Return rows in transformers' order; undoes `permute`."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _context(config: Any, arch: Architecture) -> int:
    """Return the longest context at which the file's attention is the model's, in tokens."""
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if (
        arch.name in _GEMMA_PERIOD
        or not window
        or getattr(config, "use_sliding_window", 1) is False
    ):
        return longest
    # llama.cpp has no window for these: up to its length there is no difference.
    return min(longest, int(window))


def _rope(config: Any, where: str) -> Figures:
    rope = _global_rope(config)
    kind = rope["rope_type"]
    _expect(rope.get("partial_rotary_factor", 1.0), 1.0, where, "partial_rotary_factor")
    if kind not in ("default", "linear", "llama3"):
        raise ModelError(
            f"a rope scaled by {kind} is not written as GGUF",
            f"{where}: rope_parameters.rope_type",
            "default, linear or llama3",
        )
    found: Figures = {"rope.freq_base": float(rope["rope_theta"])}
    if kind == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return found


def _global_rope(config: Any) -> dict[str, Any]:
    """Return the rope of the layers that attend to everything."""
    rope: dict[str, Any] = config.rope_parameters
    return {"rope_type": "default", **rope.get("full_attention", rope)}


def _check_gemma(config: Any, arch: Architecture, where: str) -> None:
    period = _GEMMA_PERIOD[arch.name]
    wanted = [
        "sliding_attention" if (layer + 1) % period else "full_attention"
        for layer in range(config.num_hidden_layers)
    ]
    if list(config.layer_types) != wanted:
        raise ModelError(
            f"llama.cpp's {arch.name} has other layers with a window",
            f"{where}: layer_types",
            f"every {period}th layer full_attention, the others sliding_attention",
        )
    scale = head_size(config)
    if config.num_hidden_layers == _GEMMA_27B_LAYERS[arch.name]:
        scale = config.hidden_size // config.num_attention_heads
    _expect(config.query_pre_attn_scalar, scale, where, "query_pre_attn_scalar")
    if arch.name == "gemma2":  # capped in any case there, with these caps where a file has none
        for key, cap in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
            _expect(getattr(config, key) or cap, getattr(config, key), where, key)
        return
    if config.attn_logit_softcapping:
        _expect(config.attn_logit_softcapping, None, where, "attn_logit_softcapping")
    local = config.rope_parameters["sliding_attention"]
    _expect(local.get("rope_type", "default"), "default", where, "sliding_attention.rope_type")
    _expect(local["rope_theta"], _GEMMA3_LOCAL_BASE, where, "sliding_attention.rope_theta")


def _expect(found: Any, wanted: Any, where: str, key: str) -> None:
    if found != wanted:
        raise ModelError(
            f"llama.cpp takes {key} to be {wanted}, and it is {found}", f"{where}: {key}"
        )
