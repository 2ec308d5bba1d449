"""Tokenization as `TextTokens` has it, without encoding anything twice.

lm-eval encodes context + continuation afresh for every choice, which costs more than a small
model's forward. A byte-level BPE with a splitting pre-tokenizer encodes its pre-tokens one by one,
so that what follows a pre-token boundary is encoded as if it stood alone: the context is encoded
once, and each choice with the last few pre-tokens of its context, which many contexts share. Any
other tokenizer, and any text for which that doesn't hold, is encoded in full.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.chat.template import Rendered
from registry.chat.tokens import TextTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

# Shared text shorter than this isn't worth a cut.
SHARED_CHARACTERS = 256
# How many tokens back a boundary is looked for.
_LOOK_BACK = 64
_KEEP_TAILS = 200_000


@dataclass(frozen=True, slots=True)
class Context:
    """An encoded context: `ids`, of which those from `head` on are the encoding of `tail`.

    `tail` is None where the text can't be cut, and then `text` is encoded with each continuation.
    """

    ids: list[int]
    head: int
    tail: str | None
    text: str


class Encoder:
    """Encodes contexts and continuations; keeps what short tails become.

    Args:
        tokenizer: any Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See the class."""
        self._tokens = TextTokens(tokenizer)
        self._reach = 1 + max((len(t) for t in tokenizer.get_added_vocab()), default=0)
        self._tails: dict[str, list[int]] = {}
        splits = _splits(tokenizer) and not self._tokens.trails
        self._backend: Any = tokenizer.backend_tokenizer if splits else None

    def whole(self, text: str) -> list[int]:
        """A text's ids, with the special tokens that it needs in front."""
        return self._tokens.whole(text)

    def bare(self, text: str) -> list[int]:
        """A text's ids without special tokens."""
        return self._tokens.bare(text)

    def contexts(self, texts: Sequence[str]) -> list[Context]:
        """Encode contexts; text that all of them begin with is encoded once."""
        if self._backend is None:
            return [Context(self.whole(text), 0, None, text) for text in texts]
        shared = _common_text(texts) if len(set(map(type, texts))) == 1 else ""
        cut = self._cut(self._raw([shared])[0], shared) if shared else None
        if cut is None:
            return self._finish(texts, [], 0)
        # What a template wrote stays that when it is cut.
        head = self.whole(type(texts[0])(shared[: cut[1]]))
        made = self._finish(texts, head, cut[1])
        # The cut is a theorem about the pre-tokenizer; a tokenizer that breaks it shows here.
        if any(made[at].ids != self.whole(texts[at]) for at in (0, len(texts) - 1)):
            return self._finish(texts, [], 0)
        return made

    def continuations(self, context: Context, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each continuation: what context + continuation has beyond the context's ids."""
        if context.tail is None:
            kind = type(context.text)
            wholes = [self.whole(kind(context.text + text)) for text in texts]
            return [
                self._behind(context, whole, 0, text)
                for whole, text in zip(wholes, texts, strict=True)
            ]
        joined = [context.tail + text for text in texts]
        missing = list(dict.fromkeys(t for t in joined if t not in self._tails))
        if missing:
            if len(self._tails) > _KEEP_TAILS:
                self._tails.clear()
                missing = list(dict.fromkeys(joined))
            for text, encoding in zip(missing, self._raw(missing), strict=True):
                self._tails[text] = encoding.ids
        return [
            self._behind(context, self._tails[whole], context.head, text)
            for whole, text in zip(joined, texts, strict=True)
        ]

    def _behind(self, context: Context, whole: list[int], head: int, text: str) -> list[int]:
        """What `whole`, whose ids begin at `head`, has beyond the context.

        What a template wrote is read as it stands before an answer is written, whose first
        characters can't change it then; see `TextTokens.pairs`. Elsewhere lm-eval's rule holds.
        """
        known = context.ids[head:]
        if isinstance(context.text, Rendered) and whole[: len(known)] != known:
            return self.bare(text)
        return whole[len(known) :]

    def _raw(self, texts: Sequence[str]) -> list[Any]:
        # Padding set by an earlier call of the tokenizer stays in the backend.
        self._backend.no_padding()
        self._backend.no_truncation()
        return list(self._backend.encode_batch(list(texts), add_special_tokens=False))

    def _finish(self, texts: Sequence[str], head: list[int], start: int) -> list[Context]:
        made: list[Context] = []
        for text, encoding in zip(texts, self._raw([t[start:] for t in texts]), strict=True):
            ids = head + encoding.ids if start else self._with_specials(text, encoding.ids)
            cut = self._cut(encoding, text[start:])
            if cut is None and start:
                cut = (0, 0)  # the shared text's own cut
            if cut is None or not _composed(text):
                made.append(Context(self.whole(text), 0, None, text))
                continue
            tail = text[start + cut[1] :]
            made.append(self._checked(ids, len(ids) - len(encoding.ids) + cut[0], tail, text))
        return made

    def _with_specials(self, text: str, ids: list[int]) -> list[int]:
        return ids if self._tokens.is_complete(text) else self._tokens.lead + ids

    def _checked(self, ids: list[int], head: int, tail: str, text: str) -> Context:
        known = self._tails.get(tail)
        if known is None:
            known = self._tails[tail] = self._raw([tail])[0].ids
        return Context(ids, head, tail if ids[head:] == known else None, text)

    def _cut(self, encoding: Any, text: str) -> tuple[int, int] | None:
        """The last boundary that no appended text can move, as (token, character).

        Two pre-tokens and the longest added token are left behind it: a pre-tokenizer's pattern
        looks at most one pre-token ahead, and an added token could be completed by what follows.
        """
        count = len(encoding.ids)
        last = None
        seen = 0
        for token in range(count - 1, max(count - _LOOK_BACK, 0) - 1, -1):
            word = encoding.token_to_word(token)
            starts = token == 0 or encoding.token_to_word(token - 1) != word
            if word is None or not starts:
                continue
            seen += 1
            begin = encoding.token_to_chars(token)[0]
            if seen > 1 and begin <= len(text) - self._reach:
                last = (token, begin)
                break
        return last


def _splits(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each pre-token is encoded by itself."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.pre_tokenizer is None:
        return False
    parts = json.loads(backend.pre_tokenizer.__getstate__())
    parts = parts.get("pretokenizers", [parts])
    levels = [part for part in parts if part["type"] == "ByteLevel"]
    known = all(part["type"] in {"ByteLevel", "Split", "Digits"} for part in parts)
    regex = any(part["type"] == "Split" or part.get("use_regex") for part in parts)
    plain = bool(levels) and not any(part.get("add_prefix_space") for part in levels)
    normalizer = backend.normalizer and json.loads(backend.normalizer.__getstate__())["type"]
    return bool(known and regex and plain and normalizer in {None, "NFC"})


def _composed(text: str) -> bool:
    """Whether NFC leaves the text alone, so that a cut can't fall between what it would join."""
    return text.isascii() or unicodedata.is_normalized("NFC", text)


def _common_text(texts: Sequence[str]) -> str:
    if len(texts) < 2:  # noqa: PLR2004 - one text shares nothing
        return ""
    # By characters, which is what is wanted: what the first and last share, all share.
    shared = os.path.commonprefix([min(texts), max(texts)])  # noqa: RUF071
    return shared if len(shared) >= SHARED_CHARACTERS and _composed(shared) else ""
