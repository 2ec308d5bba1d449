"""The training of nano: a plain loop over batches of about equal token counts.

Documents of similar length share a batch, so that hardly anything is padding and no document sees
another. The loss is on answers and their end-of-turn token (on everything in plain text).
Matrices are updated by Muon, which needs fewer tokens than AdamW here; embeddings and norms by
AdamW. The budget is a number of steps and not a time, so a seed gives the same run again.
"""

from __future__ import annotations

import copy
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from registry.nano.recipe.corpus import CorpusDocument, documents, short_documents
from registry.nano.recipe.tokenizer import ASSISTANT, CONTEXT, END, VOCABULARY, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_POOL = 8_000
"""Documents drawn at a time and sorted by length."""
WORKERS = 2
"""Threads, each with a batch of its own: on two cores quicker than two threads on one batch."""
WIDTHS = (32, 48, 64, 80, 96, 128, 192, 256, 320, 384, 512, 768, 1024, 1536, CONTEXT)
"""Widths of a batch: few, since the CPU kernels are compiled anew for every new shape."""


@dataclass(frozen=True, slots=True)
class TrainingBudget:
    """The budget and the step sizes of a training run."""

    steps: int = 2_500
    tokens: int = 2_048
    """Tokens in a batch, padding included; a step takes WORKERS batches."""
    first_steps: int = 1_000
    """Of the steps, those at the start with single questions and `first_tokens` a batch."""
    first_tokens: int = 1_024
    matrix_rate: float = 0.01
    vector_rate: float = 3e-3
    warmup: int = 50
    decay: float = 0.35
    """The share of the steps over which the rate falls to zero."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: loss is the mean over answers since the last report."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CorpusBatch:
    """Token ids (B, T) and, for each, whether it is predicted (B, T)."""

    ids: torch.Tensor
    learnt: torch.Tensor


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return an untrained nano, 2.6 M parameters, in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(
    tokenizer: PreTrainedTokenizerFast, stream: Iterator[CorpusDocument], seed: int, tokens: int
) -> Iterator[CorpusBatch]:
    """Yield batches of about `tokens` tokens without end, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        pool = list(islice(stream, _POOL))
        encoded = tokenizer([render(d) for d in pool], add_special_tokens=False)["input_ids"]
        groups = _groups([len(ids) for ids in encoded], tokens)
        rng.shuffle(groups)
        for group in groups:
            yield _batch(tokenizer, [pool[i] for i in group], [encoded[i] for i in group])


