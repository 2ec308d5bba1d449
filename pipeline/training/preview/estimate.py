"""The estimate of memory and time, before the first step, from the model's and the rows' shapes.

Memory is counted as fp32 masters, gradients and AdamW's states of what is trained, what the
backward pass keeps of the largest batch, and the logits of its trained tokens. Time is that of
a device which does nothing else, from its rates in products of the model's sizes. Both are right
within a factor of about two for transformers; a quantised base takes longer than said.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.training.compute import DTYPES
from pipeline.training.examples.packing import PackedBatch
from pipeline.training.machine.rates import Rates, measured_rates
from pipeline.training.methods.new_rows import new_rows
from pipeline.training.methods.targets import lora_targets
from pipeline.training.methods.whole import chosen_weights
from registry.models.parts import decoder_layers, figure, text_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.encode import EncodedRow
    from pipeline.training.examples.packing import Family
    from registry.models.load import LoadedModel

_FP32 = 4
# A master, its gradient, and AdamW's two means.
_STATE = 4 * _FP32
# Copies of the logits at the peak: log-softmax, its gradient and theirs.
_LOGITS = 3
# Passing tensors of the backward pass, and memory that the allocator has not given back: in what a
# layer keeps. Measured on a CPU, with and without activation checkpointing.
_PASSING = 3
# Share of the rate of multiplications that a step reaches in them; its other operations, in numbers
# for each that is kept; seconds of a layer, and of a step, over next to no tokens. On a CPU they
# give the seconds of four runs (nano, two sizes of Llama, GPT-2) within 2; on a GPU, where kernels
# are fused, they are not yet measured.
_REACHED = 0.7
_OTHER = {"cpu": 25, "cuda": 8}
_LAYER_SECONDS = 2e-3
_STEP_SECONDS = 8e-3


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take; bytes and seconds.

    Attributes:
        weights: of the base, in memory already.
        copies: of them that training makes: in another dtype, or as they were before.
        trained: masters, gradients and optimizer states.
        activations: that the backward pass of the largest batch needs.
        logits: of its trained tokens.
        least: what would be added if no batch were larger than the longest row.
        trainable: how many numbers are trained.
        tokens: that go through the model, over all epochs.
        trained_tokens: those with a label.
        steps: of the optimizer.
        seconds: in steps.
    """

    weights: int
    copies: int
    trained: int
    activations: int
    logits: int
    least: int
    trainable: int
    tokens: int
    trained_tokens: int
    steps: int
    seconds: float

    @property
    def growth(self) -> int:
        """Bytes that training adds at its peak."""
        return self.copies + self.trained + self.activations + self.logits

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {**asdict(self), "growth": self.growth, "seconds": round(self.seconds, 1)}


@dataclass(frozen=True, slots=True)
class Load:
    """What goes through the model in one pass.

    Attributes:
        tokens: tokens, shared ones once.
        pairs: of a token and one that it attends to.
        trained: tokens with a label.
    """

    tokens: int
    pairs: int
    trained: int


def flattened(
    parts: Sequence[Sequence[EncodedRow]], plan: Sequence[PackedBatch]
) -> tuple[tuple[EncodedRow, ...], tuple[PackedBatch, ...]]:
    """Return an objective's rows one by one, and its plan with their positions."""
    rows: list[EncodedRow] = []
    places: list[range] = []
    for part in parts:
        places.append(range(len(rows), len(rows) + len(part)))
        rows += part
    batches = (
        PackedBatch(
            tuple(place for position in batch.rows for place in places[position]), batch.epoch
        )
        for batch in plan
    )
    return tuple(rows), tuple(batches)


def loads(
    rows: Sequence[EncodedRow], plan: Sequence[PackedBatch], shared: Sequence[Family] = ()
) -> list[Load]:
    """Return each batch's load.

    Args:
        rows: the plan's rows.
        plan: batches of them.
        shared: rows whose first tokens go through the model once a batch.
    """
    family_of = {row: family for family in shared for row in family.rows}
    trained = [row.trained_tokens for row in rows]
    found = []
    for batch in plan:
        tokens = pairs = 0
        seen: set[Family] = set()
        for row in batch.rows:
            length, family = rows[row].tokens, family_of.get(row)
            saved = family.prefix if family in seen and family is not None else 0
            if family is not None:
                seen.add(family)
            tokens += length - saved
            pairs += (length * (length + 1) - saved * (saved + 1)) // 2
        found.append(Load(tokens, pairs, sum(trained[row] for row in batch.rows)))
    return found


