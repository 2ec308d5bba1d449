"""A tokenizer as GGUF keeps it: tokens, their types, merges or scores, and the special ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from registry.errors import ModelError
from registry.gguf.pretokenizers import name_of
from registry.store.filenames import TOKENIZER, TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

_WHERE = TOKENIZER
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""The types of tokens, as gguf.TokenType numbers them."""


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to read text as the model's tokenizer does.

    Attributes:
        model: 'gpt2' for a byte-level BPE, 'llama' for a SentencePiece-like one.
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: by id, as many as the model has embeddings.
        types: of each token.
        merges: of a byte-level BPE, first come first.
        scores: of a SentencePiece-like one: the highest is merged first.
        special: ids by gguf's name (bos, eos, eot, unknown, padding), those that there are.
        add_bos: whether every text begins with bos.
        add_eos: whether every text ends with eos.
        space_prefix: whether a text gets a space in front.
        template: the chat template; None without.
        remark: what llama.cpp reads otherwise all the same; empty where nothing is.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    special: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool
    template: str | None
    remark: str = ""


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, size: int, ends: Sequence[int]) -> Vocabulary:
    """Return the tokenizer as GGUF keeps it.

    Args:
        tokenizer: one of the `tokenizers` library.
        size: how many tokens the model has embeddings for.
        ends: ids that end an answer, as config and generation config name them.

    Raises:
        UserError: it is of a kind that llama.cpp reads otherwise; named.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("a tokenizer without tokenizer.json is not written as GGUF", _WHERE)
    content: dict[str, Any] = json.loads(backend.to_str())
    model = content["model"]
    if model["type"] != "BPE" or model.get("dropout"):
        raise ModelError(f"a {model['type']} is not written as GGUF", f"{_WHERE}: model", "BPE")
    tokens, types = _tokens(content, size)
    add_bos, add_eos = _adds(tokenizer)
    common: dict[str, Any] = {
        "tokens": tokens,
        "types": types,
        "special": _special(tokenizer, ends),
        "add_bos": add_bos,
        "add_eos": add_eos,
        "template": _template(tokenizer),
    }
    if model.get("byte_fallback"):
        return Vocabulary(
            model="llama",
            pre="default",
            merges=(),
            scores=_scores(model, tokens),
            space_prefix=_space_prefix(content),
            **common,
        )
    _check_byte_level(content)
    pre, remark = name_of(content, _WHERE)
    return Vocabulary(
        model="gpt2",
        pre=pre,
        merges=tuple(" ".join(_pair(merge)) for merge in model["merges"]),
        scores=(),
        space_prefix=False,
        remark=remark,
        **common,
    )


def _tokens(content: Mapping[str, Any], size: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return tokens by id with their types; ids of the model without a token are unused."""
    bytes_too = bool(content["model"].get("byte_fallback"))
    known: dict[int, tuple[str, int]] = {
        index: (token, BYTE if bytes_too and _BYTE.fullmatch(token) else NORMAL)
        for token, index in content["model"]["vocab"].items()
    }
    for added in content["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ModelError(
                f"llama.cpp reads {added['content']!r} otherwise: it strips spaces or is a word",
                f"{_WHERE}: added_tokens",
            )
        kind = CONTROL if added["special"] else USER_DEFINED
        if added["content"] == content["model"].get("unk_token"):
            kind = UNKNOWN
        known[added["id"]] = (added["content"], kind)
    if max(known) >= size:
        raise ModelError(
            f"the tokenizer has the token {max(known)}, the model {size} embeddings", _WHERE
        )
    filled = [known.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    return tuple(token for token, _ in filled), tuple(kind for _, kind in filled)


def _special(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> dict[str, int]:
    found = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    if found["eos"] is None and ends:
        found["eos"] = ends[0]
    others = [end for end in ends if end != found["eos"]]
    if others:
        found["eot"] = others[0]
    return {name: int(index) for name, index in found.items() if isinstance(index, int)}


def _adds(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Return whether bos is put in front of every text, and eos behind."""
    added: list[int] = list(tokenizer("")["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    shapes: tuple[tuple[list[int | None], tuple[bool, bool]], ...] = (
        ([], (False, False)),
        ([bos], (True, False)),
        ([eos], (False, True)),
    )
    found = next(
        (adds for ids, adds in (*shapes, ([bos, eos], (True, True))) if ids == added), None
    )
    if found is None:
        raise ModelError(
            "llama.cpp adds bos and eos alone to a text",
            f"{_WHERE}: post_processor",
            "what adds no other tokens",
        )
    return found


def _template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    given = tokenizer.chat_template
    template = given.get("default") if isinstance(given, dict) else given
    try:
        (template or "").encode()
    except UnicodeEncodeError:
        raise ModelError("the chat template is no UTF-8", TOKENIZER_CONFIG) from None
    return template


def _check_byte_level(content: Mapping[str, Any]) -> None:
    normalizer = content["normalizer"]
    # llama.cpp normalizes nothing. NFC changes no text that is composed already, as nearly all is.
    if normalizer and normalizer["type"] != "NFC":
        raise ModelError(
            f"llama.cpp doesn't normalize text as {normalizer['type']} does",
            f"{_WHERE}: normalizer",
            "none or NFC",
        )
    model = content["model"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ModelError(f"a BPE with a {key} is not written as GGUF", f"{_WHERE}: model.{key}")


def _scores(model: Mapping[str, Any], tokens: Sequence[str]) -> tuple[float, ...]:
    """Return a score for each token: less the later it is merged.

    SentencePiece merges by the score of what comes out. A tokenizer.json made from it has all
    merges to one token in a row, so that their place is the score's order.

    Raises:
        UserError: they aren't, so that no scores tell the order.
    """
    scores: dict[str, float] = {}
    last = ""
    for rank, merge in enumerate(model["merges"]):
        made = "".join(_pair(merge))
        if made != last and made in scores:
            raise ModelError(
                "this BPE with byte fallback is none of SentencePiece's",
                f"{_WHERE}: model.merges",
                "all merges to one token in a row",
            )
        scores.setdefault(made, -float(rank))
        last = made
    lowest = -float(len(model["merges"]))
    return tuple(scores.get(token, lowest) for token in tokens)


def _space_prefix(content: Mapping[str, Any]) -> bool:
    steps = [*_steps(content["normalizer"]), *_steps(content["pre_tokenizer"])]
    found = False
    for step in steps:
        kind = step["type"]
        if kind == "Metaspace":
            found = found or step.get("prepend_scheme", "always") != "never"
        elif kind == "Prepend" and step["prepend"] == "▁":
            found = True
        elif not (_is_space(step) and kind in ("Replace", "Split")):
            raise ModelError(
                f"a SentencePiece-like tokenizer with {kind} is not written as GGUF", _WHERE
            )
    return found


def _is_space(step: Mapping[str, Any]) -> bool:
    return step["pattern"] in ({"String": " "}, {"Regex": " "}, {"String": "▁"})


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    inner = part.get("normalizers") or part.get("pretokenizers")
    return [part] if inner is None else [step for one in inner for step in _steps(one)]


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right
