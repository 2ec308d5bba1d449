"""Losses on preferences, with log-probabilities of whole answers from packed rows.

The reference of DPO and KTO is the same model with its adapter off: no second model is loaded. All
losses are given by pair or row, so that a step's mean is their sum over its batches, divided by
the pairs or rows of the whole step, however it is split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import logsigmoid

from pipeline.training.examples.encode import IGNORED
from pipeline.training.losses.loss import PackedRows, pack_rows, single_rows, token_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pipeline.training.examples.encode import EncodedRow
    from pipeline.training.examples.pairs import EncodedFeedback, EncodedPair

    Switch = Callable[[], AbstractContextManager[Any]]

_MINUS_LOG_2 = -0.6931471805599453


# ------------------------------------------------------------------------------------ the losses


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    """Direct preference optimisation, the sigmoid loss; each argument and the result is [pairs].

    Rafailov et al. 2023 (arXiv:2305.18290), equation 7, on summed log-probabilities of answers.
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -logsigmoid(beta * margin)


def orpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_nll: torch.Tensor,
    *,
    beta: float,
    tokens: float,
) -> torch.Tensor:
    """Odds ratio preference optimisation; each argument and the result is [pairs].

    Hong, Lee and Thorne 2024 (arXiv:2403.07691), equations 4, 6 and 7. As in TRL, likelihood is
    trained on the question and the chosen answer, as a mean over the tokens of all pairs.

    Args:
        chosen: mean log-probability of the chosen answer's tokens.
        rejected: that of the rejected one's.
        chosen_nll: minus the log-probability of question and chosen answer, summed.
        beta: weight of the odds ratio (lambda in the paper).
        tokens: of questions and chosen answers, all but the first of each, over all batches of the
            step / their pairs.
    """
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return chosen_nll / tokens - beta * logsigmoid(log_odds)


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - e^x) for x < 0, without cancellation on either side of -log 2."""
    # Each branch sees only values it is good at: a gradient of the other one would be inf or NaN.
    small = torch.where(x < _MINUS_LOG_2, x, torch.full_like(x, -1))
    near = torch.where(x < _MINUS_LOG_2, torch.full_like(x, -0.5), x)
    return torch.where(
        x < _MINUS_LOG_2, torch.log1p(-torch.exp(small)), torch.log(-torch.expm1(near))
    )


def kto_loss(
    policy: torch.Tensor,
    reference: torch.Tensor,
    good: torch.Tensor,
    kl: torch.Tensor,
    *,
    beta: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> torch.Tensor:
    """Kahneman-Tversky optimisation; [rows].

    Ethayarajh et al. 2024 (arXiv:2402.01306), equations 7 and 8, without the constant.

    Args:
        policy: [rows] summed log-probabilities of the answers.
        reference: [rows] the same of the reference.
        good: [rows] bool, the verdicts.
        kl: the reference point, a scalar of `kl_estimate`.
        beta: how fast value saturates away from it.
        good_weight: of good answers (lambda D).
        bad_weight: of bad ones (lambda U).
    """
    ratio = policy - reference
    gain = good_weight * (1 - torch.sigmoid(beta * (ratio - kl)))
    loss = bad_weight * (1 - torch.sigmoid(beta * (kl - ratio)))
    return torch.where(good, gain, loss)


def kl_estimate(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KTO's reference point from the mismatched pairs of a whole step; a scalar without gradient.

    Both are [pairs], summed log-probabilities; see `pairs.mismatched`. arXiv:2402.01306, 4.2.
    """
    if not len(policy):
        return policy.new_zeros(())
    return (policy - reference).detach().mean().clamp(min=0)


# ------------------------------------------------------------------------- packed pairs and rows


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """Pairs in one batch.

    Attributes:
        rows: their answers, each with its question.
        answers: bool [1, R], which of the rows' tokens are trained as answers; the labels may be
            on more.
        chosen: the place among `rows` of each pair's chosen answer.
        rejected: that of each pair's rejected answer.
    """

    rows: PackedRows
    answers: torch.Tensor
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def as_inputs(self) -> dict[str, Any]:
        """Its parts by name, as a collator hands them on."""
        own = {"answers": self.answers, "chosen": self.chosen, "rejected": self.rejected}
        return {**self.rows.as_inputs(), **own}

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> PackedPairs:
        """Undo `as_inputs`, once the tensors are on a device."""
        rows = PackedRows.from_inputs(inputs)
        return cls(rows, inputs["answers"], inputs["chosen"], inputs["rejected"])


@dataclass(frozen=True, slots=True)
class PackedFeedback:
    """Judged answers in one batch; `good` is bool [rows], the verdicts in the rows' order."""

    rows: PackedRows
    good: torch.Tensor

    def as_inputs(self) -> dict[str, Any]:
        """Its parts by name, as a collator hands them on."""
        return {**self.rows.as_inputs(), "good": self.good}

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> PackedFeedback:
        """Undo `as_inputs`, once the tensors are on a device."""
        return cls(PackedRows.from_inputs(inputs), inputs["good"])


