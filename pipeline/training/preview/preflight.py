"""Checks before the first step, beside those of each row's own that encoding it has made.

Encoding refuses a row without a trained token or an end-of-turn token, one over the base's
context, an answer that the tokenizer changes, and no rows at all (`encode.py`). Here the rows are
looked at together with the base and the spec: what can't go well is an error, and what seldom
does is a warning.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.training.examples.encode import IGNORED, decoded, plain_text, turns_of
from pipeline.training.machine.free_memory import FreeMemory, free_memory
from pipeline.training.methods.targets import layer_sides, lora_targets
from pipeline.training.preview.estimate import Estimate, estimate
from registry.chat.chat import TurnRefusedError
from registry.chat.form import answer_form
from registry.errors import DataError, ModelError, UserError
from registry.models.parts import figure, text_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.encode import EncodedRow, TrainingRow
    from pipeline.training.examples.packing import Family, PackedBatch
    from pipeline.training.machine.rates import Rates
    from registry.chat.chat import Chat
    from registry.chat.form import AnswerForm
    from registry.chat.settings import ChatSettings
    from registry.models.load import LoadedModel

_SAMPLE = 16  # rows that make the round trip
_NAMED = 3
_FAR = 10
_MANY_EPOCHS = 10  # above it rows are learnt by heart
_SCALES = (0.25, 8)
# An estimate is right within a factor of about two: a little above what is free may still fit.
_TOO_MUCH = 1.5
_MB = 10**6


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found before the first step.

    Attributes:
        estimate: memory and time; None where a warning says why.
        free: memory, or None where the system doesn't say.
        warnings: one line each.
    """

    estimate: Estimate | None
    free: FreeMemory | None
    warnings: tuple[str, ...]


def preflight(
    loaded: LoadedModel,
    rows: Sequence[TrainingRow],
    encoded: Sequence[EncodedRow],
    plan: Sequence[PackedBatch],
    spec: TrainSpec,
    *,
    shared: Sequence[Family] = (),
) -> Preflight:
    """Check a run before its first step; the model and all generators stay as they are.

    Args:
        loaded: the base, without modules of an adapter.
        rows: what was to be encoded; of pairs and verdicts, which aren't here, no text is compared.
        encoded: what came of them, rejects left out.
        plan: their batches.
        spec: how they are trained.
        shared: as it was given to `plan_batches`.

    Raises:
        UserError: a base whose tokenizer gives no row's text back, a target, rank or number of
            layers that the base can't have, or memory that can't be enough.
    """
    expected, said = estimated(loaded, encoded, plan, spec, shared)
    free = free_memory(loaded.device)
    warnings = [
        *round_trip_warnings(loaded, rows, encoded),
        *_thought_warnings(loaded.chat, rows),
        *stop_warnings(loaded, encoded),
        *budget_warnings(encoded, spec),
        *step_warnings(plan, spec),
        *rate_warnings(spec, figure(text_config(loaded.model), "hidden_size")),
        *(target_warnings(loaded.model, spec) if spec.is_lora else ()),
        *(memory_warnings(expected, free, spec) if expected and free else ()),
        *said,
    ]
    return Preflight(expected, free, tuple(warnings))


