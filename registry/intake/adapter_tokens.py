"""The check that the tokens whose rows an adapter from outside trained are those of its base."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.intake.adapter_chat import added_tokens
from registry.store.filenames import TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

_KEY = "trainable_token_indices"
_NAMED = 5  # tokens that a message names


def check_tokens(
    folder: Path,
    config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    base: str,
    where: str,
) -> None:
    """Check that a base has every token whose row was trained, by the text that it stands for.

    Without them the rows would go to tokens that nothing is ever read as, and no error would say
    so: the adapter would answer as if they had not been trained.

    Args:
        folder: of the adapter; its tokenizer, where it has one, says what the tokens are.
        config: its configuration.
        tokenizer: the base's, with the tokens that the spec adds.
        base: its name in the spec.
        where: for the message.

    Raises:
        UserError: the base has others in their places, or none.
    """
    trained = _trained(config, f"{where}: {_KEY}")
    if not trained:
        return
    theirs = added_tokens(folder / TOKENIZER)
    own = {number: token for token, number in tokenizer.get_vocab().items()}
    unlike = [one for one in trained if one in theirs and own.get(one) != theirs[one]]
    if unlike:
        texts = [json.dumps(theirs[number], ensure_ascii=False) for number in unlike]
        more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
        raise ModelError(
            f"it trains tokens that base {base} doesn't have in their places: "
            f"{', '.join(texts[:_NAMED])}{more}",
            where,
            fix=f"give the base the same: bases.{base}.new_tokens: [{', '.join(texts[:_NAMED])}]",
        )
    nothing = next((number for number in trained if number not in own), None)
    if nothing is not None:
        raise ModelError(
            f"it trains the row of token {nothing}, and base {base} has no such token",
            f"{where}: {_KEY}",
            expected=f"tokens below {len(own)}",
            fix=f"name its new tokens under bases.{base}.new_tokens",
        )


def _trained(config: Mapping[str, Any], where: str) -> list[int]:
    given = config.get(_KEY) or []
    lists = list(given.values()) if isinstance(given, dict) else [given]
    if not all(isinstance(one, list) and all(type(n) is int for n in one) for one in lists):
        raise ModelError("it names no tokens", where, "lists of their numbers")
    return sorted({number for one in lists for number in one})
