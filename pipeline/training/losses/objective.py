"""Training objectives: answers to learn, pairs to prefer, verdicts to heed.

An objective encodes the rows, lays them into batches, and gives each batch's share of the step's
loss. A step's loss is a mean over its trained tokens (`sft`), pairs (`dpo`, `orpo`) or rows
(`kto`), so that a batch that is split in any way gives the same gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from pipeline.training.examples import pairs as encoding
from pipeline.training.examples.encode import (
    IGNORED,
    EncodedRow,
    RejectedRow,
    TrainingRow,
    encode_rows,
)
from pipeline.training.examples.packing import (
    PackedBatch,
    RowLimits,
    families,
    plan_batches,
)
from pipeline.training.losses import preference
from pipeline.training.losses.batches import cuts, moved, on_device
from pipeline.training.losses.head import Kept
from pipeline.training.losses.loss import (
    PackedRows,
    base_said,
    pack_rows,
    packed_loss,
    row_by_row_loss,
)
from pipeline.training.machine import processes
from registry.errors import DataError
from registry.models.parts import refuse_beyond

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.packing import Family
    from registry.models.load import LoadedModel

TrainingExample = TrainingRow | encoding.PreferenceRow | encoding.FeedbackRow


@dataclass(frozen=True)
class ForwardMode:
    """How rows go through the model.

    Attributes:
        packed: in one pass, each attending to itself.
        share: those of one prompt with it once.
        reference: a context in which the model is what it was before training.
    """

    packed: bool
    share: bool
    reference: preference.Switch | None = None


class Objective(Protocol):
    """See the module."""

    @property
    def parts(self) -> Sequence[Sequence[EncodedRow]]:
        """The encoded rows that each trained thing is made of; they decide the outcome."""

    def family(self) -> tuple[Family, ...]:
        """Which of them share a prompt."""

    def tokens(self, position: int) -> int:
        """How many tokens one takes in a batch."""

    def weights(self, positions: Sequence[int]) -> torch.Tensor:
        """A tensor with as many values other than -100 as the batch counts in the step's mean."""

    def prepare(self, model: torch.nn.Module, step: Sequence[int], ways: ForwardMode) -> None:
        """Compute what every batch of a step needs to know of all of it."""

    def losses(
        self, model: torch.nn.Module, positions: Sequence[int], pieces: int, ways: ForwardMode
    ) -> Iterator[torch.Tensor]:
        """Yield the summed loss of each piece of a batch, ready for its backward pass."""


@dataclass(frozen=True)
class Answers:
    """Learn the answers: cross-entropy of their tokens.

    With `kl`, what is replayed costs its divergence from the base as well, so many times.
    """

    rows: Sequence[EncodedRow]
    device: torch.device
    kl: float = 0.0

    @property
    def parts(self) -> Sequence[Sequence[EncodedRow]]:
        """One row each."""
        return [(row,) for row in self.rows]

    def family(self) -> tuple[Family, ...]:
        """Rows with the same tokens before the first trained one."""
        return families(self.rows)

    def tokens(self, position: int) -> int:
        """All of its own."""
        return self.rows[position].tokens

    def weights(self, positions: Sequence[int]) -> torch.Tensor:
        """The labels: a mean over trained tokens."""
        return torch.cat([torch.from_numpy(self.rows[row].labels) for row in positions])

    def prepare(self, model: torch.nn.Module, step: Sequence[int], ways: ForwardMode) -> None:
        """Nothing."""

    def losses(
        self, model: torch.nn.Module, positions: Sequence[int], pieces: int, ways: ForwardMode
    ) -> Iterator[torch.Tensor]:
        """As the protocol's."""
        rows = [self.rows[position] for position in positions]
        summed = packed_loss if ways.packed else row_by_row_loss
        for cut in cuts([row.tokens for row in rows], pieces):
            packed = on_device(pack_rows(rows[cut], share=ways.share), self.device)
            yield summed(model, packed, self._kept(model, rows[cut], packed.order, ways))

    def _kept(
        self,
        model: torch.nn.Module,
        rows: Sequence[EncodedRow],
        order: Sequence[int],
        ways: ForwardMode,
    ) -> Kept | None:
        """Ask the base about those of a batch's rows that are replayed, by themselves."""
        places = [place for place, row in enumerate(rows) if row.keeps] if self.kl else []
        if not self.kl or not (places or processes.count() > 1):
            return None
        # Processes go through the model together: one with nothing to keep goes along.
        given = [rows[place] for place in places] or rows[:1]
        asked = on_device(pack_rows(given, share=ways.share), self.device)
        with torch.no_grad(), _reference(ways)():
            said = base_said(model, asked, packed=ways.packed)
        if not places:
            return None
        slots, begin = {}, 0
        for number in asked.order:
            count = rows[places[number]].trained_tokens
            slots[places[number]] = torch.arange(begin, begin + count)
            begin += count
        found = [slots.get(place, torch.full((rows[place].trained_tokens,), -1)) for place in order]
        return Kept(self.kl, torch.cat(found).to(self.device), said)


