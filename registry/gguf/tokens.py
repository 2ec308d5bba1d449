"""The tokenizer of a GGUF file, made anew from its vocabulary: it reads text as llama.cpp does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.gguf.pretokenizers import IGNORE_MERGES, PRE_TOKENIZERS, pre_tokenizer_of
from registry.gguf.vocabulary import CONTROL, UNKNOWN, UNUSED, USER_DEFINED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.gguf.file import GgufFile

_KINDS = ("gpt2", "llama")
_PREFIX = "tokenizer.ggml."
# Where a file of a SentencePiece-like vocabulary names none, llama.cpp takes these.
_USUAL = {"bos": 1, "eos": 2, "unknown": 0}
# Control tokens that end a turn: llama.cpp stops at them whatever the file says.
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>")


@dataclass(frozen=True)
class Tokens:
    """What a file says about its tokens.

    Attributes:
        kind: 'gpt2' for a byte-level BPE, 'llama' for a SentencePiece-like one.
        pre: our name of the pre-tokenizer.
        texts: the tokens by id.
        types: of each.
        special: ids by GGUF's names, such as bos and eos.
        front: what is put before every text.
        back: what is put behind it.
        ends: what ends an answer.
        template: the chat template; None without.
        guessed: what the file doesn't say, or can't, for people.
    """

    kind: str
    pre: str
    texts: Sequence[str]
    types: Sequence[int]
    special: Mapping[str, int]
    front: tuple[int, ...]
    back: tuple[int, ...]
    ends: tuple[int, ...]
    template: str | None
    guessed: tuple[str, ...]


def tokens_of(file: GgufFile) -> Tokens:
    """Return what a file says about its tokens.

    Raises:
        UserError: it has no vocabulary, or one of a kind that isn't read.
    """
    figures = _figures(file)
    texts, kind = figures.get("tokens"), str(figures.get("model", ""))
    if not texts:
        raise ModelError("it has no tokenizer", fix="take a GGUF file with one")
    if kind not in _KINDS:
        raise ModelError(f"a tokenizer of the kind '{kind}' isn't read", None, ", ".join(_KINDS))
    order = "merges" if kind == "gpt2" else "scores"
    if order not in figures:
        raise ModelError(f"its tokenizer has no {order}")
    guessed: list[str] = []
    pre = "default"
    if kind == "gpt2":
        pre, said = pre_tokenizer_of(figures.get("pre"), file.arch, len(texts))
        guessed += said
    special, said = _special(figures, kind, len(texts))
    guessed += said
    types, said = _types(figures, special, len(texts))
    guessed += said
    template, said = _template(file)
    guessed += said
    ends = [special[name] for name in ("eos", "eot", "eom") if name in special]
    for text in _ENDS if template else ():
        index = texts.index(text) if text in str(template) and text in texts else None
        if index is not None and types[index] == CONTROL and index not in ends:
            ends.append(index)
            guessed.append(f"answers end at {text} too, as its chat template says")
    usual = kind == "llama" or pre in IGNORE_MERGES
    return Tokens(
        kind=kind,
        pre=pre,
        texts=texts,
        types=types,
        special=special,
        front=_added(figures, special, "bos", usual=usual),
        back=_added(figures, special, "eos", usual=False),
        ends=tuple(ends),
        template=template,
        guessed=tuple(guessed),
    )


def tokenizer_of(file: GgufFile) -> Any:
    """Return a tokenizer of the `tokenizers` library that reads as llama.cpp does.

    It puts no bos or eos to a text.

    Raises:
        UserError: as `tokens_of`.
    """
    from tokenizers import AddedToken, Tokenizer

    tokens = tokens_of(file)
    made: Tokenizer = Tokenizer.from_str(json.dumps(_tokenizer_json(tokens, _figures(file))))
    for special, kinds in ((True, (CONTROL, UNKNOWN)), (False, (USER_DEFINED,))):
        added = [
            AddedToken(text, special=special, normalized=False)
            for text, kind in zip(tokens.texts, tokens.types, strict=True)
            if kind in kinds
        ]
        (made.add_special_tokens if special else made.add_tokens)(added)
    return made


def ids_of(file: GgufFile, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts by the file's vocabulary, bos and eos as it says."""
    tokenizer, tokens = tokenizer_of(file), tokens_of(file)
    return [[*tokens.front, *tokenizer.encode(text).ids, *tokens.back] for text in texts]


def _figures(file: GgufFile) -> dict[str, Any]:
    return {
        key.removeprefix(_PREFIX): value
        for key, value in file.figures.items()
        if key.startswith(_PREFIX)
    }


def _special(figures: Mapping[str, Any], kind: str, size: int) -> tuple[dict[str, int], list[str]]:
    suffix = "_token_id"
    found = {
        key.removesuffix(suffix): int(value)
        for key, value in figures.items()
        if key.endswith(suffix) and 0 <= int(value) < size
    }
    usual = {name: index for name, index in _USUAL.items() if name not in found and kind == "llama"}
    if not usual:
        return found, []
    named = ", ".join(f"{name} {figures['tokens'][index]}" for name, index in usual.items())
    return {**usual, **found}, [f"it names no {', no '.join(usual)}: taken to be {named}"]


def _types(
    figures: Mapping[str, Any], special: Mapping[str, int], size: int
) -> tuple[list[int], list[str]]:
    given = figures.get("token_type")
    if given:
        return list(given), []
    types = [1] * size
    for index in special.values():
        types[index] = CONTROL
    return types, ["it doesn't say which tokens are special: taken to be those that it names"]


def _template(file: GgufFile) -> tuple[str | None, list[str]]:
    key = "tokenizer.chat_template"
    given = file.figures.get(key)
    others = sorted(name for name in file.figures if name.startswith(f"{key}."))
    notes = [f"its chat template '{name.removeprefix(f'{key}.')}' isn't used" for name in others]
    if not given:
        notes.append("it has no chat template: the base is asked in plain text")
    return str(given) if given else None, notes


def _added(
    figures: Mapping[str, Any], special: Mapping[str, int], token: str, *, usual: bool
) -> tuple[int, ...]:
    wanted = figures.get(f"add_{token}_token", usual)
    return (special[token],) if wanted and token in special else ()


def _tokenizer_json(tokens: Tokens, figures: Mapping[str, Any]) -> dict[str, Any]:
    vocab = {
        text: index
        for index, (text, kind) in enumerate(zip(tokens.texts, tokens.types, strict=True))
        if kind != UNUSED
    }
    byte_level = tokens.kind == "gpt2"
    prefix = not byte_level and bool(figures.get("add_space_prefix", True))
    if byte_level:
        merges = [merge.split(" ") for merge in figures["merges"]]
        pre = {"type": "Sequence", "pretokenizers": list(PRE_TOKENIZERS[tokens.pre])}
        normalizer = None
    else:
        merges, pre = _merges_by_score(vocab, figures["scores"]), None
        steps: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        ]
        if prefix:
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
        "decoder": _decoder(byte_level=byte_level, prefix=prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": not byte_level,
            "ignore_merges": tokens.pre in IGNORE_MERGES,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _decoder(*, byte_level: bool, prefix: bool) -> dict[str, Any]:
    if byte_level:
        switches = ("add_prefix_space", "trim_offsets", "use_regex")
        return {"type": "ByteLevel", **dict.fromkeys(switches, True)}
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _merges_by_score(vocab: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Return every way to make a token of two others, those to the highest score first."""
    found = [
        (-scores[index], vocab[token[:cut]], vocab[token[cut:]], token[:cut], token[cut:])
        for token, index in vocab.items()
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    return [[left, right] for *_, left, right in sorted(found)]
