"""The forward pass over rows of our own layout: masks, positions, prefixes, logits.

Heavy at import (torch, transformers): import it where an engine is made.

A `PaddedBatch` is rows padded on the right. Rows of a trie have a mask; all else is causal.
A `Prefix` is the KV cache of the tokens before every row. On a CPU it is never
copied to the rows: all queries attend to it as one sequence, and the two parts of each query's
attention are joined by their log-sum-exp; elsewhere it is expanded and concatenated.

What an architecture does with a mask, positions and a prefix is not believed but tried once per
model: where a part gives other logits than plain sequences do, that part isn't used.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evals.engine.kv import (
    ATTENTION,
    ForwardLayer,
    Prefix,
    PrefixPlan,
    SlotCache,
    SlotsBehindPrefix,
    use_plan,
)
from evals.engine.tree import PaddedBatch
from registry.models.parts import length_limits, refuse_beyond, text_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from transformers.cache_utils import Cache

    from registry.models.load import LoadedModel

log = logging.getLogger(__name__)

# Sliding windows up to this length are tried with rows longer than the window; other limits of
# attention, of which our masks know nothing, up to the other.
_WINDOW_TO_TRY, _LIMIT_TO_TRY = 64, 1024
_SOFTMAX_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, eq=False)
class ReadLogits:
    """Logits at the kept tokens, (kept, vocabulary) in fp32, and the rows' KV cache."""

    logits: torch.Tensor
    cache: Cache


