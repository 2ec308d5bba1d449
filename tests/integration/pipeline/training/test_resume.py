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
from tests.integration.pipeline.training import resume_program
from tests.support import tiny_models
from tests.support.called import fork
from tests.support.loaded import with_models

FILES = ("adapter_model.safetensors", "adapter_config.json")


def steps_done(workdir: Path) -> int:
    try:
        return (workdir / "metrics.jsonl").read_text("utf-8").count("\n")
    except FileNotFoundError:
        return 0


def kill_after(base: Path, workdir: Path, steps: int, wait: float) -> None:
    """Train, kill -9 a little after it has made so many steps (or when it has ended)."""
    arguments = [resume_program.__file__, str(base), str(workdir)]
    process = with_models.start(arguments, stdout=1, stderr=2)
    while process.poll() is None and steps_done(workdir) < steps:
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.wait()


def finish(base: Path, workdir: Path) -> int | None:
    """Train to the end; returns the step that it went on from."""
    done = fork([resume_program.__file__, str(base), str(workdir)], loaded=with_models)
    assert done.code == 0, done.err
    resumed = done.out.split()[-1]
    return None if resumed == "None" else int(resumed)


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


# GPT-2 draws dropout at each step, so the generators' states show in its weights.
KINDS = ["gpt2", pytest.param("llama", marks=pytest.mark.soak)]


@pytest.fixture(scope="module", params=KINDS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, project_root: Path
) -> tuple[Path, Path]:
    """A base and the folder of its uninterrupted training.

    A set's order is another one here than in the processes that are killed, so what depends on it
    shows.
    """
    base = tiny_models.save(tmp_path_factory.mktemp("base"), request.param)
    workdir = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, str(resume_program.__file__), str(base), str(workdir)],
        check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(project_root), "PYTHONHASHSEED": "random"},
    )  # fmt: skip
    assert "resumed None" in done.stdout
    return base, workdir


def killed_run(whole: tuple[Path, Path], workdir: Path, kills: int, seed: int) -> int | None:
    """Train with kills at random steps, compare the end; returns the step it resumed from."""
    base, reference = whole
    total = len(losses(reference))
    rng = random.Random(seed)
    reached = 0
    for _ in range(kills):
        reached = rng.randint(reached + 1, max(reached + 1, min(total - 1, reached + 9)))
        kill_after(base, workdir, reached, rng.choice([0.0, 0.005, 0.02]))
        reached = min(steps_done(workdir), total - 2)
    resumed = finish(base, workdir)
    for name in FILES:
        assert (workdir / "adapter" / name).read_bytes() == (
            reference / "adapter" / name
        ).read_bytes()
    assert losses(workdir) == losses(reference)
    return resumed


@pytest.mark.slow
def test_three_kills_leave_no_trace(whole: tuple[Path, Path], tmp_path: Path) -> None:
    resumed = killed_run(whole, tmp_path, kills=3, seed=1)
    assert resumed is not None
    assert resumed > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_leave_no_trace(whole: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    killed_run(whole, tmp_path, kills=4, seed=100 + seed)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(whole: tuple[Path, Path], tmp_path: Path) -> None:
    base, reference = whole
    kill_after(base, tmp_path, 8, 0.0)
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
    assert finish(base, tmp_path) == found.step
    name = FILES[0]
    assert (tmp_path / "adapter" / name).read_bytes() == (reference / "adapter" / name).read_bytes()
