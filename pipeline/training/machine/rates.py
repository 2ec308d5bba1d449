"""Rates of a device: what it does in a second when left alone, measured in a fifth of one.

On a CPU it is one thread's own time that is measured, times the threads: other processes take none
of that. Two threads that wait for each other beside eight other processes did a thirtieth of what
they do alone, and the same run was said to take 3 minutes or 74.
"""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    if device.type == "cpu":
        with _one_thread() as threads:
            return threads / _median(work, time.thread_time)

    def once() -> None:
        work()
        torch.cuda.synchronize(device)

    return 1 / _median(once, time.perf_counter)


def _median(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the usual seconds of `work`, by a clock."""
    work()  # the first is slower
    began = time.perf_counter()
    taken: list[float] = []
    while time.perf_counter() - began < _MEASURED_SECONDS or len(taken) < _LEAST:
        start = clock()
        work()
        taken.append(clock() - start)
    return statistics.median(taken)


@contextmanager
def _one_thread() -> Iterator[int]:
    """Compute with one thread meanwhile; gives how many there are else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