class Forward:
    """Runs batches through a loaded model.

    Attributes:
        packs: whether tries and per-row positions give the logits of plain sequences; if not,
            every sequence needs a row of its own.
        shares: whether a prefix may be computed once.
        layers: how many layers it has.
        vocabulary: how many logits a token gets.
        kv_bytes: what one token takes in the KV cache.
        tokens: how many tokens, padding included, were run through the model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        """Look at the config, then try what it promises on a few tokens."""
        self._loaded = loaded
        self._model = loaded.model
        self._config: Any = text_config(loaded.model)
        self._window = _window(self._config)
        self._selects = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        sdpa = self._config._attn_implementation == "sdpa"  # noqa: SLF001 - it has no public name
        self._joins = sdpa and loaded.device.type == "cpu"
        self.layers = int(self._config.num_hidden_layers)
        self.vocabulary = int(self._model.get_input_embeddings().weight.shape[0])
        self.kv_bytes = 1
        self.tokens = 0
        self.packs = self.shares = False
        reason = _unlike_softmax(self._model, self._config, loaded.context) or self._try_out()
        self.tokens = 0
        if reason:
            log.warning("%s: %s; one sequence a row", type(self._model).__name__, reason)

    def prefix(self, tokens: Sequence[int]) -> Prefix:
        """Read a prefix once: its KV cache serves all rows that follow it."""
        ids = np.array([tokens], dtype=np.int64)
        keep = np.zeros(ids.shape, dtype=np.bool_)
        keep[0, -1] = True
        read = self.read(PaddedBatch(ids, np.arange(len(tokens))[None], keep))
        layers = (
            (layer.keys, layer.values) if layer.is_initialized else None
            for layer in read.cache.layers
        )
        prefix = Prefix(len(tokens), tuple(layers))
        self.kv_bytes = prefix.nbytes // len(tokens)
        return prefix

    def read(self, batch: PaddedBatch, prefix: Prefix | None = None) -> ReadLogits:
        """Run rows of our layout, behind a prefix where there is one."""
        reach = int(batch.positions.max()) + 1
        joins = self._joined(reach)
        front = None if joins else prefix
        own = ForwardLayer.cache(self.layers, front)
        mask: Any = None
        if batch.mask is not None and joins:
            mask = self._additive(batch.mask[:, batch.trunk :])
        elif batch.mask is not None or front or (self._window or reach) < reach:
            seen = batch.mask
            if seen is None:
                seen = np.tile(np.tri(batch.ids.shape[1], dtype=np.bool_), (len(batch.ids), 1, 1))
            mask = self._masks(seen, batch.positions, batch.positions, front.tokens if front else 0)
        plan = None
        if joins and (prefix or mask is not None):
            plan = PrefixPlan(prefix, batch.trunk if mask is not None else 0)
        logits = self._run(batch.ids, batch.keep, batch.positions, mask, own, plan)
        return ReadLogits(logits, own)

    def step(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64], slots: SlotCache,
        prefix: Prefix | None,
    ) -> torch.Tensor:  # fmt: skip
        """The next token's logits, (rows, vocabulary), after one more token in each active slot.

        Args:
            ids: (rows,) the tokens.
            positions: (rows,) their positions, the prefix included.
            slots: what the rows have read so far; grows by one token a row.
            prefix: the cached tokens before every row.
        """
        slots.ready(len(ids), self._loaded.device)
        joined = prefix if self._joined(int(positions.max()) + 1) else None
        places = np.arange(slots.reach)
        seen = places[None, None, :] <= slots.used[: len(ids), None, None]
        start = prefix.tokens if prefix else 0
        keys = np.broadcast_to(places[None, :] + start, (len(ids), slots.reach))
        ahead = 0 if joined else start
        mask = self._masks(seen, positions[:, None], keys, ahead)
        cache: Cache = SlotsBehindPrefix(slots, prefix) if prefix and not joined else slots
        keep = np.ones((len(ids), 1), dtype=np.bool_)
        plan = PrefixPlan(joined) if joined else None
        logits = self._run(ids[:, None], keep, positions[:, None], mask, cache, plan)
        slots.used[: len(ids)] += 1
        return logits

    def plain(self, ids: NDArray[np.int64], keep: NDArray[np.bool_]) -> torch.Tensor:
        """Logits at the kept tokens of ordinary sequences, as any causal model takes them."""
        return self._run(ids, keep, None, None, None, None)

    def refuse_unknown(self, highest: int) -> None:
        """Refuse a token that the base has no embedding for: torch would end with its index.

        Raises:
            UserError: `highest`, the largest id that is to be read, is one.
        """
        loaded = self._loaded
        where = f"bases.{loaded.identity.name}"
        refuse_beyond(self._model, loaded.tokenizer, [int(highest)], where)

    def broken_layer(self, tokens: Sequence[int]) -> str:
        """The first module, by its end, that gives something not finite for a plain sequence."""
        found: list[str] = []

        def look(name: str, module: torch.nn.Module) -> Any:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                made = output[0] if isinstance(output, tuple) else output
                if isinstance(made, torch.Tensor) and not bool(torch.isfinite(made).all()):
                    found.append(f"{name or 'the model'} ({type(module).__name__})")

            return module.register_forward_hook(hook)

        handles = [look(name, module) for name, module in self._model.named_modules()]
        try:
            ids = np.array([tokens], dtype=np.int64)
            self.plain(ids, np.ones(ids.shape, dtype=np.bool_))
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else "no layer by itself, only the packed row"

    def _joined(self, reach: int) -> bool:
        """Whether our attention function serves rows of this length: no window may end in them."""
        return self._joins and (self._window is None or reach <= self._window)

    def _run(
        self, ids: NDArray[np.int64], keep: NDArray[np.bool_],
        positions: NDArray[np.int64] | None, mask: Any, cache: Cache | None,
        plan: PrefixPlan | None,
    ) -> torch.Tensor:  # fmt: skip
        self.tokens += int(ids.size)
        self.refuse_unknown(ids.max(initial=0))
        device = self._loaded.device
        wanted = torch.from_numpy(keep).to(device)
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(device)}
        if positions is not None:
            inputs["position_ids"] = torch.from_numpy(positions).to(device)
            inputs["attention_mask"] = mask
            inputs["past_key_values"] = cache
        if self._selects:
            inputs["logits_to_keep"] = wanted
        with torch.inference_mode(), self._attending(plan):
            logits = self._model(**inputs, use_cache=False).logits
        # A model that doesn't select gives the logits of every token.
        return (logits if self._selects else logits[wanted]).reshape(-1, logits.shape[-1]).float()

    @contextmanager
    def _attending(self, plan: PrefixPlan | None) -> Iterator[None]:
        """Our attention function while a batch has a plan for it: else the model's own."""
        if plan is None:
            yield
            return
        with use_plan(plan):
            self._config._attn_implementation = ATTENTION  # noqa: SLF001 - it has no public name
            try:
                yield
            finally:
                self._config._attn_implementation = "sdpa"  # noqa: SLF001

    def _masks(
        self, seen: NDArray[np.bool_], queries: NDArray[np.int64], keys: NDArray[np.int64],
        ahead: int,
    ) -> Any:  # fmt: skip
        """What `seen` (rows, queries, keys) allows, as the model takes it, behind `ahead` tokens.

        One additive mask (rows, 1, queries, ahead + keys), or one for each kind of layer where a
        sliding window ends inside the rows and the model has layers of both kinds.
        """
        if ahead:
            keys = np.concatenate(
                [np.broadcast_to(np.arange(ahead), (len(keys), ahead)), keys], axis=1
            )
            seen = np.concatenate([np.ones((*seen.shape[:2], ahead), dtype=np.bool_), seen], axis=2)
        window = self._window
        if window is None or int(queries.max()) < window:
            return self._additive(seen)
        near = self._additive(seen & (queries[:, :, None] - keys[:, None, :] < window))
        if getattr(self._config, "layer_types", None) is None:
            return near
        return {"full_attention": self._additive(seen), "sliding_attention": near}

    def _additive(self, seen: NDArray[np.bool_]) -> torch.Tensor:
        # Additive once here: sdpa would convert a boolean mask again in every layer.
        allowed = torch.from_numpy(np.ascontiguousarray(seen)).to(self._loaded.device)
        dtype = self._loaded.dtype
        zero = torch.zeros((), dtype=dtype, device=allowed.device)
        return torch.where(allowed, zero, torch.finfo(dtype).min)[:, None]

    def _try_out(self) -> str | None:
        """Compare tries, then prefixes, with plain sequences; keep what holds, say what doesn't."""
        lengths = [12]
        if self._window is not None and self._window <= _WINDOW_TO_TRY:
            lengths.append(12 + self._window)
        lengths += [12 + one for one in _other_limits(self._config, self._loaded.context)]
        forks = [_Fork.draw(length, self.vocabulary) for length in lengths]
        wanted = [fork.plain(self) for fork in forks]
        reason: str | None = None
        # First with our attention function, where it may be used, then with the model's own.
        for joins in dict.fromkeys([self._joins, False]):
            self._joins = joins
            reason = self._differs(forks, wanted, 0)
            self.packs = reason is None
            self.shares = self.packs and self._differs(forks, wanted, 6) is None
            if self.shares:
                break
        if self.packs:
            self.prefix(forks[0].trunk)  # measures kv_bytes
        return reason

    def _differs(
        self, forks: Sequence[_Fork], wanted: Sequence[torch.Tensor], cut: int
    ) -> str | None:
        """How rows behind a prefix of `cut` tokens fail to be their sequences."""
        try:
            same = [self._alike(f.read(self, cut), w) for f, w in zip(forks, wanted, strict=True)]
        except Exception as error:  # noqa: BLE001 - any architecture may fail in its own way
            return f"it takes no trie of choices ({type(error).__name__}: {error})"
        return None if all(same) else "a trie of choices gives other logits than its sequences"

    def _alike(self, ours: torch.Tensor, plain: torch.Tensor) -> bool:
        """Equal within what the dtype's rounding explains, measured by the logits' spread."""
        bound = 1e-3 if self._loaded.dtype == torch.float32 else 0.15
        return bool((ours - plain).abs().max() <= bound * plain.std().clamp(min=1e-6))


