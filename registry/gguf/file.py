"""A GGUF file, ours or anyone's: its figures, the config that they describe, and its tensors.

Nothing is guessed in silence. What llama.cpp would compute and the config can't say (a rope scaled
otherwise, experts, a tensor without a name) is refused; a figure that nobody reads is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.gguf.architectures import rope_factors, unpermute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.gguf.architectures import Array

ROPE_FACTORS = "rope_freqs.weight"
_EMBEDDING = "token_embd.weight"
_CLASSES = {
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "gemma": "GemmaConfig",
    "gemma2": "Gemma2Config",
    "gemma3": "Gemma3TextConfig",
}
_RAISED_NORMS = ("gemma", "gemma2", "gemma3")
_PERIODS = {"gemma2": 2, "gemma3": 6}
# Of these, llama.cpp scales questions by another size than that of a head.
_LAYERS_27B = {"gemma2": 46, "gemma3": 62}
_ROPE_BASE = 10000.0  # llama.cpp's, where a file says none
_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Tokens: what its rope was scaled from. Llama 3's first; a file has the factors alone.
_TRAINED_ON = (8192, *(2**power for power in range(5, 18)))
_READ = {
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
    *("attention.key_length", "attention.value_length", "attention.sliding_window"),
    *("attn_logit_softcapping", "final_logit_softcapping", "expert_count", "expert_used_count"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
    "rope.scale_linear",
}
# Nothing of what is computed depends on them, where the others are as they have to be.
_IDLE = {"tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length"}


class GgufFile:
    """A GGUF file: its figures by name, and its tensors."""

    def __init__(self, path: Path) -> None:
        """Map the file; only its head is read now.

        Raises:
            UserError: it is no GGUF file, one that is cut off, or none of a whole model.
        """
        import gguf

        try:
            self._reader = gguf.GGUFReader(path)
            self.figures: dict[str, Any] = {
                key: field.contents() for key, field in self._reader.fields.items()
            }
        except Exception as error:  # whatever the library stumbles over in bytes of anything
            said = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"not a whole GGUF file: {said}", fix="fetch it again: it may be cut off"
            ) from error
        self.arch: str = str(self.figures.get("general.architecture", "?"))
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        kind = self.figures.get("general.type", "model")
        if kind != "model" or int(self.figures.get("split.count", 1)) > 1:
            what = f"of type {kind}" if kind != "model" else "one part of several"
            raise ModelError(
                f"this GGUF file is {what}",
                expected="a whole model in one file",
                fix=None if kind != "model" else "llama-gguf-split --merge makes one of the parts",
            )

    def figure(self, key: str, default: Any = None) -> Any:
        """Return a figure of the model, without the architecture's prefix."""
        return self.figures.get(f"{self.arch}.{key}", default)

    def unread(self) -> list[str]:
        """Return the model's figures that nobody here reads."""
        prefix = f"{self.arch}."
        own = {key.removeprefix(prefix) for key in self.figures if key.startswith(prefix)}
        return sorted(own - _READ - _IDLE)

    def weight(self, name: str) -> Array:
        """Return one tensor as float32, as it is in the file.

        Raises:
            UserError: it is of a type that can't be read.
        """
        import gguf

        tensor = self.tensors[name]
        try:
            found: Array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ModelError(f"{name} is of type {kind}, which isn't read") from None
        return found

    def config(self) -> Any:
        """Return the config of transformers that the figures describe.

        Raises:
            UserError: the architecture isn't known, a figure is missing, or it is computed in a
                way that the config can't say.
        """
        import transformers

        if self.arch not in _CLASSES:
            known = ", ".join(_CLASSES)
            raise ModelError(f"the architecture '{self.arch}' isn't read", expected=known)
        if self.figure("expert_count"):
            raise ModelError(f"'{self.arch}' with experts isn't read")

        heads = self._needed("attention.head_count")
        values = {
            "vocab_size": self._rows(_EMBEDDING),
            "hidden_size": self._needed("embedding_length"),
            "intermediate_size": self._needed("feed_forward_length"),
            "num_hidden_layers": self._layers(),
            "num_attention_heads": heads,
            "num_key_value_heads": self.figure("attention.head_count_kv", heads),
            "head_dim": self._head_size(),
            "max_position_embeddings": self._needed("context_length"),
            "rms_norm_eps": self._needed("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "rope_parameters": self._rope(),
            **self._biases(),
            **self._gemma(),
        }
        listed = next((key for key, value in values.items() if isinstance(value, list)), None)
        if listed not in (None, "layer_types"):
            raise ModelError(f"layers of different sizes ({listed}) aren't read")
        return getattr(transformers, _CLASSES[self.arch])(**values)

    def whole_config(self) -> Any:
        """Return `config`, with Llama 3's rope where the file has its factors.

        Raises:
            UserError: as `config`, or the factors are those of another rope.
        """
        import numpy as np

        config = self.config()
        if ROPE_FACTORS not in self.tensors:
            return config
        factors = self.weight(ROPE_FACTORS)
        for trained in _TRAINED_ON:
            rope = {
                **config.rope_parameters,
                **_LLAMA3,
                "factor": float(factors.max()),
                "original_max_position_embeddings": trained,
            }
            made = type(config)(**{**config.to_dict(), "rope_parameters": rope})
            theirs = rope_factors(made)
            if theirs is not None and np.allclose(theirs, factors, rtol=1e-5):
                return made
        raise ModelError(f"{ROPE_FACTORS} isn't that of Llama 3's rope: this one isn't read")

    def state(self, model: Any) -> Iterator[tuple[str, Array]]:
        """Every weight of `model`, a fresh one of this config, as the file has it.

        Raises:
            UserError: one is missing or of another shape, or the file has others.
        """
        names = self.names(model)
        for name, parameter in model.named_parameters():
            weight = self.weight(names[name])
            if self.arch in _RAISED_NORMS and names[name].endswith("norm.weight"):
                weight = weight - 1
            if self.arch == "llama" and ".attn_q." in names[name]:
                weight = unpermute(weight, model.config.num_attention_heads)
            if self.arch == "llama" and ".attn_k." in names[name]:
                weight = unpermute(weight, model.config.num_key_value_heads)
            if weight.shape != tuple(parameter.shape):
                shape = tuple(parameter.shape)
                raise ModelError(f"{names[name]} has the shape {weight.shape}", None, f"{shape}")
            yield name, weight

    def names(self, model: Any) -> dict[str, str]:
        """Return the name in the file of every weight of `model`.

        Raises:
            UserError: one is missing, or the file has others.
        """
        import gguf

        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.arch)
        table = gguf.get_tensor_name_map(kind, int(self.figure("block_count")))
        found = {
            name: str(table.get_name(name, try_suffixes=(".weight", ".bias")))
            for name, _ in model.named_parameters()
        }
        missing = [name for name in found.values() if name not in self.tensors]
        if missing:
            raise ModelError(f"{len(missing)} tensors are missing, the first is {missing[0]}")
        others = sorted(self.tensors.keys() - set(found.values()) - {ROPE_FACTORS})
        if others:
            raise ModelError(f"{len(others)} tensors aren't known, the first is {others[0]}")
        return found

    def _needed(self, key: str) -> Any:
        found = self.figure(key)
        if found is None:
            raise ModelError(f"the figure {self.arch}.{key} is missing")

        return found

    def _rows(self, name: str) -> int:
        if name not in self.tensors:
            raise ModelError(f"the tensor {name} is missing")
        return int(self.tensors[name].shape[-1])  # GGUF counts the other way round

    def _layers(self) -> int:
        told = self._needed("block_count")
        found = len({name.split(".")[1] for name in self.tensors if name.startswith("blk.")})
        if told != found:
            raise ModelError(f"{self.arch}.block_count is {told}, and there are {found} layers")
        return found

    def _head_size(self) -> int:
        size = self._needed("embedding_length") // self._needed("attention.head_count")
        if self.arch == "llama":  # of which some have heads of another length, and name it so
            size = self.figure("rope.dimension_count", size)
        size = int(self.figure("attention.key_length", size))
        for key in ("rope.dimension_count", "attention.value_length"):
            found = self.figure(key, size)
            if found != size:
                raise ModelError(f"{self.arch}.{key} is {found}", None, f"{size}, as a head")
        return size

    def _rope(self) -> dict[str, Any]:
        base = float(self.figure("rope.freq_base", _ROPE_BASE))
        rope: dict[str, Any] = {"rope_theta": base, "rope_type": "default"}
        factor = self.figure("rope.scaling.factor", self.figure("rope.scale_linear"))
        kind = self.figure("rope.scaling.type", "linear" if factor else "none")
        if kind not in ("none", "linear"):
            raise ModelError(f"a rope scaled by {kind} isn't read", None, "linear, or Llama 3's")
        if kind == "linear" and factor:
            rope |= {"rope_type": "linear", "factor": float(factor)}
        return rope

    def _biases(self) -> dict[str, bool]:
        if self.arch != "llama":
            return {}
        return {
            "attention_bias": "blk.0.attn_q.bias" in self.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in self.tensors,
        }

    def _gemma(self) -> dict[str, Any]:
        if self.arch not in _PERIODS:
            return {}
        period, layers = _PERIODS[self.arch], self._layers()
        scale = self._head_size()
        if layers == _LAYERS_27B[self.arch]:
            scale = self._needed("embedding_length") // self._needed("attention.head_count")
        found = {
            "sliding_window": self._needed("attention.sliding_window"),
            "layer_types": [
                "sliding_attention" if (layer + 1) % period else "full_attention"
                for layer in range(layers)
            ],
            "query_pre_attn_scalar": scale,
            "attn_logit_softcapping": self.figure("attn_logit_softcapping"),
            "final_logit_softcapping": self.figure("final_logit_softcapping"),
        }
        if self.arch == "gemma3":
            local = {"rope_theta": 10000.0, "rope_type": "default"}
            found["rope_parameters"] = {"full_attention": self._rope(), "sliding_attention": local}
        return found