def pack_pairs(pairs: Sequence[EncodedPair], *, share: bool, whole: bool = False) -> PackedPairs:
    """Put pairs into one batch.

    Args:
        pairs: in any order.
        share: let the answers to one question share it.
        whole: put labels on chosen answers' questions and all else in their rows, as ORPO does.
    """
    answers = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    rows, places = pack_answers(answers, share=share)
    trained = rows.labels != IGNORED
    if whole:
        at = {place: answers[number] for number, place in enumerate(places) if number % 2 == 0}
        parts = list(rows.labels[0].split(list(rows.lengths)))
        for place, row in at.items():
            parts[place] = torch.from_numpy(row.input_ids).long()
            parts[place][0] = IGNORED  # nothing comes before it that could predict it
        rows = replace(rows, labels=torch.cat(parts).unsqueeze(0))
    return PackedPairs(rows, trained, tuple(places[::2]), tuple(places[1::2]))


def pack_feedback(rows: Sequence[EncodedFeedback], *, share: bool) -> PackedFeedback:
    """Put judged answers into one batch; `share` lets those to one question share it."""
    packed, places = pack_answers([row.row for row in rows], share=share)
    good = torch.empty(len(rows), dtype=torch.bool)
    good[places] = torch.tensor([row.good for row in rows])
    return PackedFeedback(packed, good)


def pack_answers(rows: Sequence[EncodedRow], *, share: bool) -> tuple[PackedRows, list[int]]:
    """Put rows into one batch; returns it and the place of each row among its rows."""
    longest = sorted(range(len(rows)), key=lambda row: (-rows[row].tokens, row))
    packed = pack_rows([rows[row] for row in longest], share=share)
    places = [0] * len(rows)
    for place, number in enumerate(packed.order):
        places[longest[number]] = place
    return packed, places


def log_probs(model: torch.nn.Module, rows: PackedRows, *, packed: bool) -> torch.Tensor:
    """Log-probability of each label, row after row: fp32, in one forward pass if `packed`.

    `packed` is only for a model whose attention is `attention.NAME`.
    """
    if packed:
        return -token_losses(model, rows, packed=True)
    return -torch.cat([token_losses(model, row) for row in single_rows(rows)])


def _by_row(values: torch.Tensor, rows: PackedRows) -> tuple[torch.Tensor, ...]:
    """Cut one value a label into one tensor a row."""
    labels = (rows.labels[0] != IGNORED).split(list(rows.lengths))
    return values.split([int(part.sum()) for part in labels])


def summed_log_probs(model: torch.nn.Module, rows: PackedRows, *, packed: bool) -> torch.Tensor:
    """[rows] log-probability of each row's labels together; see `log_probs`."""
    return torch.stack(
        [part.sum() for part in _by_row(log_probs(model, rows, packed=packed), rows)]
    )


# -------------------------------------------------------------------------- losses of a batch


def dpo_losses(
    model: torch.nn.Module, batch: PackedPairs, adapter_off: Switch, *, beta: float, packed: bool
) -> torch.Tensor:
    """DPO of a batch, [pairs]; within `adapter_off()` the model is its own reference."""
    with torch.no_grad(), adapter_off():
        reference = summed_log_probs(model, batch.rows, packed=packed)
    policy = summed_log_probs(model, batch.rows, packed=packed)
    chosen, rejected = list(batch.chosen), list(batch.rejected)
    return dpo_loss(
        policy[chosen], policy[rejected], reference[chosen], reference[rejected], beta=beta
    )


def orpo_losses(
    model: torch.nn.Module, batch: PackedPairs, *, beta: float, tokens: float, packed: bool
) -> torch.Tensor:
    """ORPO of a batch packed as a whole, [pairs]; `tokens` as in `orpo_loss`."""
    rows = batch.rows
    each = log_probs(model, rows, packed=packed)
    answers = batch.answers[rows.labels != IGNORED]
    of_rows = zip(_by_row(each, rows), _by_row(answers, rows), strict=True)
    means = torch.stack([part[answer].mean() for part, answer in of_rows])
    sums = torch.stack([part.sum() for part in _by_row(each, rows)])
    chosen, rejected = list(batch.chosen), list(batch.rejected)
    return orpo_loss(means[chosen], means[rejected], -sums[chosen], beta=beta, tokens=tokens)


def kto_losses(
    model: torch.nn.Module,
    batch: PackedFeedback,
    adapter_off: Switch,
    kl: torch.Tensor,
    *,
    beta: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
    packed: bool,
) -> torch.Tensor:
    """KTO of a batch, [rows]; `kl` of `kl_of`."""
    with torch.no_grad(), adapter_off():
        reference = summed_log_probs(model, batch.rows, packed=packed)
    policy = summed_log_probs(model, batch.rows, packed=packed)
    weights = {"good_weight": good_weight, "bad_weight": bad_weight}
    return kto_loss(policy, reference, batch.good, kl, beta=beta, **weights)


def kl_of(
    model: torch.nn.Module, batches: Sequence[PackedRows], adapter_off: Switch, *, packed: bool
) -> torch.Tensor:
    """KTO's reference point of a whole step, from its mismatched pairs in any batches."""
    with torch.no_grad():
        policy = [summed_log_probs(model, rows, packed=packed) for rows in batches]
        with adapter_off():
            reference = [summed_log_probs(model, rows, packed=packed) for rows in batches]
    return kl_estimate(torch.cat(policy), torch.cat(reference))