def round_trip_warnings(
    loaded: LoadedModel, rows: Sequence[TrainingRow], encoded: Sequence[EncodedRow]
) -> Iterator[str]:
    """Of a sample, each row's tokens give its rendered text, and that text the tokens.

    Raises:
        UserError: no row of the sample gives its text back.
    """
    chat = loaded.chat
    given = {row.uid: row for row in rows}
    sample = encoded[:: max(1, -(-len(encoded) // _SAMPLE))]
    lost: list[int] = []
    other: list[int] = []
    for row in sample:
        ids = row.input_ids.tolist()
        text = decoded(chat, ids)
        if row.uid in given and not _gives(chat, text, given[row.uid]):
            lost.append(row.uid)
        elif loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] != ids:
            other.append(row.uid)
    if lost and len(lost) == len(sample):
        raise ModelError(
            f"the tokens of base '{loaded.identity.name}' give no row's text back "
            f"(row {_named(lost)})",
            expected="a tokenizer that can write what its chat template renders",
        )
    if lost:
        yield (
            f"{len(lost)} of {len(sample)} rows looked at lose text of their prompt in this base's "
            f"tokens (row {_named(lost)})"
        )
    if other:
        yield (
            f"{len(other)} of {len(sample)} rows looked at are read as other tokens when their "
            f"text is encoded again (row {_named(other)})"
        )


def _gives(chat: Chat, text: str, row: TrainingRow) -> bool:
    """Whether tokens were the row's text, but for a first token that the tokenizer put there."""
    first = str(chat.tokenizer.bos_token or "")
    read = plain_text(text.removeprefix(first))
    shown = (turn.context + turn.target for turn in turns_of(chat, row))
    return any(plain_text(one.removeprefix(first)).startswith(read) for one in shown)


def _thought_warnings(chat: Chat, rows: Sequence[TrainingRow]) -> Iterator[str]:
    try:
        form = answer_form(chat)
    except TurnRefusedError:
        return  # a template for tools alone, say, has no answer to a bare question
    yield from thought_warnings(form, chat.settings, rows)


def thought_warnings(
    form: AnswerForm, settings: ChatSettings, rows: Sequence[TrainingRow]
) -> Iterator[str]:
    """Thoughts before answers are trained and asked for as they are meant."""
    trained = [
        [turn for turn in row.messages if turn["role"] == "assistant" and turn.get("train", True)]
        for row in rows
    ]
    given = [[bool(turn.get("reasoning")) for turn in turns] for turns in trained]
    thinking = sum(map(any, given))
    if settings.thinking == "off":
        if thinking:
            yield f"{thinking} rows have thoughts that are not trained: thinking is off"
        return
    silent = sum(bool(turns) and not all(turns) for turns in given)
    if silent and form.separator and form.separator in form.before:
        yield (
            f"{silent} of {len(rows)} rows have no thought, and are trained with an empty one, so "
            "not to think: set thinking: off on the base if that is meant"
        )
    cut = sum(
        any(turn.get("reasoning") for turn in row.messages[:-1] if turn["role"] == "assistant")
        for row in rows
    )
    if cut and form.separator:
        yield f"{cut} rows have earlier thoughts: later turns see them as the template shows them"


def stop_warnings(loaded: LoadedModel, encoded: Sequence[EncodedRow]) -> Iterator[str]:
    """The token that most answers end with is one that generation stops at."""
    ends = Counter(int(row.labels[row.labels != IGNORED][-1]) for row in encoded)
    end, _count = ends.most_common(1)[0]
    stops = {loaded.tokenizer.eos_token_id}
    for config in (loaded.model.config, loaded.model.generation_config):
        listed = getattr(config, "eos_token_id", None)
        stops |= set(listed) if isinstance(listed, list) else {listed}
    if end not in stops:
        shown = loaded.tokenizer.convert_ids_to_tokens(end)
        yield (
            f"answers end with {shown}, which generation does not stop at: add its id ({end}) to "
            "eos_token_id in the base's generation_config.json, or ask with a stop string"
        )


def budget_warnings(encoded: Sequence[EncodedRow], spec: TrainSpec) -> Iterator[str]:
    """Rows fit into a batch."""
    over = [row for row in encoded if row.tokens > spec.batch_tokens]
    if over:
        longest = max(row.tokens for row in over)
        yield (
            f"rows longer than train.batch_tokens ({spec.batch_tokens}): {len(over)}, each a batch "
            f"of its own; the longest has {longest} tokens"
        )


def rate_warnings(spec: TrainSpec, hidden: int | None) -> Iterator[str]:
    """The learning rate is within a factor of ten of what a base of this width takes."""
    if hidden is None:
        return
    usual = spec.usual_rate(hidden)
    factor = spec.rate / usual
    if not 1 / _FAR <= factor <= _FAR:
        high = factor > 1
        times = f"{factor if high else 1 / factor:,.0f} times {'above' if high else 'below'}"
        yield (
            f"train.learning_rate {spec.rate:g} is {times} what {spec.method} usually takes on a "
            f"base {hidden} wide (about {usual:.1g}): "
            + ("the loss may rise" if high else "little may be learnt")
        )


def step_warnings(plan: Sequence[PackedBatch], spec: TrainSpec) -> Iterator[str]:
    """There are as many steps as the spec wants, which few rows don't give."""
    steps = math.ceil(len(plan) / spec.accumulation)
    if steps >= spec.min_steps:
        return
    ways = []
    epochs = spec.epochs * spec.min_steps / steps
    if epochs <= _MANY_EPOCHS:
        ways.append(f"raise train.epochs ({spec.epochs:g}) to {_up(epochs)}")
    if spec.accumulation > 1:
        ways.append(f"lower train.accumulation ({spec.accumulation})")
    ways.append("choose more rows (train.budget_rows, a wider pool)")
    yield (
        f"{steps} steps are below train.min_steps ({spec.min_steps}), though batches are as small "
        f"as they can be: little may be learnt; {' or '.join(ways)}"
    )


def _up(epochs: float) -> str:
    """Round to two digits, never down."""
    return f"{math.ceil(epochs) if epochs > 1 else math.ceil(epochs * 100) / 100:g}"


def estimated(
    loaded: LoadedModel,
    encoded: Sequence[EncodedRow],
    plan: Sequence[PackedBatch],
    spec: TrainSpec,
    shared: Sequence[Family],
    *,
    rates: Rates | None = None,
) -> tuple[Estimate | None, list[str]]:
    """Return the estimate, or why there is none: that alone stops no run."""
    try:
        return estimate(loaded, encoded, plan, spec, shared=shared, rates=rates), []
    except UserError:
        raise  # what the base can't be trained by
    except Exception as error:  # noqa: BLE001 - an architecture may lack a figure in its own way
        said = next(iter(str(error).splitlines()), "")
        return None, [f"memory and time are not estimated ({type(error).__name__}: {said})"]


def target_warnings(model: Any, spec: TrainSpec) -> Iterator[str]:
    """What gets no LoRA though it has weights, and ranks and scales that are not usual."""
    targets = lora_targets(model, spec)
    yield from targets.left
    yield from rank_warnings(spec, targets.layers)


def rank_warnings(spec: TrainSpec, layers: Mapping[str, Any]) -> Iterator[str]:
    """The rank is one that every layer can have, and its scale a usual one."""
    small = [name for name, layer in layers.items() if min(layer_sides(layer)) < spec.rank]
    if small:
        names = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in small}))
        yield (
            f"train.rank {spec.rank} is above the smaller side of {len(small)} of {len(layers)} "
            f"layers ({names}): they are given more numbers than they have directions"
        )
    scale = spec.lora_alpha / spec.rank
    if not _SCALES[0] <= scale <= _SCALES[1]:
        yield (
            f"train.alpha {spec.lora_alpha} is {scale:g} times train.rank {spec.rank}: "
            f"{_SCALES[0]:g} to {_SCALES[1]:g} times is usual"
        )