def estimate(
    loaded: LoadedModel,
    rows: Sequence[EncodedRow],
    plan: Sequence[PackedBatch],
    spec: TrainSpec,
    *,
    shared: Sequence[Family] = (),
    rates: Rates | None = None,
) -> Estimate:
    """Estimate what training by this plan takes; the model and all generators stay as they are.

    Args:
        loaded: the base, without modules of an adapter.
        rows: encoded rows.
        plan: their batches.
        spec: how they are trained.
        shared: as it was given to `plan_batches`.
        rates: of the device; measured for 0.2 s where None.

    Raises:
        UserError: a target, rank or number of layers that the base can't have.
    """
    shape = _Shape.of(loaded, spec)
    batches = loads(rows, plan, shared)
    largest = max(batches, key=lambda load: shape.activations(load) + shape.logits(load))
    longest = max(rows, key=lambda row: row.tokens)
    alone = Load(longest.tokens, 0, longest.trained_tokens)
    fixed = shape.copies + shape.trainable * _STATE
    if rates is None:
        rates = measured_rates(shape.hidden, shape.between, shape.dtype, loaded.device)
    return Estimate(
        weights=shape.weights,
        copies=shape.copies,
        trained=shape.trainable * _STATE,
        activations=shape.activations(largest),
        logits=shape.logits(largest),
        least=fixed + shape.activations(alone) + shape.logits(alone),
        trainable=shape.trainable,
        tokens=sum(load.tokens for load in batches),
        trained_tokens=sum(load.trained for load in batches),
        steps=math.ceil(len(batches) / spec.accumulation),
        seconds=sum(shape.seconds(load, rates) for load in batches),
    )


@dataclass(frozen=True)
class _Shape:
    """Sizes of a model and of what a method trains of it.

    Attributes:
        dtype: that it is computed in.
        hidden: width of a token's state.
        between: width within the feed-forward part, of all experts that see a token.
        queries: heads times their size.
        keys: the same of keys, and of values.
        vocabulary: width of the logits.
        layers: how many.
        kept: how many of them, the last, keep something for the backward pass.
        numbers: that a token is multiplied with, embeddings and head not counted.
        trainable: how many are trained.
        by_lora: numbers that LoRA keeps of a token, over all layers.
        weights: bytes of the base.
        copies: bytes of their copies.
        device: type of the device that it is on.
        spec: how it is trained.
    """

    dtype: torch.dtype
    hidden: int
    between: int
    queries: int
    keys: int
    vocabulary: int
    layers: int
    kept: int
    numbers: int
    trainable: int
    by_lora: int
    weights: int
    copies: int
    device: str
    spec: TrainSpec

    @classmethod
    def of(cls, loaded: LoadedModel, spec: TrainSpec) -> _Shape:
        model, config = loaded.model, text_config(loaded.model)
        hidden = figure(config, "hidden_size") or 1
        heads = figure(config, "num_attention_heads") or 1
        size = figure(config, "head_dim") or hidden // heads
        experts = figure(config, "num_experts_per_tok") or 1
        between = figure(config, "moe_intermediate_size", "intermediate_size") or 4 * hidden
        dtype = DTYPES[spec.dtype] if spec.dtype else loaded.dtype
        layers = figure(config, "num_hidden_layers") or len(decoder_layers(model)[1])
        trainable, by_lora = _trained(loaded, spec)
        return cls(
            dtype=dtype,
            hidden=hidden,
            between=between * experts,
            queries=heads * size,
            keys=(figure(config, "num_key_value_heads") or heads) * size,
            vocabulary=int(model.get_input_embeddings().weight.shape[0]),
            layers=layers,
            kept=spec.layers if spec.method == "freeze" else layers,
            numbers=_numbers(model, config),
            trainable=trainable,
            by_lora=by_lora,
            weights=sum(p.numel() * p.element_size() for p in model.parameters()),
            copies=_copies(loaded, spec, dtype, trainable),
            device=loaded.device.type,
            spec=spec,
        )

    @property
    def _layer(self) -> int:
        """Bytes that a layer keeps of a token for the backward pass."""
        size = self.dtype.itemsize if self.spec.is_lora else _FP32  # autocast keeps both
        return (
            2 * self.hidden * (_FP32 + size)  # both norms, computed in fp32, and their results
            + 2 * (self.queries + self.keys) * _FP32  # queries, keys, values, attended, in fp32
            + self.queries * size
            + 4 * self.between * size  # gate, its activation, up, and their product
            + self.by_lora * size // self.layers
        )

    def activations(self, load: Load) -> int:
        """Bytes that the backward pass of a load needs, its own passing ones among them."""
        if self.spec.activation_checkpointing:
            kept = self.kept * self.hidden * self.dtype.itemsize + self._layer
        else:
            kept = self.kept * self._layer
        return load.tokens * (kept + _PASSING * self._layer)

    def seconds(self, load: Load, rates: Rates) -> float:
        """Forward and backward pass of a load."""
        again = 1.5 if self.spec.activation_checkpointing else 1.0
        kept = load.tokens * self.layers * self._layer / self.dtype.itemsize
        return (
            self.operations(load) / (_REACHED * rates.operations)
            + again * _OTHER[self.device] * kept / rates.numbers
            + again * _LAYER_SECONDS * self.layers
            + _STEP_SECONDS
        )

    def logits(self, load: Load) -> int:
        """Bytes of a load's logits and what is computed from them, in fp32."""
        return load.trained * self.vocabulary * _FP32 * _LOGITS

    def operations(self, load: Load) -> float:
        """Floating-point operations of a load's forward and backward pass."""
        if self.spec.is_lora:
            token, head = 4.0 * self.numbers + 6.0 * self.trainable, 4.0
        elif self.spec.method == "freeze":
            token, head = 2.0 * self.numbers + 4.0 * self.trainable, 4.0
        else:
            token, head = 6.0 * self.numbers, 6.0
        if self.spec.activation_checkpointing:
            token += 2.0 * self.numbers
        attention = 4.0 * (self.layers + 2 * self.kept) * self.queries * load.pairs
        return load.tokens * token + attention + load.trained * head * self.hidden * self.vocabulary


