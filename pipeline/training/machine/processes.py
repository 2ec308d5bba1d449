"""Several processes on one run, as `accelerate launch` and torchrun start them.

Each takes its part of every batch, so that the steps, and their gradients, are those of a single
process. The first one alone writes.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch

_WAIT = timedelta(days=7)  # while the first one selects or measures, the others have nothing to do
_MESSAGE_BYTES = 1 << 16


def count() -> int:
    """How many processes a launcher has started for this run; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which one of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this one writes."""
    return rank() == 0


def barrier(*, on_cpu: bool) -> None:
    """Wait until every process is here; the first call makes them known to each other."""
    if count() > 1:
        _state(on_cpu=on_cpu).wait_for_everyone()


def broadcast(message: Mapping[str, Any] | None, *, on_cpu: bool) -> dict[str, Any] | None:
    """Give the first process's message (JSON values) to all; the others' own is not looked at."""
    import torch
    from torch import distributed

    state = _state(on_cpu=on_cpu)
    data = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
    if is_first():
        text = json.dumps(message).encode()
        data[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    data = data.to(state.device)
    distributed.broadcast(data, src=0)
    told: dict[str, Any] | None = json.loads(bytes(data.cpu().numpy()).rstrip(b"\0"))
    return told


def rank_share(rows: Sequence[int]) -> list[int]:
    """This process's rows of a batch: they are sorted by length, so every n-th is a fair part."""
    return list(rows[rank() :: count()])


def is_sharded() -> bool:
    """Whether the launcher asks that each process hold a part of the weights alone (FSDP)."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def shard(model: torch.nn.Module, layers: Iterable[torch.nn.Module]) -> None:
    """Shard a model over the processes, layer by layer, with torch's own FSDP2.

    accelerate shards on GPUs alone; done here, it is the same on CPUs, where it is tested.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (count(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _state(*, on_cpu: bool) -> Any:
    from accelerate import PartialState

    return PartialState(cpu=on_cpu, timeout=_WAIT)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that is sharded over the processes as a whole one; all must call it."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor


def distribute_like(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, sharded as `target` is, if it is and they are of one shape."""
    mesh = getattr(target, "device_mesh", None)
    if mesh is None or target.shape != source.shape:
        return source
    from torch.distributed.tensor import distribute_tensor

    placements: Any = getattr(target, "placements", None)
    return distribute_tensor(source.to(target.device), mesh, placements)