def needed(expected: Estimate, free: FreeMemory) -> int:
    """Bytes that have to be free.

    Where taking too much raises an error, a batch is halved then: what counts is what training
    takes with the smallest batches.
    """
    return expected.least if free.raises else expected.growth


def memory_warnings(expected: Estimate, free: FreeMemory, spec: TrainSpec) -> Iterator[str]:
    """What training adds is free.

    Raises:
        UserError: it takes more than 1.5 times what is free.
    """
    said = (
        f"training is expected to add {_mb(expected.growth)} to the base's "
        f"{_mb(expected.weights)}, and {_mb(free.bytes)} are free of {free.where}"
    )
    if needed(expected, free) > _TOO_MUCH * free.bytes:
        raise DataError(said, fix=_less_memory(expected, spec))
    if expected.growth > free.bytes:
        yield f"{said}: {_less_memory(expected, spec)}"


def _less_memory(expected: Estimate, spec: TrainSpec) -> str:
    ways = []
    if expected.activations + expected.logits > expected.copies + expected.trained:
        ways.append(f"lower train.batch_tokens ({spec.batch_tokens})")
        if not spec.activation_checkpointing:
            ways.append("set train.activation_checkpointing")
    elif not spec.is_lora:
        ways.append("train by lora")
    else:
        ways.append(f"lower train.rank ({spec.rank})")
    return " or ".join([*ways, "take a smaller base"])


def _mb(count: int) -> str:
    return f"{count / _MB:,.0f} MB"


def _named(uids: Sequence[int]) -> str:
    more = len(uids) - _NAMED
    return ", ".join(map(str, uids[:_NAMED])) + (f" and {more} more" if more > 0 else "")
