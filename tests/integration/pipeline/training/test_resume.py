"""A training that is killed at any instant ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.training.record import checkpoint
from tests.support import tiny_models

PROGRAM = Path(__file__).with_name("resume_program.py")
FILES = ("adapter_model.safetensors", "adapter_config.json")


def start(base: Path, workdir: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(base), str(workdir)],
        cwd=root,
        # A set's order is another one in each process, so what depends on it shows.
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "random"},
        stdout=subprocess.PIPE,
        text=True,
    )


def steps_done(workdir: Path) -> int:
    try:
        return (workdir / "metrics.jsonl").read_text("utf-8").count("\n")
    except FileNotFoundError:
        return 0


def kill_after(process: subprocess.Popen[str], workdir: Path, steps: int, wait: float) -> None:
    """Kill -9 a little after it has made so many steps (or when it has ended)."""
    while process.poll() is None and steps_done(workdir) < steps:
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.communicate()


def finish(base: Path, workdir: Path, root: Path) -> str:
    process = start(base, workdir, root)
    output, _ = process.communicate()
    assert process.returncode == 0
    return output


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


# GPT-2 draws dropout at each step, so the generators' states show in its weights.
KINDS = ["gpt2", pytest.param("llama", marks=pytest.mark.soak)]


@pytest.fixture(scope="module", params=KINDS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, project_root: Path
) -> tuple[Path, Path]:
    """A base and the folder of its uninterrupted training."""
    base = tiny_models.save(tmp_path_factory.mktemp("base"), request.param)
    workdir = tmp_path_factory.mktemp("whole")
    assert "resumed None" in finish(base, workdir, project_root)
    return base, workdir


def killed_run(
    whole: tuple[Path, Path], workdir: Path, root: Path, kills: int, seed: int
) -> list[int]:
    """Train with kills at random steps, compare the end; returns the steps it resumed from."""
    base, reference = whole
    total = len(losses(reference))
    rng = random.Random(seed)
    reached = 0
    for _ in range(kills):
        process = start(base, workdir, root)
        reached = rng.randint(reached + 1, max(reached + 1, min(total - 1, reached + 9)))
        kill_after(process, workdir, reached, rng.choice([0.0, 0.005, 0.02]))
        reached = min(steps_done(workdir), total - 2)
    ended = finish(base, workdir, root)
    for name in FILES:
        assert (workdir / "adapter" / name).read_bytes() == (
            reference / "adapter" / name
        ).read_bytes()
    assert losses(workdir) == losses(reference)
    return [int(ended.split()[-1])] if "None" not in ended else []


@pytest.mark.slow
def test_three_kills_leave_no_trace(
    whole: tuple[Path, Path], tmp_path: Path, project_root: Path
) -> None:
    resumed = killed_run(whole, tmp_path, project_root, kills=3, seed=1)
    assert resumed
    assert resumed[0] > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_leave_no_trace(
    whole: tuple[Path, Path], tmp_path: Path, project_root: Path, seed: int
) -> None:
    killed_run(whole, tmp_path, project_root, kills=4, seed=100 + seed)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(
    whole: tuple[Path, Path], tmp_path: Path, project_root: Path
) -> None:
    base, reference = whole
    process = start(base, tmp_path, project_root)
    kill_after(process, tmp_path, 8, 0.0)
    root = tmp_path / "checkpoints"
    newest, older = sorted(root.glob("step-*[0-9]"), reverse=True)[:2]
    fingerprint = json.loads((newest / "state.json").read_bytes())["fingerprint"]
    found = checkpoint.last_checkpoint(root, fingerprint)
    assert found is not None
    assert found.path == newest
    weights = newest / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    shutil.copytree(newest, root / "step-00000099.tmp")  # as a kill within a write leaves it
    found = checkpoint.last_checkpoint(root, fingerprint)
    assert found is not None
    assert found.path == older
    assert not (root / "step-00000099.tmp").exists()
    assert checkpoint.last_checkpoint(root, "another run") is None
    assert f"resumed {found.step}" in finish(base, tmp_path, project_root)
    name = FILES[0]
    assert (tmp_path / "adapter" / name).read_bytes() == (reference / "adapter" / name).read_bytes()