@dataclass
class Pairs:
    """Prefer the chosen answer: DPO, or ORPO, which needs no reference."""

    pairs: Sequence[encoding.EncodedPair]
    device: torch.device
    beta: float
    whole: bool  # ORPO learns the chosen conversation too
    _tokens: float = field(default=0.0, init=False)

    @property
    def parts(self) -> Sequence[Sequence[EncodedRow]]:
        """The chosen and the rejected."""
        return [(pair.chosen, pair.rejected) for pair in self.pairs]

    def family(self) -> tuple[Family, ...]:
        """Pairs with one question."""
        return encoding.pair_families(self.pairs)

    def tokens(self, position: int) -> int:
        """Of both answers, with the question once where it can be shared."""
        return self.pairs[position].tokens

    def weights(self, positions: Sequence[int]) -> torch.Tensor:
        """A mean over pairs."""
        return _one_each(positions)

    def prepare(self, model: torch.nn.Module, step: Sequence[int], ways: ForwardMode) -> None:
        """ORPO's likelihood is a mean over the tokens of the step's chosen conversations."""
        del model, ways
        tokens = sum(self.pairs[position].chosen.tokens - 1 for position in step)
        self._tokens = tokens / max(1, len(step))

    def losses(
        self, model: torch.nn.Module, positions: Sequence[int], pieces: int, ways: ForwardMode
    ) -> Iterator[torch.Tensor]:
        """As the protocol's."""
        for cut in cuts([self.tokens(position) for position in positions], pieces):
            pairs = [self.pairs[position] for position in positions[cut]]
            packed = preference.pack_pairs(pairs, share=ways.share, whole=self.whole)
            batch = preference.PackedPairs.from_inputs(moved(packed.as_inputs(), self.device))
            if self.whole:
                yield preference.orpo_losses(
                    model, batch, beta=self.beta, tokens=self._tokens, packed=ways.packed
                ).sum()
            else:
                yield preference.dpo_losses(
                    model, batch, _reference(ways), beta=self.beta, packed=ways.packed
                ).sum()


@dataclass
class Verdicts:
    """Heed what was called good and bad: KTO."""

    rows: Sequence[encoding.EncodedFeedback]
    device: torch.device
    beta: float
    context: int
    _kl: torch.Tensor | None = field(default=None, init=False)

    @property
    def parts(self) -> Sequence[Sequence[EncodedRow]]:
        """The conversation."""
        return [(one.row,) for one in self.rows]

    def family(self) -> tuple[Family, ...]:
        """Rows with one question."""
        return families([one.row for one in self.rows])

    def tokens(self, position: int) -> int:
        """All of its own."""
        return self.rows[position].row.tokens

    def weights(self, positions: Sequence[int]) -> torch.Tensor:
        """A mean over rows."""
        return _one_each(positions)

    def prepare(self, model: torch.nn.Module, step: Sequence[int], ways: ForwardMode) -> None:
        """Estimate how far the policy is from its reference, on mismatched pairs of the step."""
        chosen = [self.rows[position] for position in step]
        crossed = encoding.mismatched(chosen, context=self.context) if len(chosen) > 1 else []
        if not crossed:
            self._kl = torch.zeros((), device=self.device)
            return
        rows, _ = preference.pack_answers(crossed, share=ways.share)
        self._kl = preference.kl_of(
            model, [on_device(rows, self.device)], _reference(ways), packed=ways.packed
        )

    def losses(
        self, model: torch.nn.Module, positions: Sequence[int], pieces: int, ways: ForwardMode
    ) -> Iterator[torch.Tensor]:
        """As the protocol's."""
        kl = self._kl
        if kl is None:
            raise ValueError("a step that was not prepared")
        for cut in cuts([self.tokens(position) for position in positions], pieces):
            rows = [self.rows[position] for position in positions[cut]]
            packed = preference.pack_feedback(rows, share=ways.share)
            batch = preference.PackedFeedback.from_inputs(moved(packed.as_inputs(), self.device))
            yield preference.kto_losses(
                model, batch, _reference(ways), kl, beta=self.beta, packed=ways.packed
            ).sum()


