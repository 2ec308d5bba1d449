"""The dtype that a base's frozen weights are trained in, where the spec doesn't say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.spec.train import ComputeDtype, TrainSpec
    from registry.models.base import BaseIdentity, BaseSpec

# Below it a step on a GPU waits for its launches, whatever its products take.
_WORTH_HALVING = 100_000_000


def training_dtype(identity: BaseIdentity, *, quantised: bool) -> ComputeDtype | None:
    """Return bf16 on a GPU with instructions for it; None is what the base is computed in.

    Not on a CPU: with AMX a product of SmolLM2's size takes a fifth of its time in bf16, and a
    step, most of which is small products and attention, 1.4 times fp32's.
    """
    if quantised or identity.dtype != "fp32" or identity.parameters < _WORTH_HALVING:
        return None
    from registry.models.half import on_gpu

    return "bf16" if on_gpu("bf16") else None


def slow_choices(bases: Mapping[str, BaseSpec], train: TrainSpec, root: Path) -> Iterator[str]:
    """Yield a line for each dtype that a spec chooses and this machine is slow in."""
    from registry.models.half import why_slow

    chosen = [(f"bases.{name}.dtype", base.dtype) for name, base in bases.items()]
    for where, dtype in (*chosen, ("train.dtype", train.dtype)):
        if dtype is not None and dtype != "fp32" and (why := why_slow(dtype, root)):
            yield f"{where}: {dtype} is slow here: {why}; leave it out, or take fp32"
