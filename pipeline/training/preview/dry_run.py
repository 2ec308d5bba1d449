"""The dry run of a training: three rows as they would be trained, and the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.examples.encode import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.encode import EncodedRow, RejectedRow
    from pipeline.training.examples.packing import PackedBatch
    from pipeline.training.machine.free_memory import FreeMemory
    from pipeline.training.preview.estimate import Estimate
    from pipeline.training.preview.preflight import Preflight
    from registry.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of neighbouring tokens that are all trained, or all not."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as the model reads it.

    Attributes:
        which: `shortest`, `median` or `longest`.
        uid: the row's `row_uid`.
        tokens: how many it has.
        trained_tokens: how many of them are trained.
        pieces: its text, in order.
    """

    which: str
    uid: int
    tokens: int
    trained_tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class DryRun:
    """A training that was not made.

    Attributes:
        base: the base's name.
        method: how.
        rows: that would be trained on.
        rejects: that this base can't be trained on.
        batches: passes through the model, over all epochs.
        shown: the shortest, the median and the longest row; fewer where there are fewer rows.
        estimate: tokens, steps, memory and time; None where a warning says why.
        free: memory, or None where the system doesn't say.
        warnings: one line each.
    """

    base: str
    method: str
    rows: int
    rejects: tuple[RejectedRow, ...]
    batches: int
    shown: tuple[ShownRow, ...]
    estimate: Estimate | None
    free: FreeMemory | None
    warnings: tuple[str, ...]


def dry_run(
    loaded: LoadedModel,
    encoded: Sequence[EncodedRow],
    rejects: Sequence[RejectedRow],
    plan: Sequence[PackedBatch],
    spec: TrainSpec,
    checked: Preflight,
) -> DryRun:
    """Describe the training that these rows, this plan and this spec would be."""
    return DryRun(
        base=loaded.identity.name,
        method=spec.method,
        rows=len({row.uid for row in encoded}),
        rejects=tuple(rejects),
        batches=len(plan),
        shown=tuple(_shown(loaded, which, row) for which, row in _three(encoded)),
        estimate=checked.estimate,
        free=checked.free,
        warnings=checked.warnings,
    )


def _three(encoded: Sequence[EncodedRow]) -> Iterator[tuple[str, EncodedRow]]:
    ordered = sorted(encoded, key=lambda row: row.tokens)
    places = {0: "shortest", len(ordered) - 1: "longest", len(ordered) // 2: "median"}
    if len(ordered) < len(("shortest", "median", "longest")):
        places = dict(zip(range(len(ordered)), ("shortest", "longest"), strict=False))
    for place in sorted(places):
        yield places[place], ordered[place]


def _shown(loaded: LoadedModel, which: str, row: EncodedRow) -> ShownRow:
    pieces = tuple(pieces_of(loaded, row))
    return ShownRow(which, row.uid, row.tokens, row.trained_tokens, pieces)


def pieces_of(loaded: LoadedModel, row: EncodedRow) -> Iterator[Piece]:
    """Yield a row's text, cut where it begins or ceases to be trained."""
    trained = row.labels != IGNORED
    cuts = [*(trained[1:] != trained[:-1]).nonzero()[0] + 1, row.tokens]
    begin = 0
    for end in map(int, cuts):
        text = loaded.tokenizer.decode(
            row.input_ids[begin:end].tolist(),
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        yield Piece(str(text), bool(trained[begin]))
        begin = end
