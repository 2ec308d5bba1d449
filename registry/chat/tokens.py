"""Tokens of what a base reads, the same for training and asking.

What a chat template wrote has all special tokens that the base wants: it is encoded as
`apply_chat_template(tokenize=True)` does, without others. Any other text gets those that the
tokenizer puts in front of a text, unless it begins with them, and never any behind it: an
end-of-text token behind a question would end it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.chat.template import Rendered
from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from registry.chat.chat import Chat

_QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


def check_tokens(chat: Chat) -> None:
    """Prove on a question that its ids are those of `apply_chat_template(tokenize=True)`.

    Raises:
        UserError: they are not, so that the base would be trained on what nobody asks it with.
    """
    if not chat.tokenizer.chat_template:
        return
    asked = chat.render(_QUESTION, add_generation_prompt=True)
    options: dict[str, Any] = {"add_generation_prompt": True}
    if asked != chat.tokenizer.apply_chat_template(_QUESTION, tokenize=False, **options):
        return  # told otherwise, by thinking or a date
    theirs = chat.tokenizer.apply_chat_template(_QUESTION, tokenize=True, **options)
    if TextTokens(chat.tokenizer).whole(asked) != list(theirs["input_ids"]):
        raise ModelError(
            "the tokenizer reads a question otherwise than its chat template says",
            f"bases.{chat.identity.name}",
            expected="the ids of apply_chat_template",
        )


class TextTokens:
    """Encodes texts.

    Args:
        tokenizer: any Hugging Face tokenizer.

    Attributes:
        lead: what the tokenizer puts in front of every text, such as <s>.
        trails: whether it puts anything behind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See the class."""
        self._tokenizer = tokenizer
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self._first = "" if first is None else str(tokenizer.decode(first))
        bare, full = self.bare("a b"), list(tokenizer.encode("a b"))
        behind = len(full) - len(bare)
        begin = next((at for at in range(behind + 1) if full[at : at + len(bare)] == bare), behind)
        self.lead = full[:begin]
        self.trails = begin < behind

    def bare(self, text: str) -> list[int]:
        """A text's ids without special tokens that it doesn't write itself."""
        return self.bares([text])[0]

    def bares(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, see `bare`."""
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            truncation=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def whole(self, text: str) -> list[int]:
        """A text's ids, with the special tokens that it needs in front."""
        return self.wholes([text])[0]

    def led(self, text: str) -> list[int]:
        """The special tokens that a text needs in front; none if it has them."""
        return [] if self.is_complete(text) else self.lead

    def wholes(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, see `whole`."""
        if not texts:
            return []
        bares = self.bares(texts)
        return [[*self.led(text), *ids] for text, ids in zip(texts, bares, strict=True)]

    def pair(self, context: str, target: str) -> tuple[list[int], list[int]]:
        """The ids of a context as it is asked, and of what is written from there; see `pairs`."""
        return self.pairs([context], [target])[0]

    def pairs(
        self, contexts: Sequence[str], targets: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """The ids of each context as it is asked, and of its target behind it.

        As if both were one text, unless that would change a token of the context, which the model
        has read before it writes: then the target is encoded by itself.
        """
        asked = [
            [] if not context and self.is_complete(target) else ids
            for context, target, ids in zip(contexts, targets, self.wholes(contexts), strict=True)
        ]
        joined = self.wholes(
            [
                type(context)(context + target)
                for context, target in zip(contexts, targets, strict=True)
            ]
        )
        return [
            (ids, both[len(ids) :] if both[: len(ids)] == ids else self.bare(target))
            for ids, both, target in zip(asked, joined, targets, strict=True)
        ]

    def is_complete(self, text: str) -> bool:
        """Whether a text has its first special tokens already."""
        return isinstance(text, Rendered) or (bool(self._first) and text.startswith(self._first))
