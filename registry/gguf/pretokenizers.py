"""The pre-tokenizers that llama.cpp knows by name, as tokenizer.json writes them.

llama.cpp takes the name alone and has the expressions compiled in. A tokenizer that cuts text
otherwise than one of these would be read wrongly without a word, so it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

Part = dict[str, Any]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(regex: str) -> Part:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _bytes(*, regex: bool) -> Part:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": regex,
    }


_DIGITS: Part = {"type": "Digits", "individual_digits": True}

PRE_TOKENIZERS: dict[str, tuple[Part, ...]] = {
    "gpt-2": (_bytes(regex=True),),
    "smollm": (_DIGITS, _bytes(regex=True)),
    "llama-bpe": (_split(_CONTRACTIONS + r"\p{N}{1,3}" + _REST), _bytes(regex=False)),
    "qwen2": (_split(_CONTRACTIONS + r"\p{N}" + _REST), _bytes(regex=False)),
    "tekken": (_split(_TEKKEN), _bytes(regex=False)),
}
"""llama.cpp's name -> the steps of a pre-tokenizer."""

IGNORE_MERGES = frozenset({"llama-bpe", "tekken"})
"""Those where llama.cpp takes a whole word that is a token, whatever the merges say."""

# Other names that llama.cpp has for the same.
_ALSO = {
    "smollm": ("minerva-7b",),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "pixtral"),
    "qwen2": ("deepseek-r1-qwen", "megrez"),
}
_BY_NAME = {
    **{name: name for name in PRE_TOKENIZERS},
    **{other: name for name, others in _ALSO.items() for other in others},
}
_BY_ARCHITECTURE = {"qwen2": "qwen2", "qwen3": "qwen2"}
_LLAMA3_TOKENS = 128_000

_NANO = (_split(" "), _DIGITS, _bytes(regex=True))
# A space, tab, line feed, carriage return and an apostrophe as a byte-level BPE writes them.
_MATTERS = frozenset("ĠĉĊč'")
_NANO_REMARK = (
    "a word that begins with 's, 't, 're, 've, 'm, 'll or 'd after a space, as in \"of 'so\", may "
    "be cut otherwise by llama.cpp, which has no name for this pre-tokenizer"
)


def name_of(tokenizer: dict[str, Any], where: str) -> tuple[str, str]:
    """Return llama.cpp's name for a pre-tokenizer, and what llama.cpp reads otherwise.

    The second is for people, and empty where nothing is. `tokenizer` is a tokenizer.json.

    Raises:
        UserError: it has none.
    """
    parts = _parts(tokenizer["pre_tokenizer"])
    merges = tokenizer["model"]["merges"]
    name = next((name for name, known in PRE_TOKENIZERS.items() if parts == list(known)), None)
    remark = ""
    if name is None and parts == list(_NANO) and not _joins(merges):
        # Cutting at each space first makes no difference to merges that take in no space, but for
        # the contractions: " '" is one piece there, and what follows no contraction any more.
        name, remark = "smollm", _NANO_REMARK
    if name is None:
        kinds = ", ".join(str(part.get("type")) for part in parts) or "none"
        raise ModelError(
            f"llama.cpp has no name for this pre-tokenizer ({kinds})",
            f"{where}: pre_tokenizer",
            "that of " + ", ".join(PRE_TOKENIZERS),
        )
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    if whole_words != (name in IGNORE_MERGES):
        raise ModelError(
            f"llama.cpp takes ignore_merges of {name} to be {str(not whole_words).lower()}",
            f"{where}: model.ignore_merges",
        )
    return name, remark


def pre_tokenizer_of(given: str | None, arch: str, size: int) -> tuple[str, list[str]]:
    """Return our name for the pre-tokenizer of a GGUF file, and what was guessed, for people.

    Args:
        given: what the file calls it; None where it says nothing.
        arch: its architecture.
        size: how many tokens it has.
    """
    if given in _BY_NAME:
        return _BY_NAME[given], []
    usual = "llama-bpe" if arch == "llama" and size >= _LLAMA3_TOKENS else "gpt-2"
    name = _BY_ARCHITECTURE.get(arch, usual)
    said = f"'{given}', which isn't known here" if given else "not named"
    return name, [f"its pre-tokenizer is {said}: text is cut as {name} does, tokens may differ"]


def _parts(pre_tokenizer: Part | None) -> list[Part]:
    """Return the steps, without what changes no token."""
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return [step for one in pre_tokenizer["pretokenizers"] for step in _parts(one)]
    step = dict(pre_tokenizer)
    if step["type"] == "ByteLevel":
        step["trim_offsets"] = True  # of the offsets alone
    elif step["type"] == "Split" and "String" in step["pattern"]:
        step["pattern"] = {"Regex": step["pattern"]["String"]}
    return [step]


def _joins(merges: Sequence[Sequence[str] | str]) -> bool:
    """Whether any merge takes in a space or an apostrophe."""
    return any(_MATTERS & set("".join(pair).replace(" ", "")) for pair in merges)
