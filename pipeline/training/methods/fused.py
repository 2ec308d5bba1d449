"""Frozen RMSNorms and gated SiLUs of a model, each computed in a few passes over memory.

Their weights get no gradient, so the backward pass is short. A module is replaced only if on random
input it gives what it gave, values and gradients; whatever it is called, and undone afterwards.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import silu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SAME = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
_TRIED = 3  # random inputs' tokens


class _RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in fp32, for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        grad, wide = (grads[0] * weight).float(), x.float()
        along = torch.linalg.vecdot(grad, wide).unsqueeze_(-1)
        along = along.mul_(scale**3).div_(-x.shape[-1])
        return grad.mul_(scale).addcmul_(wide, along).to(x.dtype), None, None


class _SiluTimes(torch.autograd.Function):
    """silu(a) * b."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
        ctx.save_for_backward(a, b)
        return silu(a).mul_(b)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = torch.ops.aten.silu_backward(grads[0] * b, a)
        return grad_a, silu(a).mul_(grads[0])


_rms_norm: Any = _RmsNorm.apply  # they have no types
_silu_times: Any = _SiluTimes.apply


@contextmanager
def fused_modules(model: nn.Module, dtype: torch.dtype) -> Iterator[int]:
    """Replace the forwards of such modules for a while; yields how many.

    Args:
        model: frozen; modules of it may have been wrapped.
        dtype: that it is computed in, in which each replacement is tried.
    """
    replaced: list[Any] = []
    for module in model.modules():
        forward = _norm(module) or _gated(module)
        if forward is not None and "forward" not in vars(module) and _same(module, forward, dtype):
            replaced.append(module)
            replaced[-1].forward = forward  # of this instance alone
    try:
        yield len(replaced)
    finally:
        for module in replaced:
            vars(module).pop("forward", None)


def _norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or weight is None or eps is None:
        return None
    if weight.requires_grad:
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = _rms_norm(x, module.weight, float(eps))
        return normed

    return forward


def _gated(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if not all(hasattr(module, f"{name}_proj") for name in ("gate", "up", "down")):
        return None
    if (
        not isinstance(getattr(module, "act_fn", None), nn.SiLU)
        and "SiLU" not in type(getattr(module, "act_fn", None)).__name__
    ):
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        gated = _silu_times(module.gate_proj(x), module.up_proj(x))
        out: torch.Tensor = module.down_proj(gated)
        return out

    return forward


def _same(
    module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> bool:
    """Whether a replacement gives the module's values and gradients, on random input."""
    width = next(iter(module.parameters())).shape[-1]
    device = next(iter(module.parameters())).device
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(_TRIED, width, generator=draw).to(device, dtype)
    upstream = torch.randn(_TRIED, width, generator=draw).to(device)
    found = []
    with torch.enable_grad():
        for way in (module.forward, forward):
            x = given.clone().requires_grad_(True)  # noqa: FBT003
            try:
                out = way(x)
            except (RuntimeError, TypeError):
                return False
            (grad,) = torch.autograd.grad((out.float() * upstream).sum(), x)
            found.append((out.detach().float(), grad.float()))
    return all(
        bool((one - other).abs().max() <= _SAME[dtype] * one.abs().max())
        for one, other in zip(*found, strict=True)
    )
