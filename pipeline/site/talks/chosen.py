"""What a form of the chat has: who is asked, by which prompt, how answers are drawn."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from evals.engine.live.ask import HOTTEST
from pipeline.talk.talk import ANSWER_TOKENS, Drawing
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_TOKENS = 1_000_000
_MOST_CARRIED = 1000  # characters of a text that goes along to a new talk
_DIGITS = 18


@dataclass(frozen=True)
class Chosen:
    """The fields as they were given; empty is what the page begins with.

    Attributes:
        model: by name.
        against: who is asked the same, by name.
        prompt: `capability/prompt`.
        tokens: the longest answer.
        temperature: 0 to 2.
        seed: a whole number.
        text: what is said.
    """

    model: str = ""
    against: str = ""
    prompt: str = ""
    tokens: str = str(ANSWER_TOKENS)
    temperature: str = "0"
    seed: str = ""
    text: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """Return what a form or an address has of it."""
        found = {name: given[name] for name in asdict(cls()) if given.get(name)}
        return cls(**{name: lines_of(value) for name, value in found.items()})

    @property
    def asked_by(self) -> tuple[str | None, str | None]:
        """The prompt, and the capability or guard that it is of."""
        capability, _, prompt = self.prompt.rpartition("/")
        return (prompt or None, capability or None)

    def drawing(self) -> Drawing:
        """Return how answers are drawn.

        Raises:
            UserError: a value that can't be.
        """
        return Drawing(limit=self._tokens(), temperature=self._temperature(), seed=self._seed())

    def query(self) -> dict[str, Any]:
        """Return the same as parts of an address, without a long text."""
        text = self.text if len(self.text) <= _MOST_CARRIED else ""
        return {**asdict(self), "text": text}

    def _tokens(self) -> int:
        given = self.tokens.strip()
        if not (_is_whole(given) and 1 <= int(given) <= MOST_TOKENS):
            raise UserError(f"'{given}' is no number of tokens", expected=f"1 to {MOST_TOKENS:,}")
        return int(given)

    def _temperature(self) -> float:
        try:
            found = float(self.temperature)
        except ValueError:
            found = math.nan
        if not 0 <= found <= HOTTEST:
            raise UserError(f"'{self.temperature}' is no temperature", expected="0 to 2")
        return found

    def _seed(self) -> int | None:
        given = self.seed.strip()
        if given and not _is_whole(given):
            raise UserError(f"'{given}' is no seed", expected="a whole number from 0, or nothing")
        return int(given) if given else None


def lines_of(given: str) -> str:
    """Return a text with line breaks as they were typed: a form sends two characters for each."""
    return given.replace("\r\n", "\n")


def _is_whole(given: str) -> bool:
    return given.isascii() and given.isdecimal() and len(given) <= _DIGITS
