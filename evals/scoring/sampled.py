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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
    chat = loaded.chat
    context = chat.context([dict(turn) for turn in conversation])
    (asked,) = chat.tokenizer([context], add_special_tokens=False)["input_ids"]
    loaded.use(None)
    journal, form = Journal(kept), answer_form(chat)
    found: list[OwnAnswer] = []
    for start in range(0, count, BATCH):
        setting = {"seed": seed, "from": start, "tokens": max_new_tokens, **_PLAIN}
        (key,) = keys_of("sampled", [(context, setting)])
        drawn = journal.get(key)
        if drawn is None:
            drawn = _draw(loaded, list(asked), max_new_tokens, f"{seed}:{start}")
            journal.add(key, drawn)
            journal.flush()
        for tokens in drawn:
            said = list(takewhile(lambda token: token not in chat.specials, tokens))
            ended = len(said) < len(tokens) and tokens[len(said)] in chat.stops
            text = str(chat.tokenizer.decode(said))
            found.append(OwnAnswer(form.answer_in(text), ended, len(asked) + len(said)))
        if progress is not None:
            progress(min(len(found), count), count)
    return found[:count]


def _draw(loaded: LoadedModel, asked: list[int], most: int, seed: str) -> list[list[int]]:
    ids = torch.tensor([asked] * BATCH, device=loaded.device)
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
