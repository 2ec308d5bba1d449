"""What a base says by itself, drawn token by token from its own distribution, and kept.

Such a text asks nothing of the base that it doesn't say already: trained on, its gradient is zero
on average until something else moves the weights. Drawn with a seed, a batch at a time, so that
the same texts come whether it was killed between two of them or not. Heavy at import (torch).
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

import torch

from evals.engine.journal import Journal, keys_of
from evals.scoring.own_answers import OwnAnswer
from registry.chat.form import answer_form
from registry.chat.tokens import TextTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from registry.models.load import LoadedModel

BATCH = 8
"""Texts that are drawn together; another number would give others."""

# Without these a checkpoint's own settings would bend the distribution.
_PLAIN: dict[str, Any] = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
}


def sampled(
    loaded: LoadedModel,
    conversation: Sequence[Mapping[str, Any]],
    count: int,
    kept: Path,
    *,
    max_new_tokens: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[OwnAnswer]:
    """Return `count` texts that the base alone draws after a conversation.

    Args:
        loaded: the base.
        conversation: turns, the last of them the user's; it may be empty.
        count: of texts; a larger one begins with the same.
        kept: the journal; of one base.
        max_new_tokens: the longest text. One with a special token inside hasn't ended.
        seed: of the draws.
        progress: called with (done, total) texts.

    Raises:
        TurnRefusedError: the base's template doesn't take the conversation.
    """
    context = loaded.chat.context([dict(turn) for turn in conversation])
    drawer = Drawer(loaded, kept, max_new_tokens=max_new_tokens)
    found: list[OwnAnswer] = []
    for one in drawer.draws(context, count, seed=seed):
        found.append(one)
        if progress is not None:
            progress(len(found), count)
    return found


class Drawer:
    """Draws answers of the base alone, as they are wanted, and keeps them.

    Args:
        loaded: the base.
        kept: the journal; of one base.
        max_new_tokens: the longest answer. One with a special token inside hasn't ended.
    """

    def __init__(self, loaded: LoadedModel, kept: Path, *, max_new_tokens: int) -> None:
        """See the class."""
        self._loaded = loaded
        self._journal = Journal(kept)
        self._most = max_new_tokens
        self._form = answer_form(loaded.chat)
        self._tokens = TextTokens(loaded.tokenizer)

    def draws(
        self, context: str, count: int, *, seed: int = 0, together: int = BATCH
    ) -> Iterator[OwnAnswer]:
        """Yield `count` answers to a context of the base's chat template, none before it is wanted.

        Args:
            context: what the base reads.
            count: a larger one begins with the same.
            seed: of the draws.
            together: how many are drawn at once; another number gives others.
        """
        asked, led = self._tokens.whole(context), self._tokens.led(context)
        for start in range(0, count, together):
            setting = {"seed": seed, "from": start, "tokens": self._most, **_PLAIN}
            if together != BATCH:
                setting["together"] = together
            if led:  # what a template wrote is all that is read
                setting["led"] = led
            (key,) = keys_of("sampled", [(context, setting)])
            drawn = self._journal.get(key)
            if drawn is None:
                self._loaded.use(None)
                drawn = _draw(self._loaded, asked, self._most, f"{seed}:{start}", together)
                self._journal.add(key, drawn)
                self._journal.flush()
            for tokens in drawn[: count - start]:
                yield self._answer(len(asked), tokens)

    def _answer(self, asked: int, tokens: Sequence[int]) -> OwnAnswer:
        """Return what was said up to what ends a turn, as a scorer is given it."""
        chat = self._loaded.chat
        said = list(takewhile(lambda token: token not in chat.stops, tokens))
        text, end, _ = str(chat.tokenizer.decode(said)).partition(self._form.end or "\n\n")
        answer = self._form.answer_in(text)
        whole = not any(special in answer for special in chat.texts_of(chat.specials) if special)
        ended = whole and (bool(end) or len(said) < len(tokens))
        return OwnAnswer(answer, ended, asked + len(said))


def _draw(
    loaded: LoadedModel, asked: list[int], most: int, seed: str, together: int
) -> list[list[int]]:
    ids = torch.tensor([asked] * together, device=loaded.device)
    devices = [] if loaded.device.type == "cpu" else [loaded.device]
    stops = sorted(loaded.chat.stops)
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(seed.encode(), "big") % 2**63)
        made = cast("Any", loaded.model).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            eos_token_id=stops,
            pad_token_id=stops[0],
            **_PLAIN,
        )
    return [[int(token) for token in row] for row in made[:, len(asked) :].tolist()]
