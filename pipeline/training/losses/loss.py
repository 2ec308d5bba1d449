"""The loss of a packed batch: summed over trained tokens, the LM head computed only there.

Where rows share tokens, the token that predicts a row's next one may be shared as well (the
prompt's last predicts the first of every answer), so labels go by row and each says which token
of the batch predicts it.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.training.examples.encode import IGNORED, EncodedRow
from pipeline.training.examples.layout import PrefixTree, TreeLayout, make_layout
from pipeline.training.examples.packing import families
from pipeline.training.examples.rounding import round_tokens, wants_whole_steps
from pipeline.training.losses.head import Kept, bare_head, divergence, head_losses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# What `why_not_shared` tries: a prompt, and first token and length of three answers.
_PROMPT = 24
_ANSWERS = ((61, 7), (91, 5), (41, 5))
_LEAK = 1e-5  # for experts, whose groups change with their neighbours; else it is equal to the bit


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows in one batch of T tokens: first those laid end to end, then the trees.

    R is the sum of the rows' own tokens; it is above T where rows share some.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T], those of a branch going on where its prefix ends.
        labels: int64 [1, R], row after row.
        lengths: each row's tokens; their sum is R.
        uids: each row's `row_uid`.
        trees: which rows share tokens: the last ones, a row a branch.
        order: of each row, which one it was of those that were packed.
        sources: int64 [1, R], which of the T tokens predicts each row's token (anything for a
            row's first, which has no label); None without trees, where it is the one before.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    lengths: tuple[int, ...]
    uids: tuple[int, ...]
    trees: tuple[PrefixTree, ...] = ()
    order: tuple[int, ...] = ()
    sources: torch.Tensor | None = None

    def as_inputs(self) -> dict[str, Any]:
        """Its fields by name, as a collator hands them on."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> PackedRows:
        """Undo `as_inputs`, once the tensors are on a device; other names are passed over."""
        return cls(**{part.name: inputs[part.name] for part in fields(cls)})

    def layout(self) -> TreeLayout:
        """What attention needs to know of it."""
        shared = sum(len(tree.branches) for tree in self.trees)
        alone = self.lengths[: len(self.lengths) - shared]
        return make_layout(alone, self.input_ids.device, self.trees)


def pack_rows(rows: Sequence[EncodedRow], *, share: bool = False) -> PackedRows:
    """Put rows into one batch, the positions of each starting at 0.

    Args:
        rows: the longest first.
        share: let rows of one prompt share it, which puts them behind the others.
    """
    found = families(rows) if share else ()
    shared = [position for family in found for position in family.rows]
    together = frozenset(shared)
    alone = [position for position in range(len(rows)) if position not in together]
    order = (*alone, *shared)
    batch = _Tokens()
    for position in alone:
        batch.add_row(rows[position].input_ids)
    trees = tuple(
        batch.add_tree([rows[position].input_ids for position in family.rows], family.prefix)
        for family in found
    )
    return PackedRows(
        input_ids=_joined(batch.ids),
        position_ids=torch.cat(batch.positions).unsqueeze(0),
        labels=_joined([rows[position].labels for position in order]),
        lengths=tuple(rows[position].tokens for position in order),
        uids=tuple(rows[position].uid for position in order),
        trees=trees,
        order=order,
        sources=torch.cat(batch.sources).unsqueeze(0) if trees else None,
    )


class _Tokens:
    """The tokens of a batch, as they are put into it."""

    def __init__(self) -> None:
        self.ids: list[np.ndarray] = []
        self.positions: list[torch.Tensor] = []
        self.sources: list[torch.Tensor] = []
        self._end = 0

    def add_row(self, ids: np.ndarray) -> None:
        begin = self._put(ids, 0)
        self.sources.append(torch.arange(begin - 1, self._end - 1))

    def add_tree(self, rows: Sequence[np.ndarray], prefix: int) -> PrefixTree:
        root = self._put(rows[0][:prefix], 0)
        for ids in rows:
            begin = self._put(ids[prefix:], prefix)
            self.sources.append(torch.arange(root - 1, root + prefix))
            self.sources.append(torch.arange(begin, self._end - 1))
        return PrefixTree(prefix, tuple(len(ids) - prefix for ids in rows))

    def _put(self, ids: np.ndarray, position: int) -> int:
        begin = self._end
        self.ids.append(ids)
        self.positions.append(torch.arange(position, position + len(ids)))
        self._end += len(ids)
        return begin


def _joined(arrays: Sequence[Any]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(array) for array in arrays]).long().unsqueeze(0)


def packed_loss(model: torch.nn.Module, rows: PackedRows, kept: Kept | None = None) -> torch.Tensor:
    """Sum of the trained tokens' losses in one forward pass over all rows; fp32 scalar.

    A trained token that rows share counts once for each of them, as if they were apart.
    Only for a model whose attention is `attention.NAME`.
    """
    return token_losses(model, rows, packed=True, kept=kept).sum()


