"""KL divergence of a changed model from the one before, KL(before || after), along its own answers.

A score says whether answers still count as right; the divergence says how far the model has moved
on these prompts, long before an answer turns. It is taken of the next token's distribution, in
nats, at each token of what was answered before, and averaged over items.

Import this module late: it loads lm_eval and torch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from evals.engine.tree import batches
from evals.scoring.score import render
from registry.chat.form import answer_form

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch

    from evals.engine.packed import PackedLM
    from evals.scoring.plan import Answerer
    from evals.scoring.results import Sample
    from evals.tasks.prompts import Question
    from registry.chat.form import AnswerForm

MOST_ITEMS = 100
"""Items that the divergence is measured on, at most: it settles long before a score does."""

ANSWER_TOKENS = 32
"""How far along an answer it is measured, in tokens."""

_TOKENS = 2048  # padded tokens a batch
_LOGITS = 2**24  # of either model held at once, in numbers


def divergence(
    engine: PackedLM,
    questions: Sequence[Question],
    samples: Mapping[int, Sample],
    before: Answerer,
    after: Answerer,
    advance: Callable[[int], None] = lambda _: None,
) -> float | None:
    """Return the mean KL(before || after) over the questions, in nats; None without any.

    Args:
        engine: over the base that both answer with.
        questions: what to measure on; those without a sample are left out.
        samples: uid -> what `before` answered.
        before: the base, or an adapter on it; its own answers are followed.
        after: the other.
        advance: told how many questions were measured since the last call.
    """
    form = answer_form(engine.chat)
    asked = [(one, samples[one.item.uid]) for one in questions if one.item.uid in samples]
    pairs = [_tokens(engine, question, sample, form) for question, sample in asked]
    pairs = [pair for pair in pairs if pair[1] and sum(map(len, pair)) <= engine.max_length]
    if not pairs:
        return None
    vocabulary = int(engine.loaded.model.get_input_embeddings().weight.shape[0])
    lengths = [len(context) + len(answer) for context, answer in pairs]
    weights = [len(answer) * vocabulary for _, answer in pairs]
    total = 0.0
    for batch in batches(lengths, weights, tokens=_TOKENS, weight=_LOGITS):
        chosen = [pairs[place] for place in batch]
        first, second = (_logits(engine, chosen, answerer) for answerer in (before, after))
        total += _sum_of_means(first, second, [len(answer) for _, answer in chosen])
        advance(len(batch))
    return total / len(pairs)


def _tokens(
    engine: PackedLM, question: Question, sample: Sample, form: AnswerForm
) -> tuple[list[int], list[int]]:
    """Return the ids of the context and of the answer that `before` gave."""
    if question.item.text is not None:
        return [engine.prefix_token_id], engine.tok_encode(question.item.text)[:ANSWER_TOKENS]
    context = render(engine.chat, question) if question.messages else sample.prompt
    answer = sample.answer or sample.expected
    ids, continued = engine.encode_pair(context, f"{form.before}{answer}{form.end}")
    return ids or [engine.prefix_token_id], continued[:ANSWER_TOKENS]


def _logits(
    engine: PackedLM, pairs: Sequence[tuple[list[int], list[int]]], answerer: Answerer
) -> torch.Tensor:
    plain: AbstractContextManager[Any] = nullcontext()
    if answerer.adapter_path is None:
        plain = engine.loaded.base_alone()
    else:
        engine.loaded.use(answerer.adapter_path, answerer.scale)
    with plain:
        return engine.answer_logits(pairs)


def _sum_of_means(first: torch.Tensor, second: torch.Tensor, sizes: Sequence[int]) -> float:
    """Sum over answers of the mean KL of their tokens."""
    logs, others = first.log_softmax(-1), second.log_softmax(-1)
    each = (logs.exp() * (logs - others)).sum(-1).double().clamp(min=0)
    return float(sum(part.mean() for part in each.split(list(sizes))))
