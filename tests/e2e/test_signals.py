"""Ctrl-C and SIGTERM: one line, and exit code 130 or 143, whatever the process is doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.called import Called
from tests.support.loaded import light

STOPPED = "gapmend: stopped; the next call goes on from here"
LONG = "select count(*) from range(100000000000) numbers(i) where hash(i) % 7 = 3"
# Looks at no signal, as a library's own code.
DEAF = """
import ctypes, os
from pathlib import Path
from pipeline.cli import main, signals

def deaf():
    Path(os.environ["BEGUN"]).touch()
    left = 60
    while left:  # a signal ends C's sleep, which tells how long is left
        left = ctypes.CDLL(None).sleep(left)

signals._PATIENCE_S = 0.2
main.app.command("deaf")(deaf)
main.main()
"""
EARLY = """
import os, signal, sys, threading, time
from pipeline.cli import signals, start

def stop(after):
    while signal.getsignal(signal.SIGINT) is not signals._stop:
        time.sleep(0.001)
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop, args=(float(sys.argv.pop()),), daemon=True).start()
start.main()
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def stopped(argv: Sequence[str], begun: Path, number: int, **environment: str) -> Called:
    """Call a program in a fork and send it a signal once `begun` is there."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        told = {"HF_HUB_OFFLINE": "1", **environment}
        started = light.start(argv, stdout=out, stderr=err, environment=told)
        with started as fork:
            for _ in range(600):
                if begun.exists() or fork.poll() is not None:
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            os.kill(fork.pid, number)
            code = fork.wait(30)
        for file in (out, err):
            file.seek(0)
        return Called(code, out.read(), err.read())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    from tests.support.called import forked

    assert forked("init", tmp_path / "ws").code == 0
    return tmp_path / "ws"


@pytest.mark.parametrize("number", CODES)
def test_a_long_query_is_ended(workspace: Path, number: signal.Signals) -> None:
    argv = ["pipeline.cli.main:main", "sql", LONG, "-C", str(workspace)]
    done = stopped(argv, workspace / ".gapmend", number)
    assert (done.code, done.out, done.err.splitlines()) == (CODES[number], "", [STOPPED])


def test_programs_are_told_too(workspace: Path) -> None:
    argv = ["pipeline.cli.main:main", "sql", LONG, "-C", str(workspace), "--json"]
    done = stopped(argv, workspace / ".gapmend", signal.SIGTERM)
    assert (done.code, done.err.splitlines()) == (143, [STOPPED])
    said = json.loads(done.out)
    assert (said["kind"], said["exit_code"]) == ("stopped", 143)


@pytest.mark.parametrize("number", CODES)
def test_what_looks_at_no_signal_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    begun = tmp_path / "begun"
    done = stopped(["-c", DEAF, "deaf"], begun, number, BEGUN=str(begun))
    assert (done.code, done.out, done.err.splitlines()) == (CODES[number], "", [STOPPED])


@pytest.mark.parametrize(
    "after",
    [0.0, 0.08]
    + [pytest.param(n / 50, marks=pytest.mark.soak) for n in (1, 2, 3, 5, 6, 8, 10, 12, 15, 20)],
)
def test_stopped_while_it_starts_it_is_one_line(workspace: Path, after: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, "status", "-C", workspace, str(after)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 0:  # it was quicker
        assert "Traceback" not in done.stderr
        return
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, STOPPED)
    assert "Traceback" not in done.stderr


ANSWERED = """
import os, signal, time
from pipeline.cli import signals

signals._PATIENCE_S = 0.1
with signals.caught():
    seen = 0
    with signals.answered():
        for _ in range(3):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                seen += 1
        time.sleep(0.3)
    print(seen, signals.has_come(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_talk_answers_to_each_ctrl_c_itself() -> None:
    from tests.support.called import fork

    called = fork(["-c", ANSWERED])
    assert called.out == "3 False\n"
    assert called.code != 0
