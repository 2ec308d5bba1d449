"""How soon the command line answers, against its target; alone on the machine."""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING

from tests.e2e.conftest import gapmend

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 5


def test_help_answers_within_its_target(project_root: Path) -> None:
    targets = tomllib.loads((project_root / "benchmarks" / "targets.toml").read_text("utf-8"))
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        assert gapmend("--help").code == 0
        taken.append(time.perf_counter() - began)
    # The quickest: what else the machine does can only make a call slower.
    assert min(taken) <= targets["start"]["help_seconds"]
