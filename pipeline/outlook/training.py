"""The train base without its weights: what scoring with it and training it will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.spec import pool
from pipeline.spec.subjects import subjects
from registry.errors import UserError
from registry.store.kinds import EvalMeta, RunMeta

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.outlook.findings import Outlook
    from pipeline.training.examples.packing import PackedBatch
    from pipeline.training.machine.rates import Rates
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.load import LoadedModel

MEASURED = 0.2
"""Seconds that a machine's rates are measured for."""

_SAMPLE = 48  # rows of a dataset that are encoded
# Share of the rate of multiplications that scoring reaches, answers written among it, and plain
# passes do; measured on a CPU with nano and SmolLM2.
_REACHED, _REACHED_PLAIN = 0.55, 0.8
_BATCH = 512  # tokens of a batch of questions, on a CPU
_ENOUGH = 1.0  # seconds of reading that say a rate
_LAYER_SECONDS = 2e-3  # of a layer, over next to no tokens
# LoRA's thin products beside the base's reach little of that rate: measured on a CPU at rank 16,
# they add 60% to scoring with nano and 10% to SmolLM2.
_REACHED_THIN = 0.06


@dataclass(frozen=True)
class LearntRates:
    """Tokens in a second, in the newest run of this base here; None where there is none."""

    scored: float | None
    trained: float | None


@dataclass(frozen=True)
class TrainingCost:
    """What a training is expected to take; bytes, tokens and seconds.

    Attributes:
        tokens: that are trained on.
        seconds: about.
        memory: at its peak.
        adapter: its size.
        lora: how many numbers of it are multiplied with beside the base's; 0 of other methods.
        row: a row's tokens.
        again: tokens that the base reads beside, to be kept to.
    """

    tokens: int
    seconds: float
    memory: int
    adapter: int
    row: float
    again: int = 0
    lora: int = 0


@dataclass(frozen=True)
class BaseOutline:
    """A base's shape.

    Attributes:
        loaded: the base, its weights on no device.
        weights: bytes of them, as it is loaded.
        layers: how many.
        rates: of the machine, for its sizes.
    """

    loaded: LoadedModel
    weights: int
    layers: int
    rates: Rates

    @classmethod
    def of(cls, ws: OpenWorkspace) -> BaseOutline:
        """Make it from the train base's config and tokenizer; the machine is measured for 0.2 s.

        Raises:
            UserError: they can't be read.
        """
        import torch

        from pipeline.training.machine.rates import measured_rates
        from registry.models.load import TORCH_DTYPES, LoadedModel, load_config
        from registry.models.parts import decoder_layers, figure, text_config

        base = ws.spec.train.base
        identity = ws.models.identity(base)
        dtype: Any = getattr(torch, TORCH_DTYPES[identity.dtype])
        model = _without_weights(load_config(base, ws.spec.bases[base], ws.root), dtype)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = ws.models.chat(base).tokenizer
        loaded = LoadedModel(model, tokenizer, identity, device, dtype, identity.context)
        config = text_config(model)
        hidden = figure(config, "hidden_size") or 1
        between = figure(config, "intermediate_size") or 4 * hidden
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        layers = figure(config, "num_hidden_layers") or len(decoder_layers(model)[1])
        return cls(loaded, weights, layers, measured_rates(hidden, between, dtype, device))

    def scoring_seconds(
        self, tokens: float, learnt: LearntRates, lora: float = 0.0, plain: float = 0.0
    ) -> float:
        """Return how long so many tokens take to go through it once.

        Args:
            tokens: through the base.
            learnt: the rate of earlier runs is taken where there is one.
            lora: numbers of a LoRA that is on, times the tokens that go through it.
            plain: tokens of them that nothing is written behind, in batches of their own.
        """
        tokens -= plain * (1 - _REACHED / _REACHED_PLAIN)
        beside = 2.0 * lora / (_REACHED_THIN * self.rates.operations)
        if learnt.scored:
            return tokens / learnt.scored + beside
        operations = 2.0 * self.loaded.identity.parameters * tokens
        passes = tokens / _BATCH * self.layers * _LAYER_SECONDS
        return operations / (_REACHED * self.rates.operations) + passes + beside

    def learnt(self, ws: OpenWorkspace) -> LearntRates:
        """Return the rates of the newest runs with this base in the workspace."""

        def runs(stage: str) -> Iterator[RunMeta]:
            for run in reversed(ws.catalog.committed(RunMeta, stage=stage, status="done")):
                if run.meta.inputs.get("base") == self.loaded.identity.digest:
                    yield run.meta

        scored = next(filter(None, (_scored(ws, run) for run in runs("gap"))), None)
        return LearntRates(
            scored, next((run.result["tokens_per_second"] for run in runs("train")), None)
        )

    def training(
        self, ws: OpenWorkspace, seen: Outlook, rows: int, learnt: LearntRates
    ) -> TrainingCost:
        """Return what training on so many rows of the pool takes.

        Raises:
            UserError: none of the rows that were sampled can be trained on.
        """
        from pipeline.training.losses.objective import encode
        from pipeline.training.preview.estimate import estimate, flattened

        spec = ws.spec.train
        sample = list(_rows(ws, seen))
        if not sample:
            return TrainingCost(0, 0.0, self.weights, 0, 0.0)
        encoded = encode(self.loaded, sample, spec, allow_rejects=1.0).objective
        lengths = [encoded.tokens(position) for position in range(len(encoded.parts))]
        packed = _batches(lengths, spec.batch_tokens, spec.batch_rows)
        flat, batches = flattened(encoded.parts, packed)
        found = estimate(self.loaded, flat, batches, spec, rates=self.rates)
        share = rows * spec.epochs / len(lengths)
        tokens = round(found.tokens * share)
        seconds = tokens / learnt.trained if learnt.trained else found.seconds * share
        memory = self.weights + found.growth
        return TrainingCost(
            *(tokens, seconds, memory, 4 * found.trainable, found.tokens / len(lengths)),
            lora=found.trainable if spec.is_lora else 0,
        )


