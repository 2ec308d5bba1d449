"""The engine: lm-eval's `LM` interface over rows that share all they can.

Heavy at import (lm_eval, torch): import it where a model is used. What callers need without it,
the engine's version and the error for requests that are too long, is in evals/limits.py.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from evals.encode import Encoder
from evals.forward import Forward
from evals.generate import Generator, Job, Stops, one_by_one
from evals.layout import Row, batch_of, laid, refuse_empty, rows_of
from evals.limits import ENGINE_VERSION, Overlong, OverlongError
from evals.memory import out_of_memory
from evals.tree import Segment, batches, build_trees, segments
from registry.errors import GapmendError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance
    from numpy.typing import NDArray

    from evals.kv import Prefix
    from registry.models import LoadedModel

__all__ = ["ENGINE_VERSION", "Overlong", "OverlongError", "PackedLM"]

# Padded tokens a batch. More only grows the working set beyond a CPU's caches; a GPU wants more.
CPU_TOKENS, GPU_TOKENS = 2048, 65536
# Logits held at once, in numbers: a large vocabulary is what fills memory first.
CPU_LOGITS, GPU_LOGITS = 2**25, 2**29
# Keys and values of a generation, in bytes.
CPU_KV, GPU_KV = 2**30, 8 * 2**30
UNPACKED_ROWS = 16


class PackedLM(TemplateLM):
    """Scores and generates with a loaded model, for any lm-eval task.

    Equal to lm-eval's HF backend: the same tokens, the same log-likelihoods. Unlike it, it never
    cuts a request that is too long (`OverlongError`), and greedy means greedy: a checkpoint's
    repetition penalty isn't applied.

    Args:
        loaded: the model; which adapter is in use may change between calls.
        token_budget: padded tokens a batch; halved for good when memory runs out.
        progress: called with (done, total) requests of the running call.
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
        self.tokenizer = loaded.tokenizer
        self.progress = progress
        gpu = loaded.device.type != "cpu"
        self._device = loaded.device
        self._token_budget = token_budget or (GPU_TOKENS if gpu else CPU_TOKENS)
        self._logit_budget = GPU_LOGITS if gpu else CPU_LOGITS
        self._kv_bytes = GPU_KV if gpu else CPU_KV
        self._forward = Forward(loaded)
        self._encoder = Encoder(loaded.tokenizer, self.prefix_token_id)
        self._stops: dict[tuple[str, ...], Stops] = {}

    @property
    def tokens_processed(self) -> int:
        """How many tokens, padding included, went through the model so far."""
        return self._forward.tokens

    @property
    def packed(self) -> bool:
        """Whether choices share a row; False for models that aren't softmax attention."""
        return self._forward.packs

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token.

        Raises:
            UserError: the tokenizer has none, so that no answer could end.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            where = f"bases.{self.loaded.identity.name}"
            raise UserError("the tokenizer has no end-of-text token", where, "an eos_token")
        return int(cast("int", end))

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

    @property
    def tokenizer_name(self) -> str:
        """A name for caches: which tokenizer, without a path."""
        return f"{self.loaded.identity.name}-{self.loaded.identity.digest[:12]}"

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 - lm-eval's interface
    ) -> str:
        """Messages as text; without a generation prompt the last message is left open."""
        if add_generation_prompt:
            return self.loaded.render(chat_history, add_generation_prompt=True)
        if not self.tokenizer.chat_template:
            before = self.loaded.render(chat_history[:-1], add_generation_prompt=True)
            return before + chat_history[-1]["content"]
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, continue_final_message=True
            )
        )

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
        return self._score(rows_of(pairs, self._encoder, self.prefix_token_id), requests)

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
        jobs = self._jobs(requests)
        report = self._reporter(len(jobs))
        if self._forward.packs:
            generator = Generator(
                self._forward, self._token_budget, self._kv_bytes, lambda _job: report(1)
            )
            generator.run(jobs)
        else:
            one_by_one(self.loaded.model, jobs, UNPACKED_ROWS, lambda _job: report(1))
        answers = [job.stops.text(job.answer) for job in jobs]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    def _jobs(self, requests: Sequence[Instance]) -> list[Job]:
        contexts = self._encoder.contexts([str(request.args[0]) for request in requests])
        settings: dict[str, tuple[int, Stops]] = {}
        jobs: list[Job] = []
        for request, context in zip(requests, contexts, strict=True):
            key = json.dumps(request.args[1], sort_keys=True, default=str)
            if key not in settings:
                settings[key] = self._settings(request.args[1])
            jobs.append(Job(context.ids or [self.prefix_token_id], *settings[key]))
        self._refuse_overlong([len(job.prompt) + job.limit for job in jobs])
        return jobs

    def _settings(self, kwargs: dict[str, Any]) -> tuple[int, Stops]:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(kwargs, self.max_gen_toks))
        if wanted.get("do_sample"):
            raise UserError("the engine generates greedily", expected="do_sample: false")
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        strings = tuple(handle_stop_sequences(wanted["until"], eos=end))
        if strings not in self._stops:
            self._stops[strings] = Stops(
                self.tokenizer, strings, self._end_tokens(), self._vocabulary()
            )
        return int(wanted["max_gen_toks"]), self._stops[strings]

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
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, _) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(index)
        rows: list[Row] = []
        for shared, members in groups.items():
            ids = [requests[member][2] for member in members]
            refuse_empty(ids, members)
            rows += laid(shared, build_trees(ids), members)
        return self._score(rows, requests)

    def _score(self, rows: Sequence[Row], requests: Sequence[Any]) -> list[tuple[float, bool]]:
        lengths = np.zeros(len(requests), dtype=np.int64)
        for row in rows:
            read = np.bincount(row.tree.owners, minlength=len(row.requests)) - 1
            lengths[row.requests] = len(row.context) + read
        self._refuse_overlong(lengths)
        if not self._forward.packs:
            rows = [Row(r.context, chain, r.requests) for r in rows for chain in r.tree.chains()]
        scores = np.zeros(len(requests), dtype=np.float64)
        greedy = np.ones(len(requests), dtype=np.bool_)
        report = self._reporter(sum(len(row.requests) for row in rows))
        contexts = [row.context for row in rows]
        parts = segments(contexts) if self._forward.shares else (_all(rows),)
        for part in parts:
            prefix = None
            if part.prefix:
                prefix = self._forward.prefix(contexts[part.rows[0]][: part.prefix].tolist())
            self._segment(
                [rows[r] for r in part.rows], prefix, partial(_add, scores, greedy), report
            )
        broken = np.flatnonzero(~np.isfinite(scores))
        if len(broken):
            raise GapmendError(f"the model gave no finite log-likelihood for request {broken[0]}")
        results = list(zip(scores.tolist(), greedy.tolist(), strict=True))
        for request, result in zip(requests, results, strict=True):
            if (args := getattr(request, "args", None)) is not None:
                self.cache_hook.add_partial("loglikelihood", args, result)
        return results

    def _segment(
        self,
        rows: list[Row],
        prefix: Prefix | None,
        add: Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]], None],
        report: Callable[[int], None],
    ) -> None:
        start = prefix.tokens if prefix else 0
        lengths = [len(row.context) - start + len(row.tree.tokens) for row in rows]
        weights = [(1 + len(row.tree.tokens)) * self._vocabulary() for row in rows]
        todo = [
            [rows[place] for place in batch]
            for batch in batches(
                lengths, weights, tokens=self._token_budget, weight=self._logit_budget
            )
        ]
        todo.reverse()
        while todo:
            batch = todo.pop()
            try:
                add(*self._read(batch, prefix))
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                self._token_budget = max(1, self._token_budget // 2)
                half = len(batch) // 2
                todo += [batch[half:], batch[:half]]
                continue
            report(sum(len(row.requests) for row in batch))

    def _read(
        self, rows: Sequence[Row], prefix: Prefix | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Requests, log-probabilities and greediness of every predicted token of the rows."""
        batch = batch_of(rows, prefix.tokens if prefix else 0)
        if self._forward.packs:
            logits = self._forward.read(batch, prefix).logits
        else:
            logits = self._forward.plain(batch.ids, batch.keep)
        # Each row keeps its context's last token and its nodes, in the order of slots.
        sizes = np.array([1 + len(row.tree.tokens) for row in rows])
        first = np.cumsum(sizes) - sizes
        at = np.concatenate([f + row.tree.slots for f, row in zip(first, rows, strict=True)])
        tokens = np.concatenate([row.tree.targets for row in rows])
        requests = np.concatenate([row.requests[row.tree.owners] for row in rows])
        places = torch.from_numpy(at).to(logits.device)
        wanted = torch.from_numpy(tokens).to(logits.device)
        logs = logits[places, wanted] - torch.logsumexp(logits, -1)[places]
        best = logits.argmax(-1)[places] == wanted
        return requests, logs.double().cpu().numpy(), best.cpu().numpy()

    def _refuse_overlong(self, lengths: Sequence[int] | NDArray[np.int64]) -> None:
        long = np.flatnonzero(np.asarray(lengths) > self.max_length)
        if len(long):
            found = [Overlong(index, int(lengths[index])) for index in long.tolist()]
            raise OverlongError(found, self.max_length)

    def _reporter(self, total: int) -> Callable[[int], None]:
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if self.progress is not None:
                self.progress(done, total)

        return report


def _add(
    scores: NDArray[np.float64],
    greedy: NDArray[np.bool_],
    requests: NDArray[np.int64],
    logs: NDArray[np.float64],
    best: NDArray[np.bool_],
) -> None:
    np.add.at(scores, requests, logs)
    np.logical_and.at(greedy, requests, best)


def _all(rows: Sequence[Row]) -> Segment:
    return Segment(0, tuple(range(len(rows))))
