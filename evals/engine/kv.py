"""KV caches: of a shared prefix, of one forward pass, of sequences that grow.

Heavy at import (torch, transformers). The caches hold what the engine's layout needs and no more.

A prefix of 3 tokens before 2 rows of 2 is read once, keys and values [1, heads, 3, width] a layer;
the rows' own are [2, heads, 2, width]: 3 + 2 * 2 tokens in the cache, where copies for each row
would be 2 * (3 + 2). `prefix_attention` computes both parts and joins them, as Hydragen does
(Juravsky et al. 2024): all rows' queries attend to the prefix as one sequence, then each to its own
keys, and with the log-sum-exp f and o of the two parts' scores

    out = own + sigmoid(f - o) * (front - own)

This is softmax over the union of the keys exactly, as each part's share of it is exp of its
log-sum-exp. Where attention can't join the two (not on a CPU), the prefix is expanded and
concatenated.

`SlotCache` is for generation with continuous batching (Orca, Yu et al. 2022): each sequence grows
in a slot of [heads, length, width] a layer; `move` copies one to a slot that another left. One
token costs attention over the longest active slot, rows * reach keys.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ATTENTION = "gapmend_prefix"
KeysValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Prefix:
    """The KV cache of a shared prefix: (1, heads, tokens, width) each, one pair a layer.

    A layer that attends to the keys and values of another one has none.
    """

    tokens: int
    layers: tuple[KeysValues | None, ...]

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for layer in self.layers if layer for part in layer)


class ForwardLayer(DynamicLayer):
    """One layer's KV cache of one forward pass, behind an expanded prefix if one is given."""

    def __init__(self, ahead: KeysValues | None) -> None:
        """See the class."""
        super().__init__()
        self.ahead = ahead

    @classmethod
    def cache(cls, layers: int, prefix: Prefix | None) -> Cache:
        """A cache of such layers."""
        return Cache(layers=[cls(prefix.layers[n] if prefix else None) for n in range(layers)])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep this forward's keys and values; return what its queries attend to."""
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        if self.ahead is None:
            return key_states, value_states
        return _behind(self.ahead, key_states, value_states)


class SlotCache(Cache):
    """The KV cache of sequences that grow token by token, each from its own length on.

    Attributes:
        used: (rows,) how many tokens each slot holds.
        reach: how many places the next forward looks at.
    """

    def __init__(self, layers: int, rows: int, length: int) -> None:
        """Room for `rows` sequences of at most `length` tokens."""
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])
        self.rows, self.length = rows, length
        self.used = np.zeros(rows, dtype=np.int64)
        self.reach = 0
        self.places = (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))

    def fill(self, first: int, read: Cache, lengths: Sequence[int]) -> None:
        """Put the KV cache of freshly read rows into the slots from `first` on.

        They are taken out of `read`, layer by layer, so that memory holds few of them twice.
        """
        for layer, source in zip(self.layers, read.layers, strict=True):
            if source.is_initialized:  # not of a layer that shares those of another one
                layer.fill(first, source.keys, source.values)
                source.keys = source.values = None
        self.used[first : first + len(lengths)] = lengths

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy sequences from slots to other slots."""
        for old, new in zip(source, target, strict=True):
            tokens = int(self.used[old])
            for layer in self.layers:
                if not layer.is_initialized:
                    continue
                layer.keys[new, :, :tokens] = layer.keys[old, :, :tokens]
                layer.values[new, :, :tokens] = layer.values[old, :, :tokens]
            self.used[new] = tokens

    def grow(self, rows: int, length: int) -> None:
        """Make room for more or longer sequences; those that are there stay."""
        rows, length = max(rows, self.rows), max(length, self.length)
        for layer in self.layers:
            layer.grow(rows, length)
        self.used = np.pad(self.used, (0, rows - self.rows))
        self.rows, self.length = rows, length

    def wipe(self, row: int) -> None:
        """Clear a slot whose numbers broke: what is masked is still multiplied by 0."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[row] = layer.values[row] = 0

    def ready(self, active: int, device: torch.device) -> None:
        """Make the next forward write one token to each of the first `active` slots."""
        self.reach = int(self.used[:active].max()) + 1
        used = torch.from_numpy(self.used[:active].copy()).to(device)
        self.places = (torch.arange(active, device=device), used)


