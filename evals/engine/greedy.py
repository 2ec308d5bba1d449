"""What the engines of our own are: lm-eval's requests, asked of a model that is greedy.

Heavy at import (lm_eval). PackedLM computes with transformers, LlamaCppLM with llama.cpp.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from evals.engine.answering import AnsweringMixin
from evals.engine.generate import Job, StopRule
from evals.engine.limits import refuse_overlong
from evals.engine.windows import score_windows
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance

    from evals.engine.answering import Done
    from evals.engine.journal import Journal
    from registry.chat.chat import Chat


class GreedyLM(AnsweringMixin, TemplateLM):
    """An engine without how it computes.

    A request that is too long is never cut (`OverlongError`), and greedy means greedy: a
    checkpoint's repetition penalty isn't applied.

    Args:
        chat: how the model is spoken to.
        progress: called with (done, total) requests of the running call.

    Attributes:
        journal: where answers are kept as they come, and found again; None: nowhere.
    """

    def __init__(self, chat: Chat, progress: Callable[[int, int], None] | None) -> None:
        """See the class."""
        super().__init__()
        self.chat = chat
        self.tokenizer = chat.tokenizer
        self.progress = progress
        self.journal: Journal | None = None
        self._stops: dict[tuple[tuple[str, ...], bool], StopRule] = {}

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or else end-of-text."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(cast("int", bos))

    @property
    @abstractmethod
    def max_length(self) -> int:
        """The longest context, in tokens."""

    @property
    def max_gen_toks(self) -> int:
        """How many tokens an answer may have where the task doesn't say: as in lm-eval."""
        return 256

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[tuple[float, bool]]:  # fmt: skip
        """Log-likelihood of each continuation after its context, and whether it is greedy.

        Raises:
            OverlongError: some requests don't fit the model; none is scored.
            UserError: an empty continuation.
        """
        asked = [cast("tuple[str, str]", request.args) for request in requests]

        def score(still: list[int], done: Done) -> None:
            self._score_texts([asked[index] for index in still], done)

        return self._cached("loglikelihood", requests, score)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[float]:  # fmt: skip
        """Log-likelihood of whole texts, in windows where they are longer than the context."""
        return score_windows(
            [self.tok_encode(request.args[0]) for request in requests],
            self._loglikelihood_tokens,
            prefix=self.prefix_token_id,
            window=self.max_length,
        )

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[str]:  # fmt: skip
        """Greedy answers: up to a stop string, an end token or `max_gen_toks`.

        Raises:
            OverlongError: a prompt and its answer may exceed the context; nothing is generated.
            UserError: a task asks for sampling.
        """

        def write(still: list[int], done: Done) -> None:
            jobs = self._jobs([requests[index].args for index in still])
            refuse_overlong([len(job.prompt) + job.limit for job in jobs], self.max_length)
            self._write(jobs, done)

        return self._cached("generate_until", requests, write)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [(context, rest) for _, context, rest in requests]

        def score(still: list[int], done: Done) -> None:
            self._score_tokens([asked[index] for index in still], done)

        return self._answered("tokens", asked, score)

    @abstractmethod
    def _score_texts(self, asked: Sequence[tuple[str, str]], done: Done) -> None:
        """Score continuations of contexts; `done` is told each place's likelihood."""

    @abstractmethod
    def _score_tokens(self, asked: Sequence[tuple[list[int], list[int]]], done: Done) -> None:
        """The same of token ids."""

    @abstractmethod
    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of prompts."""

    @abstractmethod
    def _write(self, jobs: Sequence[Job], done: Done) -> None:
        """Write all answers; `done` is told each place's text."""

    @property
    @abstractmethod
    def _ends(self) -> frozenset[int]:
        """The tokens that end every answer."""

    @property
    @abstractmethod
    def _vocabulary(self) -> int:
        """How many logits the model has."""

    def _cached(
        self,
        kind: str,
        requests: Sequence[Instance],
        answer: Callable[[list[int], Done], None],
    ) -> list[Any]:
        """As `_answered`, and lm-eval's cache hears of it."""
        answers = self._answered(kind, [request.args for request in requests], answer)
        for request, found in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, found)
        return answers

    def _jobs(self, asked: Sequence[Any]) -> list[Job]:
        settings: dict[str, tuple[int, StopRule]] = {}
        jobs: list[Job] = []
        prompts = self._prompts([text for text, _ in asked])
        for (_, wanted), prompt in zip(asked, prompts, strict=True):
            key = json.dumps(wanted, sort_keys=True, default=str)
            if key not in settings:
                settings[key] = self._settings(wanted)
            jobs.append(Job(prompt or [self.prefix_token_id], *settings[key]))
        return jobs

    def _settings(self, kwargs: dict[str, Any]) -> tuple[int, StopRule]:
        """Return how many tokens an answer may have, and where it ends."""
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(kwargs, self.max_gen_toks))
        if wanted.get("do_sample"):
            raise UserError("the engine generates greedily", expected="do_sample: false")
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        strings = tuple(handle_stop_sequences(wanted["until"], eos=end))
        plain = bool(wanted.get("skip_special_tokens", True))
        if (strings, plain) not in self._stops:  # to make one, the whole vocabulary is decoded
            self._stops[strings, plain] = StopRule(
                self.tokenizer, strings, self._ends, self._vocabulary, plain=plain
            )
        return int(wanted["max_gen_toks"]), self._stops[strings, plain]