def _one_each(positions: Sequence[int]) -> torch.Tensor:
    """The Trainer leaves the first label out of its count, which predicts nothing in a row."""
    return torch.tensor([IGNORED, *([0] * len(positions))])


def _reference(ways: ForwardMode) -> preference.Switch:
    if ways.reference is None:
        raise ValueError("an objective with a reference, and none to switch to")
    return ways.reference


@dataclass(frozen=True)
class EncodedObjective:
    """An objective with its rows, and the rows that this base can't be trained on."""

    objective: Objective
    rejects: tuple[RejectedRow, ...]


def encode(
    loaded: LoadedModel, rows: Sequence[Any], spec: TrainSpec, *, allow_rejects: float
) -> EncodedObjective:
    """Encode rows by the spec's objective.

    Raises:
        UserError: no rows, rows of another kind, too many that can't be trained on, or a token
            that the base has no embedding for.
    """
    found = _encode(loaded, rows, spec, allow_rejects=allow_rejects)
    highest = [int(row.input_ids.max()) for part in found.objective.parts for row in part]
    refuse_beyond(loaded.model, loaded.tokenizer, highest, f"bases.{loaded.identity.name}")
    return found


def _encode(
    loaded: LoadedModel, rows: Sequence[Any], spec: TrainSpec, *, allow_rejects: float
) -> EncodedObjective:
    wanted: type[Any] = {"sft": TrainingRow, "kto": encoding.FeedbackRow}.get(
        spec.objective, encoding.PreferenceRow
    )
    other = next((row for row in rows if not isinstance(row, wanted)), None)
    if other is not None:
        raise DataError(
            f"row {other.uid} is not what {spec.objective} learns from",
            where="train.objective",
            expected=KINDS[spec.objective],
        )
    device = loaded.device
    if spec.objective == "sft":
        found = encode_rows(loaded, rows, allow_rejects=allow_rejects)
        return EncodedObjective(Answers(found.rows, device, spec.kl), found.rejects)
    if spec.objective == "kto":
        judged, rejects = encoding.encode_feedback(loaded, rows, allow_rejects=allow_rejects)
        return EncodedObjective(Verdicts(judged, device, spec.beta, loaded.context), rejects)
    pairs, rejects = encoding.encode_pairs(loaded, rows, allow_rejects=allow_rejects)
    return EncodedObjective(
        Pairs(pairs, device, spec.beta, whole=spec.objective == "orpo"), rejects
    )


KINDS = {
    "sft": "instructions, texts, or the chosen answers of preferences",
    "dpo": "preference rows",
    "orpo": "preference rows",
    "kto": "feedback rows",
}


# KTO compares a batch's rows with each other's answers, and TRL wants four of them at least.
_FEWEST_ROWS = {"kto": 4}


def plan(objective: Objective, spec: TrainSpec, *, share: bool) -> tuple[PackedBatch, ...]:
    """Lay the rows of an objective into the batches that they are trained in."""
    rows = RowLimits(
        spec.batch_rows, spec.min_steps * spec.accumulation, _FEWEST_ROWS.get(spec.objective, 1)
    )
    return _plan(objective, spec, share=share, epochs=spec.epochs, rows=rows)


def plan_checks(objective: Objective, spec: TrainSpec, *, share: bool) -> tuple[PackedBatch, ...]:
    """Lay them into those that a check looks at once: as large as memory allows."""
    return _plan(objective, spec, share=share, epochs=1)


def _plan(
    objective: Objective,
    spec: TrainSpec,
    *,
    share: bool,
    epochs: float,
    rows: RowLimits | None = None,
) -> tuple[PackedBatch, ...]:
    return plan_batches(
        [objective.tokens(position) for position in range(len(objective.parts))],
        epochs=epochs,
        seed=spec.seed,
        budget=spec.batch_tokens,
        shared=objective.family() if share else (),
        rows=rows,
    )


__all__ = [
    "EncodedObjective",
    "ForwardMode",
    "Objective",
    "PackedRows",
    "TrainingExample",
    "encode",
    "plan",
    "plan_checks",
]
