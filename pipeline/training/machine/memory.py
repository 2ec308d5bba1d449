"""Peak memory of a training run: what it adds to that of the loaded model."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc/self")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)

# glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD (mallopt(3)), in bytes.
_TRIM, _PAD, _MMAP = -1, -2, -3
_KEEPING = ((_MMAP, 32 << 20), (_TRIM, (2 << 30) - 1), (_PAD, 64 << 20))
_DEFAULTS = ((_MMAP, 128 << 10), (_TRIM, 128 << 10), (_PAD, 128 << 10))


@dataclass
class Memory:
    """Bytes, known when the context that yields it is left.

    Attributes:
        weights: of the model, before training.
        growth: the peak above what was in use before: masters, gradients, states, activations.
    """

    weights: int = 0
    growth: int = 0

    @property
    def peak(self) -> int:
        """The model's weights and what training added to them at its peak."""
        return self.weights + self.growth


@contextmanager
def measure_memory(model: torch.nn.Module, device: torch.device) -> Iterator[Memory]:
    """Measure a piece of training: on CUDA by torch's own count, else the process's resident set.

    Where the system can't begin a new peak (not Linux), growth is that of the process's whole
    life, and 0 when an earlier peak was higher.
    """
    memory = Memory(weights=sum(p.numel() * p.element_size() for p in model.parameters()))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield memory
        memory.growth = max(0, torch.cuda.max_memory_allocated(device) - before)
        return
    _give_back_free_pages()
    before = _begin_peak()
    yield memory
    memory.growth = max(0, _peak() - before)


def _give_back_free_pages() -> None:
    """Let glibc return what is free, which would otherwise count as in use before."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _begin_peak() -> int:
    """Set the process's peak to what it uses now, which is returned, in bytes."""
    try:
        (_PROC / "clear_refs").write_text(_RESET_PEAK, "ascii")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    if (_PROC / "status").exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    lines = (_PROC / "status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


@contextmanager
def keep_freed_pages() -> Iterator[None]:
    """Let glibc keep what is freed for what is asked for next, which is as large, step by step.

    By its defaults it gives large blocks back to the system at once, and the system has to clear
    every page of them again: a quarter of a CPU's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    try:
        for parameter, value in _KEEPING:
            mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS:
            mallopt(parameter, value)
        _give_back_free_pages()
