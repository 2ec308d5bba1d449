"""The engine: lm-eval's `LM` interface over rows that share all they can.

Heavy at import (lm_eval, torch): import it where a model is used. What callers need without it,
the engine's version and the error for requests that are too long, is in evals/engine/limits.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from evals.engine.answering import AnsweringMixin
from evals.engine.encode import Encoder
from evals.engine.forward import Forward
from evals.engine.generate import Generator, Job, NoFiniteLogitsError, StopRule, one_by_one
from evals.engine.layout import lay_rows, refuse_empty, rows_of
from evals.engine.likelihood import Likelihoods, tokens_of
from evals.engine.limits import ENGINE_VERSION, NotFiniteError, Overlong, OverlongError
from evals.engine.tree import build_trees
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from lm_eval.api.instance import Instance
    from numpy.typing import NDArray

    from evals.engine.journal import Journal
    from evals.engine.layout import RequestRow
    from evals.engine.likelihood import Done
    from registry.models.load import LoadedModel

__all__ = ["ENGINE_VERSION", "NotFiniteError", "Overlong", "OverlongError", "PackedLM"]

# Padded tokens a batch. More only grows the working set beyond a CPU's caches (2,048 take a fifth
# longer with nano, a tenth with 115M parameters); a GPU wants more.
CPU_TOKENS, GPU_TOKENS = 1024, 65536
# Logits held at once, in numbers: a large vocabulary is what fills memory first.
CPU_LOGITS, GPU_LOGITS = 2**25, 2**29
# The KV cache of a generation, in bytes.
CPU_KV, GPU_KV = 2**30, 8 * 2**30
UNPACKED_ROWS = 16


class PackedLM(AnsweringMixin, TemplateLM):
    """Scores and generates with a loaded model, for any lm-eval task.

    Equal to lm-eval's HF backend: the same tokens, the same log-likelihoods. Unlike it, it never
    cuts a request that is too long (`OverlongError`), and greedy means greedy: a checkpoint's
    repetition penalty isn't applied.

    Args:
        loaded: the model; which adapter is in use may change between calls.
        token_budget: padded tokens a batch; halved for good when memory runs out.
        progress: called with (done, total) requests of the running call.

    Attributes:
        journal: where answers are kept as they come, and found again; None: nowhere.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        token_budget: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        self.loaded = loaded
        self.chat = loaded.chat
        self.tokenizer = loaded.tokenizer
        self.progress = progress
        self.journal: Journal | None = None
        gpu = loaded.device.type != "cpu"
        self._device = loaded.device
        self._token_budget = token_budget or (GPU_TOKENS if gpu else CPU_TOKENS)
        self._kv_bytes = GPU_KV if gpu else CPU_KV
        self._forward = Forward(loaded)
        logits = GPU_LOGITS if gpu else CPU_LOGITS
        self._likelihoods = Likelihoods(self._forward, self._token_budget, logits)
        self._encoder = Encoder(loaded.tokenizer)
        self._stops: dict[tuple[tuple[str, ...], bool], StopRule] = {}

    def use(self, adapter: Path | None, scale: float = 1.0) -> None:
        """Answer as the base alone, or with one adapter, see `LoadedModel.use`."""
        self.loaded.use(adapter, scale)

    def close(self) -> None:
        """Nothing of its own is held: the model is that of whoever loaded it."""

    @property
    def tokens_processed(self) -> int:
        """How many tokens, padding included, went through the model so far."""
        return self._forward.tokens

    @property
    def packed(self) -> bool:
        """Whether choices share a row; False for models that aren't softmax attention."""
        return self._forward.packs

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or else end-of-text."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(cast("int", bos))

    @property
    def max_length(self) -> int:
        """The model's context, in tokens."""
        return self.loaded.context

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
        """Ids of a text; with None, special tokens unless the text begins with BOS."""
        if add_special_tokens is None:
            return self._encoder.whole(string)
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[tuple[float, bool]]:  # fmt: skip
        """Log-likelihood of each continuation after its context, and whether it is greedy.

        Raises:
            OverlongError: some requests don't fit the model; none is scored.
            UserError: an empty continuation.
        """
        pairs = [cast("tuple[str, str]", request.args) for request in requests]

        def score(still: list[int], done: Done) -> None:
            rows = rows_of([pairs[i] for i in still], self._encoder, self.prefix_token_id)
            self._score(rows, len(still), done)

        answers = self._answered("loglikelihood", pairs, score)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False  # noqa: ARG002, FBT001, FBT002
    ) -> list[float]:  # fmt: skip
        """Log-likelihood of whole texts, in windows where they are longer than the context."""
        rows: list[tuple[Any, list[int], list[int]]] = []
        counts: list[int] = []
        for request in requests:
            windows = utils.get_rolling_token_windows(
                token_list=self._encoder.whole(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            made = [utils.make_disjoint_window(window) for window in windows]
            rows.extend((None, context, continuation) for context, continuation in made)
            counts.append(len(made))
        try:
            scores = iter(self._loglikelihood_tokens(rows))
        except NotFiniteError as error:
            text = int(np.searchsorted(np.cumsum(counts), error.request, side="right"))
            raise NotFiniteError(text, error.layer) from None
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
            self._write(self._jobs([asked[i] for i in still]), done)

        answers = self._answered("generate_until", asked, write)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    def encode_pair(self, context: str, target: str) -> tuple[list[int], list[int]]:
        """The ids of a context as it is asked, and of what is written from there."""
        found = self._encoder.contexts([context])[0]
        return found.ids, self._encoder.continuations(found, [target])[0]

    def answer_logits(self, pairs: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
        """Logits that predict each token of the answers, (tokens of all answers, vocabulary).

        Args:
            pairs: ids of a context and of its answer, neither empty; together they fit the model.
        """
        rows = [[*context, *answer[:-1]] for context, answer in pairs]
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        keep = np.zeros(ids.shape, dtype=np.bool_)
        for place, (tokens, (context, _)) in enumerate(zip(rows, pairs, strict=True)):
            ids[place, : len(tokens)] = tokens
            keep[place, len(context) - 1 : len(tokens)] = True
        return self._forward.plain(ids, keep)

    def _write(self, jobs: Sequence[Job], done: Done) -> None:
        places = {id(job): place for place, job in enumerate(jobs)}

        def told(job: Job) -> None:
            done(places[id(job)], job.stops.text(job.answer))

        try:
            if self._forward.packs:
                Generator(self._forward, self._token_budget, self._kv_bytes, told).run(jobs)
            else:
                one_by_one(self.loaded.model, jobs, UNPACKED_ROWS, told)
        except NoFiniteLogitsError as error:
            layer = self._forward.broken_layer([*error.job.prompt, *error.job.answer])
            raise NotFiniteError(places[id(error.job)], layer) from None

    def _jobs(self, asked: Sequence[Any]) -> list[Job]:
        contexts = self._encoder.contexts([text for text, _ in asked])
        settings: dict[str, tuple[int, StopRule]] = {}
        jobs: list[Job] = []
        for (_, wanted), context in zip(asked, contexts, strict=True):
            key = json.dumps(wanted, sort_keys=True, default=str)
            if key not in settings:
                settings[key] = self._settings(wanted)
            jobs.append(Job(context.ids or [self.prefix_token_id], *settings[key]))
        self._refuse_overlong([len(job.prompt) + job.limit for job in jobs])
        self._forward.refuse_unknown(max((max(job.prompt) for job in jobs), default=0))
        return jobs

    def _settings(self, kwargs: dict[str, Any]) -> tuple[int, StopRule]:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(kwargs, self.max_gen_toks))
        if wanted.get("do_sample"):
            raise UserError("the engine generates greedily", expected="do_sample: false")
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        strings = tuple(handle_stop_sequences(wanted["until"], eos=end))
        plain = bool(wanted.get("skip_special_tokens", True))
        if (strings, plain) not in self._stops:
            self._stops[strings, plain] = StopRule(
                self.tokenizer, strings, self._end_tokens(), self._vocabulary(), plain=plain
            )
        return int(wanted["max_gen_toks"]), self._stops[strings, plain]

    def _end_tokens(self) -> frozenset[int]:
        config = getattr(self.loaded.model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [ends]
        return frozenset(int(end) for end in [*listed, self.eot_token_id] if end is not None)

    def _vocabulary(self) -> int:
        return self._forward.vocabulary

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        def score(still: list[int], done: Done) -> None:
            groups: dict[tuple[int, ...], list[int]] = {}
            for place, index in enumerate(still):
                groups.setdefault(tuple(requests[index][1]), []).append(place)
            rows: list[RequestRow] = []
            for shared, members in groups.items():
                ids = [requests[still[member]][2] for member in members]
                refuse_empty(ids, members)
                rows += lay_rows(shared, build_trees(ids), members)
            self._score(rows, len(still), done)

        return self._answered("tokens", [request[1:] for request in requests], score)

    def _score(self, rows: Sequence[RequestRow], count: int, done: Done) -> None:
        self._refuse_overlong(tokens_of(rows, count))
        self._likelihoods.read(rows, count, done)

    def _refuse_overlong(self, lengths: Sequence[int] | NDArray[np.int64]) -> None:
        long = np.flatnonzero(np.asarray(lengths) > self.max_length)
        if len(long):
            found = [Overlong(index, int(lengths[index])) for index in long.tolist()]
            raise OverlongError(found, self.max_length)
