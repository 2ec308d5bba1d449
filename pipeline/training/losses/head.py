"""The LM head and the loss in one: no tensor of all logits is ever kept.

For a head that is not trained, the gradient of a token's loss on its hidden state is known as soon
as its logits are. It is taken then, some tokens at a time, and the logits are dropped.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from pipeline.training.examples.layout import make_layout
from pipeline.training.examples.rounding import round_trained
from pipeline.training.losses.attention import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TARGETS = "gapmend_targets"
_KEPT = "gapmend_kept"
_BARE = "gapmend_bare"
_FUSED = "gapmend_fused"  # on the head itself: LoRA on it is another module around it
_ON_CPU = 256  # tokens at a time: their logits stay near the caches
_ON_GPU = 1 << 27  # logits at a time
_PROBED = 9
_SAME = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Kept:
    """What the base says where it is to be kept.

    Attributes:
        strength: of its KL divergence to what is trained, beside the loss.
        slots: int64 [N], which of `said` is of each trained token; -1 where none is.
        said: the base's hidden states before its head [M, d], or its logits [M, V].
    """

    strength: float
    slots: torch.Tensor
    said: torch.Tensor


class _HeadLoss(torch.autograd.Function):
    """-log softmax(h W')[target] of each token; h [N, d], W [V, d], targets [N]; fp32 [N].

    And for what is kept the divergence from the base's distribution, softmax(h0 W'). W gets no
    gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        kept: Kept | None,
    ) -> Any:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        size = _ON_CPU if hidden.device.type == "cpu" else max(1, _ON_GPU // len(weight))
        for begin in range(0, len(hidden), size):
            cut = slice(begin, begin + size)
            places = targets[cut, None]
            part = round_trained(hidden[cut], size)
            count = len(hidden[cut])
            logits = linear(part, weight)[:count].float()
            top = logits.amax(1, keepdim=True)
            right = logits.gather(1, places)
            extra = None if kept is None else _divergence(kept, cut, logits, weight, size)
            shares = logits.sub_(top).exp_()
            total = shares.sum(1, keepdim=True)
            losses[cut] = (total.log() + top - right).squeeze(1)
            if extra is not None:
                losses[begin + extra[0]] += extra[1]
            if gradient is not None:
                shares.div_(total).scatter_add_(1, places, torch.full_like(right, -1.0))
                if extra is not None:
                    shares[extra[0]] += extra[2]
                shares = round_trained(shares.to(hidden.dtype), size)
                gradient[cut] = (shares @ weight)[:count]
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None].to(gradient.dtype), None, None, None


def divergence(trained: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return KL(base || trained) of each token, given both log-probabilities [M, V]."""
    return (base.exp() * (base - trained)).sum(1)


def _divergence(
    kept: Kept, cut: slice, logits: torch.Tensor, weight: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which tokens of a cut are kept, what that costs, and its gradient on their logits."""
    slots = kept.slots[cut]
    mine = (slots >= 0).nonzero().squeeze(1)
    said = round_trained(kept.said[slots[mine]], size)
    base = linear(said, weight)[: len(mine)].float().log_softmax(1)
    trained = logits[mine].log_softmax(1)
    away = trained.exp() - base.exp()
    return mine, kept.strength * divergence(trained, base), kept.strength * away


_head_loss: Any = _HeadLoss.apply  # it has no types


@contextmanager
def fused_head(model: Any) -> Iterator[None]:
    """Let a model's head give losses where `head_losses` asks for them; undone afterwards.

    Nothing is done where the head is no plain linear layer, or the model does more with its logits
    than hand them on (a soft cap, a scale), which is tried.
    """
    head: Any = model.get_output_embeddings()
    if not _is_plain(head):
        yield
        return

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        if getattr(head, _BARE, False):
            return hidden
        targets = getattr(head, _TARGETS, None)
        # Read at each call: sharded weights are whole during a pass alone, trained ones need grads.
        if targets is None or head.weight.requires_grad:
            return linear(hidden, head.weight)
        kept = getattr(head, _KEPT, None)
        losses: torch.Tensor = _head_loss(hidden.flatten(0, -2), head.weight, targets, kept)
        return losses.view(hidden.shape[:-1])

    head.forward = forward
    setattr(head, _FUSED, True)
    try:
        if not _hands_logits_on(model):
            _undo(head)
        yield
    finally:
        _undo(head)


def _undo(head: Any) -> None:
    vars(head).pop("forward", None)
    vars(head).pop(_FUSED, None)


def _is_plain(head: Any) -> bool:
    return type(head) is nn.Linear and head.bias is None


def _hands_logits_on(model: Any) -> bool:
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(5, 5 + _PROBED, device=model.device).remainder(vocabulary)[None]
    targets = ids.flip(1)[0]
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": None, "use_cache": False}
    if model.config._attn_implementation == NAME:  # noqa: SLF001  there is no public reader
        given["packed_layout"] = make_layout([_PROBED], ids.device)
    with torch.no_grad():
        logits = model(**given).logits[0].float()
        with head_losses(model, targets) as asked:
            found = model(**given).logits[0]
    expected = cross_entropy(logits, targets, reduction="none")
    fits = asked and found.shape == expected.shape
    same = _SAME.get(model.dtype, 0.0)
    return bool(fits and float((found - expected).abs().max()) <= same * float(expected.max()))


@contextmanager
def head_losses(model: Any, targets: torch.Tensor, kept: Kept | None = None) -> Iterator[bool]:
    """Within it the model's `logits` are the losses of `targets`, if what is yielded is true.

    Args:
        model: called for the logits of as many places as there are targets.
        targets: int64 [N].
        kept: what the base says at some of them, as `bare_head` has it.
    """
    with _told(model, {_TARGETS: targets, _KEPT: kept}) as is_fused:
        yield is_fused


@contextmanager
def bare_head(model: Any) -> Iterator[bool]:
    """Within it the model's `logits` are the states before its head, if what is yielded is true."""
    with _told(model, {_BARE: True}) as is_fused:
        yield is_fused


@contextmanager
def _told(model: Any, what: Mapping[str, Any]) -> Iterator[bool]:
    head = _own(model).get_output_embeddings()
    if _FUSED not in vars(head) or head.weight.requires_grad:
        yield False
        return
    for name, value in what.items():
        setattr(head, name, value)
    try:
        yield True
    finally:
        for name in what:
            delattr(head, name)


def _own(model: Any) -> Any:
    """Return transformers' model inside what wraps it."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
