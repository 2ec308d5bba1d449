"""Requests as rows: a context and the trie of its choices; and rows in batches of arrays.

Requests that share their context become one row, and what they share is computed once. The context
[4, 6] with the choices [7, 8, 1], [7, 9, 1] and [5] (their trie is drawn in tree.py):

    ids        4 6 7 8 9      the context, then the trie's nodes
    positions  0 1 2 3 3      8 and 9 are both behind 7
    keep       0 1 1 1 1      logits are wanted of the slots: the context's last token, the nodes
    mask       causal, but that 9 doesn't see 8

Batches are [rows, length], padded on the right; the mask is [rows, length, length], and None where
no trie has a branch. Where all contexts are long (TRUNK_TOKENS) their common part is causal by
itself, so that only the rest pays for a mask. Rows behind a shared prefix leave its tokens out and
keep their positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.engine.tree import ContinuationTree, PaddedBatch, build_trees
from registry.chat.template import Rendered
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evals.engine.encode import Encoder

# From this length on, contexts are attended to causally, apart from their tries: half the work.
TRUNK_TOKENS = 64


@dataclass(frozen=True, eq=False)
class RequestRow:
    """A context, a trie of continuations, and the request that each of its members is."""

    context: NDArray[np.int64]
    tree: ContinuationTree
    requests: NDArray[np.int64]


def rows_of(
    pairs: Sequence[tuple[str, str]], encoder: Encoder, start_token: int
) -> list[RequestRow]:
    """Requests as rows: one for each context, or few where it has very many choices."""
    groups: dict[str, list[int]] = {}
    for index, (context, _) in enumerate(pairs):
        groups.setdefault(context, []).append(index)
    bare = {text: text if isinstance(text, Rendered) else text.rstrip() for text in groups}
    full = [text for text in groups if bare[text]]
    encoded = dict(zip(full, encoder.contexts([bare[text] for text in full]), strict=True))
    rows: list[RequestRow] = []
    known: dict[Any, tuple[ContinuationTree, ...]] = {}
    for text, members in groups.items():
        if text not in encoded:
            bare_ids = [encoder.bare(text + pairs[m][1]) for m in members]
            rows += _contextless(bare_ids, members, start_token)
            continue
        # As lm-eval does: spaces at the context's end belong to the continuation. What a template
        # wrote ends where the answer begins.
        spaces = text[len(bare[text]) :]
        choices = tuple([spaces + pairs[m][1] for m in members])
        found = encoded[text]
        # Behind the same tail, the same choices are the same tokens.
        key = (found.tail, choices)
        trees = known.get(key) if found.tail is not None else None
        if trees is None:
            ids = encoder.continuations(found, choices)
            refuse_empty(ids, members)
            trees = known[key] = build_trees(ids)
        rows += lay_rows(found.ids, trees, members)
    return rows


def _contextless(ids: list[list[int]], members: list[int], start_token: int) -> list[RequestRow]:
    """Continuations without a context stand behind BOS: their own, where they begin with it."""
    refuse_empty(ids, members)
    rows: list[RequestRow] = []
    own = [place for place, tokens in enumerate(ids) if tokens[0] == start_token]
    rest = [place for place in range(len(ids)) if place not in set(own)]
    for chosen, skip in ((own, 1), (rest, 0)):
        if chosen:
            cut = [ids[place][skip:] for place in chosen]
            numbers = [members[place] for place in chosen]
            refuse_empty(cut, numbers)
            rows += lay_rows([start_token], build_trees(cut), numbers)
    return rows


def batch_of(rows: Sequence[RequestRow], start: int) -> PaddedBatch:
    """Rows behind a prefix of `start` tokens as arrays; each keeps its slots, in their order."""
    length = max(len(row.context) - start + len(row.tree.tokens) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    # Padding stays at position 0: a trie may be longer than the model has positions.
    positions = np.zeros(ids.shape, dtype=np.int64)
    keep = np.zeros(ids.shape, dtype=np.bool_)
    branched = any(not row.tree.chain for row in rows)
    mask = np.tile(np.tri(length, dtype=np.bool_), (len(rows), 1, 1)) if branched else None
    for number, row in enumerate(rows):
        trunk = len(row.context) - start
        end = trunk + len(row.tree.tokens)
        ids[number, :trunk] = row.context[start:]
        ids[number, trunk:end] = row.tree.tokens
        positions[number, :trunk] = np.arange(start, len(row.context))
        positions[number, trunk:end] = row.tree.depths + len(row.context)
        keep[number, trunk - 1 : end] = True
        if mask is not None and not row.tree.chain:
            mask[number, trunk:end, trunk:end] = row.tree.mask
    trunk = min(len(row.context) for row in rows) - start
    return PaddedBatch(ids, positions, keep, mask, trunk if trunk >= TRUNK_TOKENS else 0)


def lay_rows(
    context: Sequence[int], trees: Sequence[ContinuationTree], members: Sequence[int]
) -> list[RequestRow]:
    """Rows of one context, one for each of its tries; `members` are request indices."""
    ids = np.array(context, dtype=np.int64)
    numbers = np.array(members, dtype=np.int64)
    return [RequestRow(ids, tree, numbers[list(tree.members)]) for tree in trees]


def refuse_empty(ids: Sequence[Sequence[int]], members: Sequence[int]) -> None:
    """Raise UserError for a continuation of no tokens."""
    for tokens, member in zip(ids, members, strict=True):
        if not tokens:
            raise DataError(f"request {member} has an empty continuation", expected="some text")
