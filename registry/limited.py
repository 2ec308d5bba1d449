"""A program that looks at what came from outside, in a process that ends by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_WALL = 30  # times as long by the clock: on a busy machine a process gets little of it


def run_limited(
    module: str, given: Sequence[Any], seconds: int
) -> subprocess.CompletedProcess[str]:
    """Run a module of ours, which limits its own memory and processor time.

    Args:
        module: its name.
        given: what it reads as JSON.
        seconds: of processor time that it is told to take at most.

    Raises:
        TimeoutExpired: it sleeps, or waits for something that doesn't come.
    """
    return subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(given),
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds * _WALL,
        cwd=Path(__file__).resolve().parents[1],
        # A driver maps more addresses than the limit, and nothing here is computed.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
