"""The arithmetic of merging: pure functions over float64 tensors, each by its published formula.

A delta is what an adapter adds to one parameter, W' - W. Everything random is drawn on the CPU by
a seed, so that the same call gives the same tensor on any device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

_PARALLEL = 1e-8  # below this sine of their angle two weights are on one line: slerp is lerp
_NO_RANK = 1e-12  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class Factors:
    """A delta as B A.

    Attributes:
        a: [rank, in].
        b: [out, rank], with weight and scaling in it.
        error: what a cut lost, |delta - B A| / |delta| (Frobenius).
        size: |delta|.
    """

    a: Tensor
    b: Tensor
    error: float
    size: float


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sum_i w_i delta_i: task arithmetic (arXiv:2212.04089)."""
    import torch

    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total += weight * delta
    return total


def trim(delta: Tensor, density: float) -> Tensor:
    """Return `delta` with only its `density` share of entries of largest magnitude.

    floor(density * n) entries stay; of equal ones the first in order, so that it is the same
    everywhere.
    """
    import torch

    count = int(density * delta.numel())
    if count >= delta.numel():
        return delta.clone()
    flat = delta.flatten()
    size = flat.abs()
    border = size.kthvalue(size.numel() - count).values  # the largest that may have to go
    kept = size > border
    ties = size == border
    kept |= ties & (ties.cumsum(0) <= count - kept.sum())
    return torch.where(kept, flat, 0.0).reshape(delta.shape)


def elect(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sign that the weighted deltas agree on, entry by entry, and the mean of those.

    TIES-Merging (arXiv:2306.01708), algorithm 1, steps 2 and 3, on v_i = w_i delta_i:
    gamma = sgn(sum_i v_i), and the mean of the v_i whose sign is gamma. With the same weight for
    all it is lambda times the paper's tau_m. A weight of 0 has no vote and no share.
    """
    import torch

    voting = [w * d for d, w in zip(deltas, weights, strict=True) if w]
    stacked = torch.stack(voting)
    sign = stacked.sum(0).sign()
    agreeing = (stacked.sign() == sign) & (sign != 0)
    return (stacked * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


def ties(deltas: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """Return the deltas trimmed, their signs elected, and those that agree averaged.

    TIES-Merging (arXiv:2306.01708), algorithm 1; see `trim` and `elect`.
    """
    return elect([trim(delta, density) for delta in deltas], weights)


def drop(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Return `delta` with entries dropped at random and the others scaled up.

    DARE (arXiv:2311.03099), equation 2 with p = 1 - density: m ~ Bernoulli(p) and
    (1 - m) * delta / (1 - p), whose expectation is `delta`.
    """
    import torch

    drawn = torch.rand(delta.shape, generator=generator, dtype=torch.float64)
    return torch.where(drawn.to(delta.device) < density, delta / density, 0.0)


def dropped(deltas: Sequence[Tensor], density: float, seed: int, name: str) -> list[Tensor]:
    """Return each delta after `drop`, drawn by the seed, its place and the parameter's name."""
    import torch

    found = []
    for place, delta in enumerate(deltas):
        key = hashlib.sha256(f"{seed}/{place}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
        found.append(drop(delta, density, generator))
    return found


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return the weight on the arc from `first` (share 0) to `second` (share 1).

    Shoemake 1985 with theta the angle between the two as flat vectors:
    sin((1 - t) theta) / sin(theta) first + sin(t theta) / sin(theta) second. On one line, or where
    one is 0, the straight way.
    """
    import torch

    one, two = first.flatten(), second.flatten()
    norms = one.norm() * two.norm()
    if float(norms) == 0:
        return (1 - share) * first + share * second
    # By atan2, as arccos loses half the digits of a small angle.
    one_way, two_way = one / one.norm(), two / two.norm()
    theta = 2 * torch.atan2((one_way - two_way).norm(), (one_way + two_way).norm())
    sine = theta.sin()
    if float(sine) < _PARALLEL:
        return (1 - share) * first + share * second
    return ((1 - share) * theta).sin() / sine * first + (share * theta).sin() / sine * second


def stacked(parts: Sequence[tuple[Tensor, Tensor]]) -> Factors:
    """Return the sum of B_i A_i as one B A: ranks add up, nothing is lost."""
    import torch

    a = torch.cat([part_a for part_a, _ in parts], dim=0)
    b = torch.cat([part_b for _, part_b in parts], dim=1)
    return Factors(a, b, error=0.0, size=_size(a, b))


def compressed(whole: Factors, rank: int | None = None) -> Factors:
    """Return B A at a lower rank: the nearest there is (Eckart-Young), by QR of both factors.

    Without a rank, at the rank that the product has, so that nothing but rounding is lost.
    """
    import torch

    left, right = torch.linalg.qr(whole.b), torch.linalg.qr(whole.a.T)
    u, s, vh = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    return _cut(left.Q @ u, s, vh @ right.Q.T, rank)


def factored(delta: Tensor, rank: int | None = None) -> Factors:
    """Return a matrix as B A of a rank, the nearest there is; without one, of its own rank."""
    import torch

    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    return _cut(u, s, vh, rank)


def _cut(u: Tensor, s: Tensor, vh: Tensor, rank: int | None) -> Factors:
    own = max(1, int((s > _NO_RANK * s[:1]).sum()))
    kept = own if rank is None else min(rank, len(s))
    size = float(s.norm())
    root = s[:kept].sqrt()
    # What is left of a product at its own rank is rounding.
    error = float(s[kept:].norm()) / size if kept < own else 0.0
    return Factors(root[:, None] * vh[:kept], u[:, :kept] * root, error, size)


def _size(a: Tensor, b: Tensor) -> float:
    """Return |B A| without making B A: the trace of (B^T B)(A A^T)."""
    return float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt())