class SlotLayer(DynamicLayer):
    """One layer of `SlotCache`."""

    def __init__(self, slots: SlotCache) -> None:
        """See `SlotCache`."""
        super().__init__()
        self.slots = slots
        self.is_initialized = False
        self.clean = 0  # places that hold numbers in every slot

    def fill(self, first: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put rows (rows, heads, length, width) at the start of the slots from `first` on."""
        rows, length = keys.shape[0], keys.shape[2]
        if not self.is_initialized:
            shape = (self.slots.rows, keys.shape[1], self.slots.length)
            self.keys = keys.new_empty((*shape, keys.shape[3]))
            self.values = values.new_empty((*shape, values.shape[3]))
            self.is_initialized = True
        self._reach(length)
        self.keys[first : first + rows, :, :length] = keys
        self.values[first : first + rows, :, :length] = values

    def grow(self, rows: int, length: int) -> None:
        """See `SlotCache.grow`."""
        if self.is_initialized:
            self.keys, self.values = (
                self._grown(part, rows, length) for part in (self.keys, self.values)
            )

    def _grown(self, part: torch.Tensor, rows: int, length: int) -> torch.Tensor:
        made = part.new_empty((rows, part.shape[1], length, part.shape[3]))
        made[: len(part), :, : self.clean] = part[:, :, : self.clean]
        made[len(part) :, :, : self.clean] = 0
        return made

    def _reach(self, length: int) -> None:
        """Make places up to `length` numbers: what is masked is still multiplied by 0.

        Not at once for the longest answer that there may be: most end early, and memory that is
        never written to is never taken.
        """
        if length > self.clean:
            self.keys[:, :, self.clean : length] = 0
            self.values[:, :, self.clean : length] = 0
            self.clean = length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token a row at its place; return all places in reach."""
        rows, places = self.slots.places
        reach = self.slots.reach
        self._reach(reach)
        self.keys[rows, :, places] = key_states[:, :, 0]
        self.values[rows, :, places] = value_states[:, :, 0]
        return self.keys[: len(rows), :, :reach], self.values[: len(rows), :, :reach]


class SlotsBehindPrefix(Cache):
    """Slots behind an expanded prefix, where attention doesn't join the two itself."""

    def __init__(self, slots: SlotCache, prefix: Prefix) -> None:
        """See the class."""
        super().__init__(layers=list(slots.layers))
        self.prefix = prefix

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int,
        *_args: Any, **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Write the rows' tokens to their slots; return the prefix and all places in reach."""
        own = self.layers[layer_idx].update(key_states, value_states)
        ahead = self.prefix.layers[layer_idx]
        return own if ahead is None else _behind(ahead, *own)


def _behind(ahead: KeysValues, keys: torch.Tensor, values: torch.Tensor) -> KeysValues:
    front = [part.expand(len(keys), -1, -1, -1) for part in ahead]
    return torch.cat([front[0], keys], 2), torch.cat([front[1], values], 2)


@dataclass(frozen=True, eq=False)
class PrefixPlan:
    """What `prefix_attention` does in a forward.

    Attributes:
        prefix: the cached tokens before every row.
        trunk: how many leading queries are causal; the mask is for the queries behind them.
    """

    prefix: Prefix | None
    trunk: int = 0


# Of a thread: models may run in several at once.
_PLAN: ContextVar[PrefixPlan] = ContextVar("plan")


@contextmanager
def use_plan(plan: PrefixPlan) -> Iterator[None]:
    """Let `prefix_attention` follow this plan meanwhile, in this thread."""
    before = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(before)


def prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,  # noqa: ARG001 - the interface of transformers; always 0 in eval mode
    scaling: float | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention to a prefix that exists once and to each row's own keys, joined exactly.

    Args:
        module: the attention module; its `layer_idx` picks the prefix's keys.
        query: (rows, heads, tokens, width).
        key: (rows, key heads, keys, width), the rows' own.
        value: as key.
        attention_mask: additive (rows, 1, tokens - trunk, keys) over the own keys; None: causal.
        dropout: not used.
        scaling: of the scores; None: 1 / sqrt(width).

    Returns:
        (rows, tokens, heads, width), and None for the weights.
    """
    plan = _PLAN.get()
    own_key, own_value = key, value
    if (groups := query.shape[1] // key.shape[1]) > 1:
        own_key, own_value = (part.repeat_interleave(groups, 1) for part in (key, value))
    own, logs = _own(query, own_key, own_value, attention_mask, scaling, plan.trunk)
    if plan.prefix is not None:
        ahead = plan.prefix.layers[module.layer_idx]  # type: ignore[index]
        if ahead is None:
            message = "a layer attends to another one's keys and values"
            raise NotImplementedError(message)
        front, front_logs = _front(query, *ahead, scaling)
        share = torch.sigmoid(front_logs.float() - logs.float()).unsqueeze(-1).to(own.dtype)
        own = torch.lerp(own, front, share.expand_as(own))
    return own.transpose(1, 2).contiguous(), None


def _own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
    scale: float | None, trunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention within rows; the causal trunk by itself, which is half the work of a mask."""
    if not trunk:
        return _flash(query, key, value, mask, scale, causal=query.shape[2] > 1)
    front, keys, values = (part[:, :, :trunk] for part in (query, key, value))
    first = _flash(front, keys, values, None, scale, causal=True)
    rest = _flash(query[:, :, trunk:], key, value, mask, scale)
    return torch.cat([first[0], rest[0]], 2), torch.cat([first[1], rest[1]], 2)


def _front(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of all rows to the keys (1, key heads, keys, width) of one prefix."""
    rows, heads, tokens, width = query.shape
    shared = key.shape[1]
    shape = (shared, rows, heads // shared, tokens)
    # Rows, and heads that share a key head, become queries of it: nothing is repeated.
    flat = query.reshape(rows, shared, -1, width).transpose(0, 1).reshape(1, shared, -1, width)
    front, logs = _flash(flat, key, value, None, scale)
    front = front.reshape(*shape, -1).transpose(0, 1).reshape(rows, heads, tokens, -1)
    return front, logs.reshape(shape).transpose(0, 1).reshape(rows, heads, tokens)


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
    scale: float | None, *, causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention and the log-sum-exp of its scores, (rows, heads, tokens)."""
    output, logs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001 - the only kernel that returns the log-sum-exp
        query, key, value, 0.0, causal and mask is None, attn_mask=mask, scale=scale
    )
    return output, logs


AttentionInterface.register(ATTENTION, prefix_attention)
