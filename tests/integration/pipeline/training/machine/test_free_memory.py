"""What memory is free: of the machine, of a control group, of the address space."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.training.machine.free_memory import FreeMemory, free_memory

CPU = torch.device("cpu")
MB = 10**6


def machine(root: Path, group: str) -> Path:
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n", "ascii")
    (proc / "self" / "cgroup").write_text(group, "ascii")
    return proc


def write_group(folder: Path, limit: str, values: tuple[object, object, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "max": ("memory.max", "memory.current", "inactive_file"),
        "limit_in_bytes": (
            *("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    }[limit]
    (folder / names[0]).write_text(f"{values[0]}\n", "ascii")
    (folder / names[1]).write_text(f"{values[1]}\n", "ascii")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {values[2]}\n", "ascii")


def test_free_of_the_machine(tmp_path: Path) -> None:
    proc = machine(tmp_path, "0::/\n")
    free = free_memory(CPU, proc=proc, cgroups=tmp_path / "none")
    assert free == FreeMemory(8000 * 1024, "the machine's memory", raises=False)
    assert free_memory(CPU, proc=tmp_path / "none", cgroups=tmp_path / "none") is None


@pytest.mark.parametrize(
    ("group", "limit", "inside"),
    [
        ("0::/user/job\n", "max", ""),
        ("12:cpu:/a\n5:memory:/user/job\n0::/\n", "limit_in_bytes", "memory"),
    ],
    ids=["v2", "v1"],
)
def test_free_of_a_control_group(tmp_path: Path, group: str, limit: str, inside: str) -> None:
    proc, root = machine(tmp_path, group), tmp_path / "cgroup"
    job = root / inside / "user" / "job"
    write_group(job, limit, ("max" if limit == "max" else 2**62, 100, 0))
    write_group(job.parent, limit, (1000, 900, 300))
    free = free_memory(CPU, proc=proc, cgroups=root)
    assert free == FreeMemory(400, "the memory limit of its control group", raises=False)
    write_group(job, limit, (300, 900, 0))  # over its limit: nothing is free
    assert free_memory(CPU, proc=proc, cgroups=root) == replace(free, bytes=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's procfs")
def test_free_of_the_address_space() -> None:
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize:"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * MB, before[1]))
    try:
        free = free_memory(CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free is not None
    assert free.raises
    assert 0 < free.bytes <= 64 * MB
