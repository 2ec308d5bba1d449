"""Half precision on this machine: whether it is computed as fast as fp32, or only imitated.

A CPU without instructions for bf16 takes some 45 times fp32's time for it, and nothing says so.
Instructions are looked up; where they are, a product is timed in both, once for a machine.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from registry.store.filenames import STATE
from registry.store.hashing import digest
from registry.store.kept import keep, kept

Half = Literal["fp16", "bf16"]
SPEEDS = "speeds.kept"
# As torch.cpu.get_capabilities() and /proc/cpuinfo call them; one is enough.
_INSTRUCTIONS: dict[Half, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "fphp", "arm_fp16"),
}
_NAMED: dict[Half, str] = {"bf16": "avx512_bf16 and AMX", "fp16": "avx512_fp16 and AMX"}
_ROWS, _WIDTH = 256, 1024  # of the product that is timed
_SECONDS = 0.05
# It has half the size: a little slower is well worth it, and imitated it is far slower.
_SLOWER = 2.0
_AMPERE = (8, 0)


def why_slow(half: Half, root: Path) -> str | None:
    """Return why this machine computes a dtype more slowly than fp32; None where it doesn't.

    Args:
        half: the dtype.
        root: the workspace, where what was timed is kept.
    """
    device, instructions = _device()
    if device == "cuda":
        return None if half in instructions else "this GPU has no instructions for it"
    if half not in instructions:
        return f"this CPU is without {_NAMED[half]}, and takes many times fp32's time for it"
    speeds = measured_speeds(half, root)
    slower = speeds["fp32"] / speeds[half]
    return f"it takes {slower:.1f} times fp32's time on this CPU" if slower > _SLOWER else None


def on_gpu(half: Half) -> bool:
    """Whether bases are computed on a GPU that has instructions for a dtype."""
    device, instructions = _device()
    return device == "cuda" and half in instructions


def measured_speeds(half: Half, root: Path) -> dict[str, float]:
    """Return billions of operations a second in fp32 and in `half`, timed once for a machine."""
    path = root / STATE / "cache" / SPEEDS
    machine = f"{half} {_machine()}"
    known: dict[str, dict[str, float]] = json.loads(kept(path) or b"{}")
    if machine not in known:
        known[machine] = _timed(half)
        with suppress(OSError):  # where nobody may write it is timed again
            keep(path, json.dumps(known).encode())
    return known[machine]


@cache
def _timed(half: Half) -> dict[str, float]:
    return {"fp32": _speed("float32"), half: _speed("bfloat16" if half == "bf16" else "float16")}


def _speed(dtype: str) -> float:
    import torch

    x = torch.ones(_ROWS, _WIDTH, dtype=getattr(torch, dtype))
    weight = torch.ones(_WIDTH, _WIDTH, dtype=x.dtype)
    torch.nn.functional.linear(x, weight)  # the first is slower
    taken: list[float] = []
    while sum(taken) < _SECONDS:
        began = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        taken.append(time.perf_counter() - began)
    # Not the mean: now and then another process has the processor meanwhile.
    return round(2e-9 * _ROWS * _WIDTH * _WIDTH / statistics.median(taken), 1)


@cache
def _device() -> tuple[str, frozenset[Half]]:
    """Return what bases are computed on, and the dtypes that it has instructions for."""
    import torch

    if torch.cuda.is_available():
        ampere = torch.cuda.get_device_capability() >= _AMPERE
        return "cuda", frozenset(("fp16", "bf16") if ampere else ("fp16",))
    has = {name for name, there in torch.cpu.get_capabilities().items() if there is True}
    has |= _flags()
    return "cpu", frozenset(half for half, any_of in _INSTRUCTIONS.items() if has & {*any_of})


@cache
def _flags() -> frozenset[str]:
    """Return the CPU's features as Linux lists them."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _machine() -> str:
    """Return what the speeds are of: equal machines have the same."""
    told = [platform.machine(), platform.processor(), sorted(_flags()), version("torch")]
    return digest({"machine": told})[:16]
