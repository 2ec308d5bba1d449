"""A GGUF file as the engine, computed by llama.cpp: what whoever runs the file will get.

Needs the extra `quants`, and loads lm_eval at import. Text is read by llama.cpp's own tokenizer,
an answer is greedy, and a likelihood the sum over the tokens of its answer, as everywhere here.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from evals.engine.answering import AnsweringMixin
from evals.engine.generate import Job, StopRule
from evals.engine.gguf_reader import GgufReader
from evals.engine.layout import refuse_empty
from evals.engine.limits import NotFiniteError, Overlong, OverlongError
from registry.chat.template import Rendered
from registry.errors import ModelError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lm_eval.api.instance import Instance
    from numpy.typing import NDArray

    from evals.engine.answering import Done
    from evals.engine.journal import Journal
    from registry.chat.chat import Chat

    Row = NDArray[np.float32]

_ROOM = 512  # tokens of context that are there at first; doubled where a request needs more
_NO_LAYER = "llama.cpp"


class LlamaCppLM(AnsweringMixin, TemplateLM):
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
        super().__init__()
        self.chat = chat
        self.tokenizer = chat.tokenizer
        self.progress = progress
        self.journal: Journal | None = None
        self._file = file
        self._context = context
        self._reader: GgufReader | None = None
        self._settings: dict[str, tuple[int, StopRule]] = {}

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
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or else end-of-text."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(cast("int", bos))

    @property
    def max_length(self) -> int:
        """The longest context, in tokens."""
        return self._context

    @property
    def max_gen_toks(self) -> int:
        """How many tokens an answer may have where the task doesn't say: as in lm-eval."""
        return 256

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

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[tuple[float, bool]]:  # fmt: skip
        """Log-likelihood of each continuation after its context, and whether it is greedy.

        Raises:
            OverlongError: some requests don't fit; none is scored.
            UserError: an empty continuation.
        """
        asked = [cast("tuple[str, str]", request.args) for request in requests]

        def score(still: list[int], done: Done) -> None:
            self._score([self._pair(*asked[index]) for index in still], done)

        return self._answered("loglikelihood", asked, score)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[float]:  # fmt: skip
        """Log-likelihood of whole texts, in windows where they are longer than the context."""
        rows: list[tuple[Any, list[int], list[int]]] = []
        counts: list[int] = []
        for request in requests:
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            made = [utils.make_disjoint_window(window) for window in windows]
            rows.extend((None, context, continuation) for context, continuation in made)
            counts.append(len(made))
        scores = iter(self._loglikelihood_tokens(rows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[str]:  # fmt: skip
        """Greedy answers: up to a stop string, an end token or `max_gen_toks`.

        Raises:
            OverlongError: a prompt and its answer may exceed the context; nothing is generated.
            UserError: a task asks for sampling.
        """
        asked = [request.args for request in requests]

        def write(still: list[int], done: Done) -> None:
            jobs = [self._job(*asked[index]) for index in still]
            self._refuse_overlong([len(job.prompt) + job.limit for job in jobs])
            for place, job in enumerate(jobs):
                done(place, self._written(place, job))

        return self._answered("generate_until", asked, write)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        def score(still: list[int], done: Done) -> None:
            self._score([requests[index][1:] for index in still], done)

        return self._answered("tokens", [request[1:] for request in requests], score)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context, and of what is written from there, as `TextTokens.pairs` has them."""
        ids = self.tok_encode(context) if context else []
        both = self.tok_encode(type(context)(context + continuation))
        if both[: len(ids)] == ids:
            return ids, both[len(ids) :]
        return ids, self.tok_encode(continuation, add_special_tokens=False)

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]], done: Done) -> None:
        refuse_empty([rest for _, rest in pairs], range(len(pairs)))
        asked = [(context or [self.prefix_token_id], rest) for context, rest in pairs]
        self._refuse_overlong([len(context) + len(rest) - 1 for context, rest in asked])
        for place, (context, rest) in enumerate(asked):
            reader = self._opened(len(context) + len(rest))
            rows = reader.read([*context, *rest[:-1]], len(rest))
            found = _likelihood(rows, rest)
            if not isfinite(found[0]):
                raise NotFiniteError(place, _NO_LAYER)
            done(place, found)

    def _job(self, text: str, wanted: dict[str, Any]) -> Job:
        key = json.dumps(wanted, sort_keys=True, default=str)
        if key not in self._settings:
            self._settings[key] = self._told(wanted)
        return Job(self.tok_encode(text) or [self.prefix_token_id], *self._settings[key])

    def _told(self, wanted: dict[str, Any]) -> tuple[int, StopRule]:
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(wanted, self.max_gen_toks))
        if kwargs.get("do_sample"):
            raise UserError("the engine generates greedily", expected="do_sample: false")
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        stops = StopRule(
            self.tokenizer,
            handle_stop_sequences(kwargs["until"], eos=end),
            self.chat.stops,
            self._opened(0).vocabulary,
            plain=bool(kwargs.get("skip_special_tokens", True)),
        )
        return int(kwargs["max_gen_toks"]), stops

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

    def _refuse_overlong(self, lengths: Sequence[int]) -> None:
        long = [Overlong(at, n) for at, n in enumerate(lengths) if n > self.max_length]
        if long:
            raise OverlongError(long, self.max_length)


def _likelihood(rows: Row, tokens: Sequence[int]) -> tuple[float, bool]:
    """Return the log-likelihood of tokens by the logits before each, and whether all are greedy."""
    wide = rows.astype(np.float64)
    top = wide.max(axis=1)
    total = np.log(np.exp(wide - top[:, None]).sum(axis=1)) + top
    told = wide[np.arange(len(tokens)), list(tokens)]
    return float((told - total).sum()), bool((wide.argmax(axis=1) == np.asarray(tokens)).all())
