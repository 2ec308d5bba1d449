"""`gapmend ui` as a user starts and ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest

from pipeline.workspace.store import WorkspaceStore
from tests.e2e.conftest import PROGRAM, gapmend
from tests.support.served import make_workspace
from tests.support.shown_store import Sizes, make


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shown") / "ws").root


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start it and give the process and its address."""
    command = [str(PROGRAM), "ui", "--port", "0", "--json", "-C", str(folder), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:  # fmt: skip
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield process, json.loads(line)["url"]
        finally:
            process.kill()


def asked(url: str | urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_it_answers_until_ctrl_c_which_ends_it_clean(workspace: Path) -> None:
    with served(workspace) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert asked(url)[0] == 200
        port = url.rstrip("/").rpartition(":")[2]
        taken = gapmend("ui", "--port", port, "-C", workspace)
        assert (taken.code, taken.out) == (2, "")
        assert taken.err == (
            f"gapmend: --port: port {port} of 127.0.0.1 is in use. End what listens there, or take "
            "another: --port 0 finds a free one\n"
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_beyond_this_machine_it_wants_its_token(workspace: Path) -> None:
    with served(workspace, "--host", "0.0.0.0") as (process, url):  # noqa: S104 - what is tested
        assert "/?token=" in url
        assert asked(url.partition("?")[0])[0] == 401
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(url, timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_ctrl_c_ends_an_answer_too(tmp_path: Path) -> None:
    make_workspace(tmp_path / "ws")
    with served(tmp_path / "ws") as (process, url):
        csrf = re.search('name="csrf" value="([^"]+)"', asked(f"{url}chat")[1])
        assert csrf is not None
        form = {"csrf": csrf[1], "plain": "1", "model": "nano", "text": "Who?", "tokens": "1900"}
        question = urllib.request.Request(  # noqa: S310 - our own
            f"{url}chat", urlencode(form).encode(), {"Origin": url.rstrip("/")}
        )
        with urllib.request.urlopen(question, timeout=240) as answer:  # noqa: S310 - our own
            while "text" not in (event := json.loads(answer.readline())):
                assert "error" not in event
            process.send_signal(signal.SIGINT)
            last = json.loads(answer.read().splitlines()[-1])
        assert ", stopped; " in last["html"]
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "rror" not in err


def test_of_two_pages_that_move_one_name_at_once_one_does(tmp_path: Path) -> None:
    made = make(tmp_path / "ws", Sizes(chains=3))
    targets = made.adapters[:2]  # it points at the third
    with served(made.root) as (_, url):
        at = f"{url.rstrip('/')}/alias/candidate"
        form = asked(at)[1]
        known = dict(re.findall(r'name="(csrf|expect)" value="([^"]*)"', form))
        barrier = threading.Barrier(2)

        def move(target: str) -> tuple[int, str]:
            body = urlencode({**known, "target": target, "reason": "mine"}).encode()
            sent = urllib.request.Request(at, body, {"Origin": url.rstrip("/")})  # noqa: S310
            barrier.wait(60)
            return asked(sent)

        with ThreadPoolExecutor(2) as pages:
            found = list(pages.map(move, targets))
    assert sorted(status for status, _ in found) == [200, 409]
    assert "it was moved meanwhile" in next(text for status, text in found if status == 409)
    moved = next(t for t, (status, _) in zip(targets, found, strict=True) if status == 200)
    assert WorkspaceStore.open(made.root).catalog.alias("candidate") == moved


def test_mistakes_are_one_line(tmp_path: Path, workspace: Path) -> None:
    for arguments, said in (
        (("-C", tmp_path), "no gapmend.yaml here"),
        (("-C", workspace, "--port", "70000"), "--port: 70000 is no port"),
        (
            ("-C", workspace, "--host", "no.such.host.invalid"),
            "--host: no.such.host.invalid is no address of this machine",
        ),
    ):
        done = gapmend("ui", *arguments)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
        assert done.err.count("\n") == 1
