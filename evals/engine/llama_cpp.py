"""A GGUF file as the engine, computed by llama.cpp: what whoever runs the file will get.

Needs the extra `quants`, and loads lm_eval at import. Text is read by llama.cpp's own tokenizer,
an answer is greedy, and a likelihood the sum over the tokens of its answer, as everywhere here.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.engine.gguf_reader import GgufReader
from evals.engine.greedy import GreedyLM
from evals.engine.layout import refuse_empty
from evals.engine.limits import NotFiniteError, refuse_overlong
from registry.chat.template import Rendered
from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evals.engine.answering import Done
    from evals.engine.generate import Job
    from registry.chat.chat import Chat

    Row = NDArray[np.float32]

_ROOM = 512  # tokens of context that are there at first; doubled where a request needs more
_NO_LAYER = "llama.cpp"


class LlamaCppLM(GreedyLM):
    """Scores and generates with a GGUF file; what it may be asked is what `PackedLM` may be asked.

    Args:
        file: the GGUF file.
        chat: how the model is spoken to.
        context: the longest context, in tokens.
        progress: called with (done, total) requests of the running call.

    Attributes:
        journal: where answers are kept as they come, and found again; None: nowhere.
    """

    def __init__(
        self,
        file: Path,
        chat: Chat,
        context: int,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """See the class; the file is opened when something is asked."""
        super().__init__(chat, progress)
        self._file = file
        self._context = context
        self._reader: GgufReader | None = None

    def use(self, adapter: Path | None, scale: float = 1.0) -> None:  # noqa: ARG002 - as others
        """Answer as the file alone.

        Raises:
            UserError: an adapter is asked for.
        """
        if adapter is not None:
            raise ModelError("a GGUF file is scored as it is", expected="no adapter")

    def close(self) -> None:
        """Give back the memory; it is opened again when something is asked."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def tokens_processed(self) -> None:
        """See `Backend`; what llama.cpp found read already isn't told apart."""
        return

    @property
    def max_length(self) -> int:
        """The longest context, in tokens."""
        return self._context

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,  # noqa: FBT001 - lm-eval's interface
        **_kwargs: Any,
    ) -> list[int]:
        """Ids of a text by llama.cpp; with None, bos unless a template wrote it."""
        first = add_special_tokens
        if first is None:
            bos = self.tokenizer.bos_token
            has_it = isinstance(string, Rendered) or (bool(bos) and string.startswith(str(bos)))
            first = not has_it
        return self._opened(0).tokens(string, first=first)

    def _score_texts(self, asked: Sequence[tuple[str, str]], done: Done) -> None:
        self._score_tokens([self._pair(*one) for one in asked], done)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context, and of what is written from there, as `TextTokens.pairs` has them."""
        ids = self.tok_encode(context) if context else []
        both = self.tok_encode(type(context)(context + continuation))
        if both[: len(ids)] == ids:
            return ids, both[len(ids) :]
        return ids, self.tok_encode(continuation, add_special_tokens=False)

    def _score_tokens(self, pairs: Sequence[tuple[list[int], list[int]]], done: Done) -> None:
        refuse_empty([rest for _, rest in pairs], range(len(pairs)))
        asked = [(context or [self.prefix_token_id], rest) for context, rest in pairs]
        refuse_overlong([len(context) + len(rest) - 1 for context, rest in asked], self.max_length)
        for place, (context, rest) in enumerate(asked):
            reader = self._opened(len(context) + len(rest))
            rows = reader.read([*context, *rest[:-1]], len(rest))
            found = _likelihood(rows, rest)
            if not isfinite(found[0]):
                raise NotFiniteError(place, _NO_LAYER)
            done(place, found)

    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tok_encode(text) for text in texts]

    @property
    def _ends(self) -> frozenset[int]:
        return self.chat.stops

    @property
    def _vocabulary(self) -> int:
        return self._opened(0).vocabulary

    def _write(self, jobs: Sequence[Job], done: Done) -> None:
        for place, job in enumerate(jobs):
            done(place, self._written(place, job))

    def _written(self, place: int, job: Job) -> str:
        reader = self._opened(len(job.prompt) + job.limit)
        row = reader.read(job.prompt, 1)[0]
        while np.isfinite(row).all():
            if job.take(int(row.argmax())):
                return job.stops.text(job.answer)
            row = reader.read([*job.prompt, *job.answer], 1)[0]
        raise NotFiniteError(place, _NO_LAYER)

    def _opened(self, tokens: int) -> GgufReader:
        """Return the file, with room for so many tokens."""
        if self._reader is None or self._reader.room < tokens:
            room = _ROOM
            while room < tokens:
                room *= 2
            self.close()
            self._reader = GgufReader(self._file, min(room, max(self._context, tokens)))
        return self._reader


def _likelihood(rows: Row, tokens: Sequence[int]) -> tuple[float, bool]:
    """Return the log-likelihood of tokens by the logits before each, and whether all are greedy."""
    wide = rows.astype(np.float64)
    top = wide.max(axis=1)
    total = np.log(np.exp(wide - top[:, None]).sum(axis=1)) + top
    told = wide[np.arange(len(tokens)), list(tokens)]
    return float((told - total).sum()), bool((wide.argmax(axis=1) == np.asarray(tokens)).all())
