"""Rates of a device: what it does in a second when left alone, measured in a fifth of one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_MEASURED_SECONDS = 0.1
_LEAST = 3  # times that it is done, where once takes longer than that
_MEASURED_TOKENS = {"cpu": 512, "cuda": 4096}
_BEYOND_CACHE = 2**20  # numbers


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does in a second.

    Attributes:
        operations: floating-point operations of matrix products.
        numbers: results of products number by number.
    """

    operations: float
    numbers: float


def measured_rates(hidden: int, between: int, dtype: torch.dtype, device: torch.device) -> Rates:
    """Measure a device with a layer's sizes for 0.2 s; no generator is drawn from."""
    rows = _MEASURED_TOKENS[device.type]
    x = torch.ones(rows, hidden, dtype=dtype, device=device)
    weight = torch.ones(between, hidden, dtype=dtype, device=device)
    wide = torch.ones(max(rows * between, _BEYOND_CACHE), dtype=dtype, device=device)
    with torch.no_grad():
        products = _per_second(lambda: torch.nn.functional.linear(x, weight), device)
        by_number = _per_second(lambda: wide * wide, device)
    return Rates(products * 2.0 * x.numel() * between, by_number * wide.numel())


def _per_second(work: Callable[[], object], device: torch.device) -> float:
    def once() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    once()  # the first is slower
    began = start = time.perf_counter()
    taken: list[float] = []
    while start - began < _MEASURED_SECONDS or len(taken) < _LEAST:
        once()
        now = time.perf_counter()
        taken.append(now - start)
        start = now
    # The quickest, as other processes have the processor meanwhile: beside four of them on two
    # cores, the median said 19 minutes or 77 hours for the same work.
    return 1 / min(taken)