def _groups(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Sort documents into full batches of one width; those left over are not used."""
    by_width: dict[int, list[int]] = {width: [] for width in WIDTHS}
    for position, length in enumerate(lengths):
        by_width[next((w for w in WIDTHS if length <= w), WIDTHS[-1])].append(position)
    groups = []
    for width, members in by_width.items():
        rows = max(1, tokens // width)
        groups += [members[i : i + rows] for i in range(0, len(members) - rows + 1, rows)]
    return groups


def _batch(
    tokenizer: PreTrainedTokenizerFast,
    group: Sequence[CorpusDocument],
    encoded: Sequence[list[int]],
) -> CorpusBatch:
    import torch

    longest = max(len(ids) for ids in encoded)
    width = next((w for w in WIDTHS if longest <= w), WIDTHS[-1])
    ids = torch.full((len(group), width), tokenizer.pad_token_id)
    learnt = torch.zeros((len(group), width), dtype=torch.bool)
    for row, (document, tokens) in enumerate(zip(group, encoded, strict=True)):
        kept = torch.tensor(tokens[:width])
        ids[row, : len(kept)] = kept
        learnt[row, : len(kept)] = True if document.text else answers(tokenizer, kept)
    return CorpusBatch(ids, learnt)


def answers(tokenizer: PreTrainedTokenizerFast, ids: torch.Tensor) -> torch.Tensor:
    """Return which of the tokens (T) are an answer's, its end-of-turn included."""
    opened = (ids == tokenizer.convert_tokens_to_ids(ASSISTANT)).long().cumsum(0)
    ended = (ids == tokenizer.convert_tokens_to_ids(END)).long()
    # Ends come in pairs, question's and answer's: an answer is on while they are uneven.
    before = ended.cumsum(0) - ended
    starts = ids == tokenizer.convert_tokens_to_ids(ASSISTANT)
    return (opened > 0) & (before % 2 == 1) & ~starts


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    plan: TrainingBudget,
    seed: int,
    report: Callable[[Progress], None],
    every: int = 50,
) -> Progress:
    """Train in place for `plan.steps` steps; call `report` every `every` steps."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    vectors = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = (
        torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(vectors, lr=plan.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, plan))
        for optimizer in optimizers
    ]
    began, losses, seen = time.monotonic(), [], 0
    model.train()
    stream = chain(
        islice(
            batches(tokenizer, short_documents(seed), seed, plan.first_tokens),
            plan.first_steps * WORKERS,
        ),
        batches(tokenizer, documents(seed), seed, plan.tokens),
    )
    with Replicas(model, WORKERS) as replicas:
        for step in range(1, plan.steps + 1):
            taken = list(islice(stream, WORKERS))
            losses.append(replicas.backward(taken))
            torch.nn.utils.clip_grad_norm_(vectors, 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            seen += sum(batch.ids.numel() for batch in taken)
            if step % every == 0 or step == plan.steps:
                mean = sum(losses) / len(losses)
                progress = Progress(step, plan.steps, mean, seen, time.monotonic() - began)
                report(progress)
                losses.clear()
    model.eval()
    return progress


class Replicas:
    """Copies of a model that share its weights, one a thread, each with its own gradients."""

    def __init__(self, model: LlamaForCausalLM, count: int) -> None:
        """Make `count` - 1 copies beside the model itself."""
        import torch

        self._models = [model, *(copy.deepcopy(model) for _ in range(count - 1))]
        for other in self._models[1:]:
            for own, shared in zip(other.parameters(), model.parameters(), strict=True):
                own.data = shared.data
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads."""
        self._pool.shutdown()

    def backward(self, taken: Sequence[CorpusBatch]) -> float:
        """Add the gradient of the mean loss of the batches to the model's; return the loss."""

        def work(model: LlamaForCausalLM, batch: CorpusBatch) -> float:
            loss = answer_loss(model, batch) / len(taken)
            loss.backward()
            return loss.item()

        losses = list(self._pool.map(work, self._models, taken))
        for other in self._models[1:]:
            for own, shared in zip(other.parameters(), self._models[0].parameters(), strict=True):
                if own.grad is not None and shared.grad is not None:
                    shared.grad += own.grad
                own.grad = None
        return sum(losses)


def answer_loss(model: LlamaForCausalLM, batch: CorpusBatch) -> torch.Tensor:
    """Return the mean cross-entropy of the learnt tokens; logits are computed for no others."""
    import torch

    ignored = -100
    chosen = batch.learnt[:, 1:].reshape(-1).nonzero().squeeze(1)
    # A round number of rows: the CPU kernels are compiled anew for every new shape.
    spare = -len(chosen) % 256
    targets = torch.nn.functional.pad(
        batch.ids[:, 1:].reshape(-1)[chosen], (0, spare), value=ignored
    )
    chosen = torch.nn.functional.pad(chosen, (0, spare))
    with torch.autocast("cpu", torch.bfloat16):
        # Padding is on the right and never learnt, so the causal mask alone is right.
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1].reshape(-1, hidden.shape[-1])[chosen])
    return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=ignored)


def rate(step: int, plan: TrainingBudget) -> float:
    """Return the factor on the learning rate: warm-up, a plateau, and a fall by half a cosine."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    flat = plan.steps * (1 - plan.decay)
    if step < flat:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - flat) / (plan.steps - flat)))
