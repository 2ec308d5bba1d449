"""Programs called in forks of a process that has the libraries loaded, and what they left."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.loaded import Loaded, light

MAIN = "pipeline.cli.main:main"


@dataclass(frozen=True)
class Called:
    """What a call of the command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def forked(
    *arguments: str | Path,
    timeout: float = 120,
    loaded: Loaded = light,
    **environment: str,
) -> Called:
    """Call the command line in a fork of a process that has its libraries loaded.

    For what isn't about a process's start: `gapmend` takes 0.3 to 7 s for that and does the same.
    """
    told = {"HF_HUB_OFFLINE": "1", **environment}
    argv = [MAIN, *map(str, arguments)]
    return fork(argv, timeout=timeout, loaded=loaded, environment=told)


def fork(
    argv: Sequence[str],
    *,
    timeout: float = 120,
    loaded: Loaded = light,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Called:
    """Run a program (`module:function`, a file, or `-c` and code) in such a fork."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with loaded.start(argv, stdout=out, stderr=err, cwd=cwd, environment=environment) as begun:
            code = begun.wait(timeout)
        for file in (out, err):
            file.seek(0)
        return Called(code, out.read(), err.read())