def _trained(loaded: LoadedModel, spec: TrainSpec) -> tuple[int, int]:
    """Return how many numbers are trained, and what LoRA keeps of a token."""
    if not spec.is_lora:
        return sum(p.numel() for p in chosen_weights(loaded.model, spec).values()), 0
    sides = list(lora_targets(loaded.model, spec).sides())
    trained = sum(spec.rank * (i + o) * copies for _, i, o, copies in sides)
    kept = spec.rank * len(sides)
    if spec.method == "dora":
        # A magnitude for each output; PEFT's forward keeps both products and their sum.
        trained += sum(o for _, _, o, _ in sides)
        kept += 3 * sum(o for _, _, o, _ in sides)
    rows = sum(len(ids) for ids in new_rows(loaded).values())
    width = loaded.model.get_input_embeddings().weight.shape[1]
    return trained + rows * width, kept


def _copies(loaded: LoadedModel, spec: TrainSpec, dtype: torch.dtype, trainable: int) -> int:
    copies = 0
    floats = [p for p in loaded.model.parameters() if p.is_floating_point()]
    if dtype != loaded.dtype:
        copies += sum(p.numel() for p in floats) * dtype.itemsize
    if not spec.is_lora and dtype != torch.float32:
        copies += trainable * dtype.itemsize  # autocast's, for one pass
    if spec.method == "pissa":
        layers = lora_targets(loaded.model, spec).layers.values()
        copies += sum(layer.weight.numel() for layer in layers) * dtype.itemsize
    return copies


def _numbers(model: Any, config: Any) -> int:
    """Weights that a token meets in the layers; of experts, those that it is sent to."""
    experts = figure(config, "num_experts", "num_local_experts", "n_routed_experts")
    share = (figure(config, "num_experts_per_tok") or 1) / experts if experts else 1.0
    name, _layers = decoder_layers(model)
    found = 0.0
    for one, weight in model.named_parameters():
        if one.startswith(f"{name}.") and weight.dim() > 1:
            packed = getattr(weight, "quant_state", None)  # bitsandbytes: two numbers in a byte
            count = math.prod(packed.shape) if packed is not None else weight.numel()
            found += count * (share if ".experts." in one else 1.0)
    return int(found)
