"""A small probe of a capability while a model is being trained: questions with choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from pipeline.training.examples.encode import encode_rows
from pipeline.training.losses.attention import NAME
from pipeline.training.losses.batches import on_device
from pipeline.training.losses.loss import pack_rows
from pipeline.training.losses.preference import summed_log_probs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.training.examples.encode import TrainingRow
    from registry.models.load import LoadedModel


class ProbeQuestion(Protocol):
    """A question: a row for each choice, and which of them is right."""

    @property
    def choices(self) -> Sequence[TrainingRow]:
        """The rows."""

    @property
    def right(self) -> int:
        """Which one."""


@torch.no_grad()
def share_right(
    model: torch.nn.Module, loaded: LoadedModel, asked: Sequence[ProbeQuestion]
) -> float:
    """Share of questions whose right choice has the highest log-probability.

    Choices that the base can't be trained on (too long) leave their question out.
    """
    packed = loaded.model.config._attn_implementation == NAME  # noqa: SLF001  no public reader
    right = count = 0
    for question in asked:
        rows = encode_rows(loaded, question.choices, allow_rejects=1.0).rows
        if len(rows) < len(question.choices):
            continue
        order = sorted(range(len(rows)), key=lambda row: -rows[row].tokens)
        batch = on_device(pack_rows([rows[row] for row in order]), loaded.device)
        scores = summed_log_probs(model, batch, packed=packed)
        right += order[int(scores.argmax())] == question.right
        count += 1
    return right / max(1, count)
