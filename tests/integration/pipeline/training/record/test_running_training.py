"""A training that runs is seen from another process, killed it is said to be, and then it ends."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from pipeline.report.tables import running_line
from pipeline.verbs.status import status
from pipeline.workspace.running import running
from pipeline.workspace.store import WorkspaceStore
from tests.integration.pipeline.training import stage_program
from tests.support import tiny_models
from tests.support.called import fork
from tests.support.loaded import with_models


def seen(kept: WorkspaceStore, step: int) -> dict[str, Any]:
    """Return what status says of the training as soon as its file has this step."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if any(one.done is not None and one.done >= step for one in running(kept)):
            return dict(status(kept)["running"][0])
        time.sleep(0.05)
    raise AssertionError("it was not seen")


def test_a_training_is_seen_killed_and_gone_on_with(tmp_path: Path) -> None:
    base = tiny_models.save(tmp_path / "base", "llama")
    kept = stage_program.kept_in(tmp_path)
    arguments = [stage_program.__file__, str(base), str(tmp_path)]
    (tmp_path / "hold").touch()
    process = with_models.start(arguments, stdout=1, stderr=2)
    now = seen(kept, step=stage_program.HELD_AT)
    process.kill()
    process.wait()
    (stopped,) = status(kept)["running"]

    assert (now["stage"], now["state"]) == ("train", "running")
    assert now["doing"] == "train · tiny"
    training = now["training"]
    assert now["done"] == training["step"] == stage_program.HELD_AT
    assert training["steps"] == now["total"] == 36
    assert training["loss"] > 0
    assert now["note"].startswith("loss ")
    assert training["seconds_left"] > 0
    pattern = r"train · running for \S+ \S+, since \S+ \S+ UTC, process \d+: train · tiny, "
    pattern += r"step \d+ of \d+, loss \S+, "
    assert re.fullmatch(rf"{pattern}[\d,]+ tokens/s, about \S+ \S+ left", running_line(now))

    assert stopped["state"] == "stopped"
    assert stopped["training"]["checkpoint"] in (6, 9)
    assert running_line(stopped).startswith("train · stopped, begun ")
    assert running_line(stopped).endswith(
        f"last checkpoint at step {stopped['training']['checkpoint']}; process {stopped['pid']} is "
        "gone, killed or with its machine; the next run with the same inputs goes on from its "
        "folder"
    )

    (tmp_path / "hold").unlink()
    done = fork(arguments, loaded=with_models)
    assert done.code == 0, done.err
    assert done.out == f"resumed {stopped['training']['checkpoint']}\n"
    assert status(kept)["running"] == []
    first, *between = done.err.splitlines()
    assert first == "train · tiny …"
    far = re.compile(r"train · tiny: (\d+ of \d+, loss \S+, )?\S+ s so far(, about \S+ s left)?")
    assert all(far.fullmatch(line) for line in between)
    assert any(" of 36, loss " in line for line in between)
