"""`gapmend chat` as a user has it: on a terminal, in a pipe, and what can't be had."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.called import MAIN, Called, forked
from tests.support.loaded import with_models

TOLD = {"HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "xterm"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat") / "ws"
    assert forked("init", folder).code == 0
    return folder


def piped(workspace: Path, text: str, *arguments: str) -> Called:
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile("w+") as out:
        asked.write(text.encode())
        asked.seek(0)
        argv = [MAIN, "chat", "-C", str(workspace), *arguments]
        with (
            tempfile.TemporaryFile("w+") as err,
            with_models.start(argv, stdin=asked, stdout=out, stderr=err, environment=TOLD) as fork,
        ):
            code = fork.wait(240)
            for file in (out, err):
                file.seek(0)
            return Called(code, out.read(), err.read())


def test_each_line_of_a_pipe_is_answered(workspace: Path) -> None:
    plain = piped(workspace, "What is 2 plus 1?\n\n/new\n")
    assert plain.code == 0, plain.err
    assert len(plain.out.splitlines()) == 2
    asked = piped(workspace, "What is 2 plus 1?\n" + "word " * 3000, "--json")
    first, second = map(json.loads, asked.out.splitlines())
    [answer] = first["answers"]
    assert (answer["model"], answer["text"]) == ("nano", plain.out.splitlines()[0])
    assert answer["tokens"] > 0
    assert answer["seconds"] > 0
    assert re.match(r"the prompt has [\d,]+ tokens", second["error"]["message"])
    assert asked.code == 2


def test_a_question_of_2_mb_is_one_line(workspace: Path) -> None:
    asked = piped(workspace, "word " * 400_000 + "\nWhat is 2 plus 1?\n")
    assert asked.code == 2
    assert len(asked.out.splitlines()) == 1
    said = [line for line in asked.err.splitlines() if line.startswith("gapmend: ")]
    assert len(said) == 1
    assert re.fullmatch(
        r"gapmend: the prompt has [\d,]+ tokens; expected fewer than 2048, which nano reads, the "
        r"answer included",
        said[0],
    )


def test_nobody_of_that_name_is_one_line(workspace: Path) -> None:
    called = forked("chat", "nobody", "-C", workspace)
    assert called.code == 2
    assert called.err.startswith("gapmend: no model is called 'nobody'")
    assert called.err.count("\n") == 1


def test_on_a_terminal(workspace: Path) -> None:
    ours, theirs = pty.openpty()
    argv = [MAIN, "chat", "-C", str(workspace)]
    with (
        os.fdopen(theirs, "r+b", buffering=0) as terminal,
        with_models.start(
            argv, environment=TOLD, stdin=terminal, stdout=terminal, stderr=terminal
        ) as fork,
    ):
        seen = until(ours, "\n> ")
        os.write(ours, b"What is 2 plus 1?\n")
        seen += until(ours, "read")
        os.write(ours, b"/row terminal\n/nothing\n")
        # The prompt as well: before it a terminal would not hand Ctrl-D on to readline.
        seen += until(ours, "/help, /quit\n> ")
        os.write(ours, b"\x04")
        assert fork.wait(60) == 0
    os.close(ours)
    assert "nano; /help" in seen
    assert "tokens in" in seen
    assert "no command is called '/nothing'" in seen
    assert "kept in data/kept/terminal.jsonl:1; to use it, add to gapmend.yaml:" in seen
    kept = json.loads((workspace / "data/kept/terminal.jsonl").read_text())
    assert kept["messages"][0]["content"] == "What is 2 plus 1?"


def until(terminal: int, text: str, seconds: float = 240) -> str:
    """Read what a program writes until it has written `text`."""
    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 1 << 16).decode(errors="replace").replace("\r\n", "\n")
    return seen