def _without_weights(config: Any, dtype: Any) -> Any:
    import torch

    from registry.models.classes import causal_class

    with torch.device("meta"):
        model = causal_class(config).from_config(config, dtype=dtype)
    model.requires_grad_(requires_grad=False)
    return model.eval()


def _rows(ws: OpenWorkspace, seen: Outlook) -> Iterator[Any]:
    """Yield some rows of each dataset of the pool, as they would be trained on."""
    from pipeline.outlook.prompts import labels_in
    from pipeline.selection.selection import is_trainable, render

    of = {what.spec.data: what for what in subjects(ws.spec) if what.role == "capability"}
    for name in pool.pool_of(ws.spec):
        what = of.get(name)
        labels = labels_in(what, seen.surveys[name]) if what else ()
        for row in seen.surveys[name].some.get("train", ())[:_SAMPLE]:
            if not is_trainable(row, ws.spec.train.objective):
                continue
            try:
                yield render(ws, row, what.name if what else name, labels=labels)
            except UserError:  # check counts those that can't be asked
                continue


def _batches(lengths: Sequence[Any], most: int, rows: int) -> list[PackedBatch]:
    """Return rows put together, in their order, up to so many tokens and rows."""
    from pipeline.training.examples.packing import PackedBatch

    made: list[list[int]] = [[]]
    filled = 0
    for position, length in enumerate(lengths):
        if made[-1] and (filled + length > most or len(made[-1]) == rows):
            made.append([])
            filled = 0
        made[-1].append(position)
        filled += length
    return [PackedBatch(tuple(rows), 0) for rows in made]


def _scored(ws: OpenWorkspace, run: RunMeta) -> float | None:
    """Return the tokens a second of what a gap run read itself; None where that was next to none.

    What it found, of earlier runs or in the journal of one that was killed, took it no time.
    """
    gap = next((one.id for one in run.outputs if one.role == "gap"), None)
    if gap is None:
        return None
    parents = ws.catalog.manifest(gap).parents
    evals = [ws.catalog.manifest(one.id, EvalMeta).meta for one in parents if one.role == "eval"]
    read = [one for one in evals if one.read_tokens and one.created_at >= run.started_at]
    seconds = sum(one.read_seconds or 0.0 for one in read)
    return sum(one.read_tokens or 0 for one in read) / seconds if seconds >= _ENOUGH else None
