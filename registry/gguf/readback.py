"""The read-back of a GGUF file with nothing but the file: config, weights and tokenizer.

Run as a program (`python -m registry.gguf.readback FILE ASKED.json OUT.npz`) it is the new process
that makes a model of the file and writes its logits on token ids, and the ids that the file's
vocabulary makes of texts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.gguf.architectures import unpermute
from registry.gguf.convert import ROPE_FACTORS
from registry.gguf.pretokenizers import IGNORE_MERGES, PRE_TOKENIZERS
from registry.gguf.vocabulary import CONTROL, UNKNOWN, UNUSED, USER_DEFINED
from registry.models.parity import logits_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.gguf.architectures import Array

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


class GgufFile:
    """A GGUF file: its figures by name, and its tensors."""

    def __init__(self, path: Path) -> None:
        """Map the file; only its head is read now."""
        import gguf

        self._reader = gguf.GGUFReader(path)
        self.figures: dict[str, Any] = {
            key: field.contents() for key, field in self._reader.fields.items()
        }
        self.arch: str = self.figures["general.architecture"]
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def figure(self, key: str, default: Any = None) -> Any:
        """Return a figure of the model, without the architecture's prefix."""
        return self.figures.get(f"{self.arch}.{key}", default)

    def weight(self, name: str) -> Array:
        """Return one tensor as float32, as it is in the file."""
        import gguf

        tensor = self.tensors[name]
        found: Array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return found

    def config(self) -> Any:
        """Return the config of transformers that the figures describe."""
        import transformers

        rope = {"rope_theta": self.figure("rope.freq_base"), "rope_type": "default"}
        if self.figure("rope.scaling.type") == "linear":
            rope |= {"rope_type": "linear", "factor": self.figure("rope.scaling.factor")}
        values = {
            "vocab_size": len(self.figures["tokenizer.ggml.tokens"]),
            "hidden_size": self.figure("embedding_length"),
            "intermediate_size": self.figure("feed_forward_length"),
            "num_hidden_layers": self.figure("block_count"),
            "num_attention_heads": self.figure("attention.head_count"),
            "num_key_value_heads": self.figure("attention.head_count_kv"),
            "head_dim": self.figure("attention.key_length"),
            "max_position_embeddings": self.figure("context_length"),
            "rms_norm_eps": self.figure("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "rope_parameters": rope,
            **self._biases(),
            **self._gemma(rope),
        }
        return getattr(transformers, _CLASSES[self.arch])(**values)

    def state(self, model: Any) -> Iterator[tuple[str, Array]]:
        """Every weight of `model`, a fresh one of this config, as the file has it."""
        import gguf

        kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.arch)
        table = gguf.get_tensor_name_map(kind, int(self.figure("block_count")))
        for name, _ in model.named_parameters():
            called = str(table.get_name(name, try_suffixes=(".weight", ".bias")))
            weight = self.weight(called)
            if self.arch in _RAISED_NORMS and called.endswith("norm.weight"):
                weight = weight - 1
            if self.arch == "llama" and ".attn_q." in called:
                weight = unpermute(weight, self.figure("attention.head_count"))
            if self.arch == "llama" and ".attn_k." in called:
                weight = unpermute(weight, self.figure("attention.head_count_kv"))
            yield name, weight

    def _biases(self) -> dict[str, bool]:
        if self.arch != "llama":
            return {}
        return {
            "attention_bias": "blk.0.attn_q.bias" in self.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in self.tensors,
        }

    def _gemma(self, rope: Mapping[str, Any]) -> dict[str, Any]:
        if self.arch not in _PERIODS:
            return {}
        period, layers = _PERIODS[self.arch], self.figure("block_count")
        found = {
            "sliding_window": self.figure("attention.sliding_window"),
            "layer_types": [
                "sliding_attention" if (layer + 1) % period else "full_attention"
                for layer in range(layers)
            ],
            "query_pre_attn_scalar": self.figure("attention.key_length"),
            "attn_logit_softcapping": self.figure("attn_logit_softcapping"),
            "final_logit_softcapping": self.figure("final_logit_softcapping"),
        }
        if self.arch == "gemma3":
            local = {"rope_theta": 10000.0, "rope_type": "default"}
            found["rope_parameters"] = {"full_attention": dict(rope), "sliding_attention": local}
        return found


def model_of(file: GgufFile) -> Any:
    """Return a model of transformers in float32 with the weights of a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(file.config(), dtype=torch.float32)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in file.state(model):
            parameters[name].copy_(torch.tensor(weight))
        if ROPE_FACTORS in file.tensors:
            factors = torch.tensor(file.weight(ROPE_FACTORS))
            model.model.rotary_emb.inv_freq /= factors
    return model.eval()


def tokenizer_of(file: GgufFile) -> Any:
    """Return a tokenizer of the `tokenizers` library that reads as llama.cpp does."""
    from tokenizers import AddedToken, Tokenizer

    figures = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in file.figures.items()
        if key.startswith("tokenizer.ggml.")
    }
    tokens, types = figures["tokens"], figures["token_type"]
    made: Tokenizer = Tokenizer.from_str(json.dumps(_tokenizer_json(figures)))
    for index, kind in enumerate(types):
        if kind in (CONTROL, USER_DEFINED, UNKNOWN):
            token = AddedToken(tokens[index], special=kind != USER_DEFINED, normalized=False)
            (made.add_special_tokens if kind != USER_DEFINED else made.add_tokens)([token])
    return made


def ids_of(file: GgufFile, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts by the file's vocabulary, bos and eos as it says."""
    tokenizer = tokenizer_of(file)
    front = _added(file, "add_bos_token", "bos_token_id")
    end = _added(file, "add_eos_token", "eos_token_id")
    return [[*front, *tokenizer.encode(text).ids, *end] for text in texts]


def _added(file: GgufFile, switch: str, token: str) -> list[int]:
    added = file.figures[f"tokenizer.ggml.{switch}"]
    return [file.figures[f"tokenizer.ggml.{token}"]] if added else []


def _tokenizer_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    byte_level = figures["model"] == "gpt2"
    vocab = {
        token: index
        for index, (token, kind) in enumerate(
            zip(figures["tokens"], figures["token_type"], strict=True)
        )
        if kind != UNUSED
    }
    if byte_level:
        merges = [merge.split(" ") for merge in figures["merges"]]
        pre = {"type": "Sequence", "pretokenizers": list(PRE_TOKENIZERS[figures["pre"]])}
        normalizer = None
    else:
        merges, pre = _merges_by_score(vocab, figures["scores"]), None
        steps: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        ]
        if figures["add_space_prefix"]:
            steps.insert(0, {"type": "Prepend", "prepend": "▁"})
        normalizer = {"type": "Sequence", "normalizers": steps}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": not byte_level,
            "ignore_merges": figures["pre"] in IGNORE_MERGES,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _merges_by_score(vocab: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Return every way to make a token of two others, those to the highest score first."""
    found = [
        (-scores[index], vocab[token[:cut]], vocab[token[cut:]], token[:cut], token[cut:])
        for token, index in vocab.items()
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    return [[left, right] for *_, left, right in sorted(found)]


def _answer(path: Path, asked: Path, answered: Path) -> None:
    import numpy as np

    file = GgufFile(path)
    questions = json.loads(asked.read_text(encoding="utf-8"))
    ids = json.dumps(ids_of(file, questions["texts"]))
    logits = logits_of(model_of(file), questions["tokens"])
    np.savez(answered, logits=logits, ids=np.array(ids))


if __name__ == "__main__":
    _answer(*(Path(argument) for argument in sys.argv[1:4]))