@dataclass(frozen=True)
class _Fork:
    """A trunk with two branches, to try a model with."""

    trunk: list[int]
    left: list[int]
    right: list[int]

    @classmethod
    def draw(cls, length: int, vocabulary: int) -> _Fork:
        draw = np.random.default_rng(length)
        return cls(*(draw.integers(3, vocabulary, size).tolist() for size in (length, 3, 2)))

    def plain(self, forward: Forward) -> torch.Tensor:
        """Plain logits from the trunk's last token on: the left branch's, then the right's."""
        found: list[torch.Tensor] = []
        for branch, start in ((self.left, len(self.trunk) - 1), (self.right, len(self.trunk))):
            ids = np.array([self.trunk + branch], dtype=np.int64)
            keep = np.arange(ids.shape[1])[None] >= start
            found.append(forward.plain(ids, keep))
        return torch.cat(found)

    def read(self, forward: Forward, cut: int) -> torch.Tensor:
        """The same logits from one row, behind a prefix of `cut` tokens."""
        own, left = len(self.trunk) - cut, len(self.left)
        ids = np.array([self.trunk[cut:] + self.left + self.right], dtype=np.int64)
        mask = np.tri(ids.shape[1], dtype=np.bool_)
        mask[own + left :, own : own + left] = False
        branches = [*range(own, own + left), *range(own, own + len(self.right))]
        positions = np.array([[*range(own), *branches]], dtype=np.int64) + cut
        keep = np.arange(ids.shape[1])[None] >= own - 1
        prefix = forward.prefix(self.trunk[:cut]) if cut else None
        return forward.read(PaddedBatch(ids, positions, keep, mask[None], own - 2), prefix).logits


def _window(config: Any) -> int | None:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    size = getattr(config, "sliding_window", None)
    return int(size) if size else None


def _other_limits(config: Any, context: int) -> list[int]:
    """Where attention ends or is cut within the context, the sliding window left out."""
    return [
        limit
        for name, limit in length_limits(config)
        if ("window" in name or "chunk" in name) and name != "sliding_window" and limit < context
    ]


def _unlike_softmax(model: Any, config: Any, context: int) -> str | None:
    """Why this model's layers can't take tries, as far as its config tells."""
    kinds = set(getattr(config, "layer_types", None) or ()) - _SOFTMAX_LAYERS
    if kinds:
        return f"it has {', '.join(sorted(kinds))} layers"
    if getattr(model, "_is_stateful", False):
        return "it keeps a running state"
    if far := [one for one in _other_limits(config, context) if one > _LIMIT_TO_TRY]:
        return f"its attention changes at {far[0]} tokens"
    return None
