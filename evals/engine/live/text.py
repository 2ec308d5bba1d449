"""The text of an answer as its tokens come: whole characters only, and never into a stop text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

_PART = "\ufffd"
# A character has at most four bytes, each at most a token: more than these are no character.
_MOST_PARTS = 8


class AnswerText:
    """Decodes tokens one by one; the pieces together are the text of all tokens, up to a stop.

    A token is decoded with the few before it, as what it stands for may depend on them.

    Args:
        tokenizer: decodes.
        stops: texts that end the answer; the first to occur is cut off with all behind it.
        plain: leave special tokens out.

    Attributes:
        stopped: whether a stop text has come.
        whole: what was released so far.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = (), *, plain: bool = True
    ) -> None:
        """See the class."""
        self._tokenizer = tokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._plain = plain
        self._near: list[int] = []  # tokens behind the last but one boundary of characters
        self._read = 0  # of these, how many are read
        self._known = ""  # their text
        self._held = ""
        self._parts: list[str] = []
        self._behind = 0  # characters read, the held ones included
        self.stopped = False

    @property
    def whole(self) -> str:
        """What was released so far."""
        return "".join(self._parts)

    @property
    def behind(self) -> int:
        """How many characters were read; those of a part of a character count as one more."""
        return self._behind + (self._read < len(self._near))

    def add(self, token: int) -> str:
        """Take a token; return what can be shown now."""
        self._near.append(token)
        text = self._decoded(self._near)
        waiting = len(self._near) - self._read
        if len(text) <= len(self._known) or (text.endswith(_PART) and waiting < _MOST_PARTS):
            return ""
        new = text[len(self._known) :]
        del self._near[: self._read]
        self._read = len(self._near)
        self._known = self._decoded(self._near)
        return self._release(new)

    def end(self) -> str:
        """Return what was held back, of an answer that ends without a stop text."""
        if self.stopped:
            return ""
        rest = self._release(self._decoded(self._near)[len(self._known) :])
        last, self._held = self._held, ""
        if not self.stopped:
            self._parts.append(last)
            rest += last
        return rest

    def _release(self, new: str) -> str:
        self._behind += len(new)
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, keep = True, min(found)
        else:
            keep = len(text) - max((_begun(text, stop) for stop in self._stops), default=0)
        shown, self._held = text[:keep], text[keep:]
        self._parts.append(shown)
        return shown

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=self._plain))


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text may begin a stop text."""
    most = min(len(stop) - 1, len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