def row_by_row_loss(
    model: torch.nn.Module, rows: PackedRows, kept: Kept | None = None
) -> torch.Tensor:
    """The same sum, one forward pass a row, for models that can't be packed.

    Raises:
        ValueError: no rows, or rows that were packed to share tokens.
    """
    parts, begin = [], 0
    for row in single_rows(rows):
        end = begin + int((row.labels != IGNORED).sum())
        own = None if kept is None else replace(kept, slots=kept.slots[begin:end])
        parts.append(token_losses(model, row, kept=own).sum())
        begin = end
    if not parts:
        raise ValueError("a batch without rows")
    return sum(parts[1:], start=parts[0])


def single_rows(rows: PackedRows) -> Iterator[PackedRows]:
    """Yield each row by itself.

    Raises:
        ValueError: they share tokens.
    """
    if rows.trees:
        raise ValueError("rows that share tokens don't go through a model one by one")
    begin = 0
    for length, uid in zip(rows.lengths, rows.uids, strict=True):
        cut = slice(begin, begin + length)
        yield PackedRows(
            rows.input_ids[:, cut],
            rows.position_ids[:, cut],
            rows.labels[:, cut],
            lengths=(length,),
            uids=(uid,),
        )
        begin += length


def token_losses(
    model: torch.nn.Module, rows: PackedRows, *, packed: bool = False, kept: Kept | None = None
) -> torch.Tensor:
    """-log p of each trained token, row after row: fp32, one for each label.

    Without `packed` it is one row, which the model attends to as it does by itself. With `kept`,
    the divergence from the base is added to those that it is of.
    """
    targets = rows.labels[0, rows.labels[0] != IGNORED]
    places = takes_places(model)
    with (
        head_losses(model, targets, kept)
        if places
        else nullcontext(enter_result=False) as are_losses
    ):
        found = _at_trained(model, rows, packed=packed)
    if are_losses:
        return found
    losses = cross_entropy(found.float(), targets, reduction="none")
    if kept is None:
        return losses
    mine = (kept.slots >= 0).nonzero().squeeze(1)
    trained, base = (
        logits.float().log_softmax(1) for logits in (found[mine], kept.said[kept.slots[mine]])
    )
    return losses.index_add(0, mine, kept.strength * divergence(trained, base))


def base_said(model: torch.nn.Module, rows: PackedRows, *, packed: bool) -> torch.Tensor:
    """What `Kept` has of the base, for each trained token row after row; the adapter is off."""
    bare = bare_head(model) if takes_places(model) else nullcontext(enter_result=False)
    with torch.no_grad(), bare:
        if packed:
            return _at_trained(model, rows, packed=True)
        return torch.cat([_at_trained(model, row, packed=False) for row in single_rows(rows)])


def _at_trained(model: torch.nn.Module, rows: PackedRows, *, packed: bool) -> torch.Tensor:
    """What the head gives where trained tokens are predicted, [N, ...]."""
    # A row's first token has no label, so no row is predicted from the one before it.
    trained = (rows.labels[0] != IGNORED).nonzero().squeeze(1)
    places = trained - 1 if rows.sources is None else rows.sources[0, trained]
    kwargs: dict[str, Any] = {"attention_mask": None, "use_cache": False}
    ids, positions = rows.input_ids, rows.position_ids
    if packed:
        kwargs["packed_layout"] = rows.layout()
        if wants_whole_steps(model):
            ids, positions, kwargs["packed_layout"] = round_tokens(
                ids, positions, kwargs["packed_layout"]
            )
    kwargs |= {"input_ids": ids, "position_ids": positions}
    if not takes_places(model):
        logits: torch.Tensor = model(**kwargs).logits[0][places]
        return logits
    found: torch.Tensor = model(**kwargs, logits_to_keep=places).logits[0]
    return found


def takes_places(model: Any) -> bool:
    """Whether the model computes its head only at the places asked for."""
    model = getattr(model, "module", model)  # of a copy among several
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def why_not_shared(model: Any, *, same: float) -> str | None:
    """Try sharing a prompt on a model that attends packed rows; None if its answers stay apart.

    Compared are the losses of two answers' tokens shared, by themselves, and shared with another
    second answer. `same` is the difference that the model's dtype allows, as a share of the loss.
    """
    first, second, other = (_counted_row(model, start, length) for start, length in _ANSWERS)
    with torch.no_grad():
        alone, shared, beside_other = (
            token_losses(model, rows, packed=True)
            for rows in (
                pack_rows([first, second]),
                pack_rows([first, second], share=True),
                pack_rows([first, other], share=True),
            )
        )
    scale = float(alone.abs().max()) or 1.0
    answer = first.trained_tokens
    if float((shared[:answer] - beside_other[:answer]).abs().max()) > _LEAK * scale:
        return "an answer changes with another one to the same prompt"
    if not float((shared - alone).abs().max()) <= same * scale:
        return "answers with a shared prompt have other losses than by themselves"
    return None


def _counted_row(model: Any, start: int, length: int) -> EncodedRow:
    """A prompt that all rows have and an answer of `length` tokens from `start` on."""
    prompt, answer = np.arange(3, 3 + _PROMPT), np.arange(start, start + length)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = (np.concatenate([prompt, answer]) % vocabulary).astype(np.int32)
    labels = ids.copy()
    labels[:_PROMPT] = IGNORED
    return EncodedRow(uid=start, input_ids=ids, labels=labels)
