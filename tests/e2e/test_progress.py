"""Progress as a user has it: a bar with what is left on a terminal, a line in 30 s in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import tempfile
import termios
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import nano_adapter
from tests.support.called import MAIN, Called, forked
from tests.support.loaded import with_models

TOLD = {"HF_HUB_OFFLINE": "1", "TERM": "xterm"}
WIDE = 160
SLOW = """
import time
from pipeline.workspace.ui import Ui
with Ui().progress("export · rows", 40, "files") as bar:
    for _ in range(40):
        time.sleep(0.1)
        bar.advance()
"""
PROGRESS = re.compile(r" …$|so far(, about .* left)?$")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with an adapter of the built-in base."""
    folder = tmp_path_factory.mktemp("progress")
    workspace, adapter = folder / "ws", nano_adapter(folder / "theirs", with_models)
    assert forked("init", workspace).code == 0
    words = ("adapter", "import", adapter, "-C", workspace, "--json")
    done = forked(*words, loaded=with_models)
    assert done.code == 0, done.err
    return workspace, str(done.json()["object_id"])


def on_a_terminal(*argv: str | Path, seconds: float = 240) -> str:
    """Return all that a program writes to a terminal; it has to end well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDE, 0, 0))
    seen, end = b"", time.monotonic() + seconds
    with (
        os.fdopen(theirs, "r+b", buffering=0) as terminal,
        with_models.start(
            [*map(str, argv)], environment=TOLD, stdin=terminal, stdout=terminal, stderr=terminal
        ) as fork,
    ):
        while True:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 1 << 16)
            elif fork.poll() is not None:
                break
            assert time.monotonic() < end, seen
    os.close(ours)
    assert fork.returncode == 0, seen
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))


def in_a_pipe(*arguments: str | Path) -> tuple[Called, float]:
    """Return what a command says where nobody looks, and how long it took."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        argv = [MAIN, *map(str, arguments)]
        with with_models.start(argv, stdout=out, stderr=err, environment=TOLD) as fork:
            code = fork.wait(240)
        for file in (out, err):
            file.seek(0)
        return Called(code, out.read(), err.read()), time.monotonic() - began


def test_a_bar_has_the_pace_and_what_is_left() -> None:
    said = on_a_terminal("-c", SLOW)
    assert re.search(r"export · rows .* \d+ of 40 files .* \d\.\d s left · \d\.\d files/s", said)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("merge", "--adapter"), r"merge · \w{8} into nano .* \d+ of \d+ tensors"),
        (("ingest", "--dry-run"), r"look · \w+ .* [\d,]+ of 1,000 records"),
    ],
)
def test_what_is_there_is_known_from_the_beginning(
    made: tuple[Path, str], arguments: tuple[str, ...], shown: str
) -> None:
    workspace, adapter = made
    given = [*arguments, *([adapter] if arguments[-1] == "--adapter" else [])]
    said = on_a_terminal(MAIN, *given, "-C", workspace)
    assert re.search(shown, said)
    far = re.findall(r"([\d,]+) of ([\d,]+) (?:tensors|records)", said)
    counts = [[int(one.replace(",", "")) for one in pair] for pair in far]
    assert all(done <= total for done, total in counts)
    if "merge" in arguments:
        assert counts[-1][0] == counts[-1][1]  # all that was counted on came


def test_in_a_pipe_there_is_a_line_in_30_seconds(made: tuple[Path, str]) -> None:
    called, took = in_a_pipe("gap", "-C", made[0])
    assert called.code == 0, called.err
    lines = [line for line in called.err.splitlines() if PROGRESS.search(line)]
    assert lines
    assert lines[0].endswith(" …")
    assert len(lines) <= 1 + took / 30, called.err
