"""The engine: lm-eval's `LM` interface over rows that share all they can.

Heavy at import (lm_eval, torch): import it where a model is used. What callers need without it,
the engine's version and the error for requests that are too long, is in evals/engine/limits.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evals.engine.encode import Encoder
from evals.engine.forward import Forward
from evals.engine.generate import Generator, Job, NoFiniteLogitsError, one_by_one
from evals.engine.greedy import GreedyLM
from evals.engine.layout import lay_rows, refuse_empty, rows_of
from evals.engine.likelihood import Likelihoods, tokens_of
from evals.engine.limits import (
    ENGINE_VERSION,
    NotFiniteError,
    Overlong,
    OverlongError,
    refuse_overlong,
)
from evals.engine.tree import build_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

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


class PackedLM(GreedyLM):
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
        super().__init__(loaded.chat, progress)
        self.loaded = loaded
        gpu = loaded.device.type != "cpu"
        self._device = loaded.device
        self._token_budget = token_budget or (GPU_TOKENS if gpu else CPU_TOKENS)
        self._kv_bytes = GPU_KV if gpu else CPU_KV
        self._forward = Forward(loaded)
        logits = GPU_LOGITS if gpu else CPU_LOGITS
        self._likelihoods = Likelihoods(self._forward, self._token_budget, logits)
        self._encoder = Encoder(loaded.tokenizer)

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
    def max_length(self) -> int:
        """The model's context, in tokens."""
        return self.loaded.context

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
        self._forward.refuse_unknown(max((max(job.prompt) for job in jobs), default=0))
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

    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [context.ids for context in self._encoder.contexts(texts)]

    @property
    def _ends(self) -> frozenset[int]:
        config = getattr(self.loaded.model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [ends]
        return frozenset(int(end) for end in [*listed, self.eot_token_id] if end is not None)

    @property
    def _vocabulary(self) -> int:
        return self._forward.vocabulary

    def _score_texts(self, asked: Sequence[tuple[str, str]], done: Done) -> None:
        self._score(rows_of(asked, self._encoder, self.prefix_token_id), len(asked), done)

    def _score_tokens(self, asked: Sequence[tuple[list[int], list[int]]], done: Done) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, (context, _) in enumerate(asked):
            groups.setdefault(tuple(context), []).append(place)
        rows: list[RequestRow] = []
        for shared, members in groups.items():
            ids = [asked[member][1] for member in members]
            refuse_empty(ids, members)
            rows += lay_rows(shared, build_trees(ids), members)
        self._score(rows, len(asked), done)

    def _score(self, rows: Sequence[RequestRow], count: int, done: Done) -> None:
        refuse_overlong(tokens_of(rows, count).tolist(), self.max_length)
        self._likelihoods.read(rows, count, done)
