"""How the tokenizer and chat template beside an adapter from outside differ from its base's.

An adapter is asked with its base's. Where it was trained with others, it would be asked in a way
that it has never seen, and no error would say so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.store.filenames import TOKENIZER, TOKENIZER_CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

_MOST_BYTES = 64 << 20  # of a tokenizer; those of 260,000 tokens take about 35 MiB
_TEMPLATE = "chat_template.jinja"
_NAMED = 3  # tokens that a message names


def check_vocabulary(
    folder: Path, tokenizer: PreTrainedTokenizerBase, base: str, where: str
) -> None:
    """Check that each token beside an adapter stands for the same text in its base.

    Args:
        folder: of the adapter; without a tokenizer nothing is said.
        tokenizer: the base's, with the tokens that the spec adds.
        base: its name in the spec.
        where: for the message.

    Raises:
        UserError: a token stands for another text there, or the tokenizer can't be read.
    """
    own = {number: token for token, number in tokenizer.get_vocab().items()}
    theirs = _vocabulary(folder / TOKENIZER)
    unlike = sorted(one for one, text in theirs.items() if own.get(one, text) != text)
    if unlike:
        pairs = ", ".join(f"{n} is {_shown(theirs[n])}, not {_shown(own[n])}" for n in unlike[:2])
        raise ModelError(
            f"it was trained with another tokenizer than base {base}'s: {len(unlike)} tokens "
            f"differ, as token {pairs}",
            where,
            expected="an adapter of this very base, or of a copy with the same tokenizer",
        )


def unlike_base(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return in words what of an adapter's chat template and special tokens isn't its base's."""
    config = _object(folder / TOKENIZER_CONFIG)
    found = []
    template, own = _template(folder, config), _default(tokenizer.chat_template)
    if template is not None and template.strip() != (own or "").strip():
        found.append("its chat template is not the base's" if own else "the base has no template")
    end = config.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    if isinstance(end, str) and end != tokenizer.eos_token:
        found.append(f"its text ends with {_shown(end)}, the base's with {tokenizer.eos_token!r}")
    known = tokenizer.get_vocab()
    more = [
        text for _, text in sorted(_vocabulary(folder / TOKENIZER).items()) if text not in known
    ]
    if more:
        named = ", ".join(map(_shown, more[:_NAMED]))
        named += f" and {len(more) - _NAMED} more" if len(more) > _NAMED else ""
        found.append(f"it has tokens that the base lacks: {named}")
    return tuple(found)


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / _TEMPLATE
    if path.is_file():
        return path.read_text("utf-8", errors="replace")
    given = config.get("chat_template")
    if isinstance(given, list):  # [{name: …, template: …}, …]
        given = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
    return _default(given)


def _default(given: object) -> str | None:
    """The one that is taken where a tokenizer has several by name."""
    if isinstance(given, dict):
        given = given.get("default")
    return given if isinstance(given, str) else None


def _object(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a tokenizer says; nothing where there is none."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(f"{path.stat().st_size} bytes", str(path), f"{_MOST_BYTES} at most")
    try:
        given = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_tokenizer(path, error) from None
    if not isinstance(given, dict):
        raise ModelError("no tokenizer: no JSON object", str(path))
    return given


def added_tokens(path: Path) -> dict[int, str]:
    """Return number -> text of the tokens that were added to the vocabulary of a tokenizer."""
    try:
        return {int(a["id"]): str(a["content"]) for a in _object(path).get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise _no_tokenizer(path, error) from None


def _vocabulary(path: Path) -> dict[int, str]:
    """Return number -> text of all tokens in a tokenizer.json; nothing where there is none."""
    try:
        vocab = (_object(path).get("model") or {}).get("vocab") or {}
        if isinstance(vocab, dict):
            found = {int(number): str(text) for text, number in vocab.items()}
        else:  # pieces with their scores
            found = {number: str(piece[0]) for number, piece in enumerate(vocab)}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _no_tokenizer(path, error) from None
    return found | added_tokens(path)


def _no_tokenizer(path: Path, error: Exception) -> ModelError:
    return ModelError(f"no tokenizer ({type(error).__name__})", str(path))


def _shown(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
