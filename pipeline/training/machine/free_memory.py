"""Free memory for a process: of the device, of the system, and what limits it."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KIB = 1024
# For each version: limit, usage, and the key of what of the usage is only a cache of files.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What is free where it is scarcest.

    Attributes:
        bytes: that may still be taken.
        where: what they are of, in words.
        raises: whether taking more raises an error, after which a smaller batch can be tried; the
            kernel ends the process where it doesn't.
    """

    bytes: int
    where: str
    raises: bool


def free_memory(
    device: torch.device, *, proc: Path = _PROC, cgroups: Path = _CGROUPS
) -> FreeMemory | None:
    """Return what is free for a model on this device; None where the system doesn't say.

    Args:
        device: where the model is.
        proc: the mounted procfs.
        cgroups: the mounted cgroup file system.
    """
    if device.type == "cuda":
        return FreeMemory(_cuda(device), "GPU memory", raises=True)
    found = [*_system(proc), *_address_space(proc), *_cgroup(proc, cgroups)]
    return min(found, key=lambda free: free.bytes, default=None)


def _cuda(device: torch.device) -> int:
    import torch

    free, _total = torch.cuda.mem_get_info(device)
    # Torch holds memory that no tensor uses, and gives it to the next.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _system(proc: Path) -> Iterator[FreeMemory]:
    available = _kilobytes(proc / "meminfo", "MemAvailable")
    if available is not None:
        yield FreeMemory(available, "the machine's memory", raises=False)


def _address_space(proc: Path) -> Iterator[FreeMemory]:
    limit, _hard = resource.getrlimit(resource.RLIMIT_AS)
    used = _kilobytes(proc / "self" / "status", "VmSize")
    if limit != resource.RLIM_INFINITY and used is not None:
        yield FreeMemory(max(0, limit - used), "the address space limit (ulimit -v)", raises=True)


def _cgroup(proc: Path, cgroups: Path) -> Iterator[FreeMemory]:
    """Yield what every group that the process is in leaves it: a parent limits its children."""
    for line in _lines(proc / "self" / "cgroup"):
        _number, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (cgroups / "memory", _V1) if controllers else (cgroups, _V2)
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            left = _left(group, *names)
            if left is not None:
                yield FreeMemory(left, "the memory limit of its control group", raises=False)
            if group == root:
                break


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    most = "".join(_lines(group / limit))
    used = "".join(_lines(group / usage))
    if not (most.isdigit() and used.isdigit()):  # `max`, or no such group in this mount
        return None
    stat = dict(line.split(" ", 1) for line in _lines(group / "memory.stat"))
    return max(0, int(most) - int(used) + int(stat.get(cached, 0)))


def _kilobytes(path: Path, key: str) -> int | None:
    lines = _lines(path)
    return next((int(n.split()[1]) * _KIB for n in lines if n.startswith(f"{key}:")), None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []
