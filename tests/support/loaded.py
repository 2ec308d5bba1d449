"""A process that has the libraries loaded, and forks of it that do what a new process would.

Torch, transformers and PEFT take a Python of its own some seconds of a CPU, DuckDB and pyarrow half
a second, and most tests of the command line are about what it does, not about its start. A fork has
its own process id, environment, folder, files and exit code, and can be killed:

    loaded = Loaded(("peft", "pipeline.cli.main"))
    with loaded.start(["pipeline.cli.main:main", "status"], stdout=out, stderr=err) as fork:
        assert fork.wait(60) == 0

`light` and `with_models` are one process each for all workers of a session. Run as a program
(`python -m tests.support.loaded SOCKET MODULES…`) this is the process forked from.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from binascii import crc32
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 1 << 20  # of a message, in bytes: arguments and the environment
LIGHT = (
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "duckdb", "rich.table", "rensa"),
    *("model_signing.signing", "model_signing.verifying", "detect_secrets.settings"),
    *("pipeline.cli.main", "pipeline.api.workspace", "pipeline.report.tables"),
    *("registry.upkeep.fsck", "registry.datasets.versions.make"),
)
"""What verbs load that have no model: nothing of it reads where the Hub is."""
MODELS = (
    *("peft", "transformers.models.llama.modeling_llama", "accelerate", "datasets"),
    *("transformers.models.gpt2.modeling_gpt2", "evals.engine.packed", "pipeline.training.fit"),
    *("lm_eval.api.task", "lm_eval.api.metrics", "lm_eval.evaluator", "scipy.special"),
)
"""What the others load besides, and where the Hub is stays as it was at that time."""
_FILES = 4  # stdin, stdout, stderr, and the socket that the fork's end is told on


class Fork:
    """A process forked from the loaded one, as `subprocess.Popen` shows one."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        pid = told.recv(64)
        if not pid:
            raise ConnectionError
        self.pid = int(pid)
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self.kill()
            self.wait()

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code, negative where a signal ended it."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            self.returncode = int(self._told.recv(64))
            self._told.close()
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL; its parent reaps it only as it tells us its end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Loaded:
    """A process with these modules loaded, in this environment, started at the first fork.

    One that is shared is the same for all workers of a session, and ends with the last of them.
    """

    def __init__(
        self,
        modules: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        shared: bool = False,
    ):
        self._modules, self._environment = modules, environment or {}
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID") if shared else None
        self._alone = session is None
        self._address = f"\0{session or uuid4().hex} {crc32(' '.join(modules).encode())}"
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: socket.socket | None = None
        self._said: IO[str] | None = None

    def start(
        self,
        argv: Sequence[str],
        *,
        stdout: IO[Any] | int,
        stderr: IO[Any] | int,
        stdin: IO[Any] | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Fork a process that runs a program: `module:function`, a file, or `-c` and code."""
        if self._asked is None:
            self._asked = self._load()
        what = {
            "argv": list(map(str, argv)),
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
        }
        told, tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with tell, Path(os.devnull).open() as nothing:
                files = [_number(one) for one in (stdin or nothing, stdout, stderr, tell)]
                socket.send_fds(self._asked, [json.dumps(what).encode()], files)
            return Fork(told)
        except OSError:
            told.close()
            raise RuntimeError(f"nothing to fork from: {self._why()}") from None

    def _load(self) -> socket.socket:
        while True:
            ours = _socket()
            try:
                ours.connect(self._address)
            except ConnectionRefusedError:
                ours.close()
            else:
                return ours
            with _socket() as theirs:
                try:
                    theirs.bind(self._address)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    time.sleep(0.01)  # another worker has, this moment
                    continue
                theirs.listen()
                self._start(theirs)

    def _start(self, theirs: socket.socket) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with it
        command = [sys.executable, "-m", "tests.support.loaded", str(theirs.fileno())]
        self._process = subprocess.Popen(
            [*command, *self._modules],
            cwd=ROOT,
            env={**os.environ, **self._environment},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,  # what loading says, a fork doesn't say again
        )

    def _why(self) -> str:
        if self._said is None:
            return "another worker started it"
        self._said.seek(0)
        return self._said.read()[-2000:]

    def close(self) -> None:
        """End the process, or leave it to the other workers."""
        if self._asked is not None:
            self._asked.close()
        if self._process is not None and self._said is not None:
            if self._alone:
                self._process.wait(60)
            self._said.close()
        self._asked = None


light, with_models = Loaded(LIGHT, shared=True), Loaded((*LIGHT, *MODELS), shared=True)
"""For all tests of a session; conftest.py ends them."""


def _number(file: IO[Any] | socket.socket | int) -> int:
    return file if isinstance(file, int) else file.fileno()


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    ours, nested = _pair()  # for what the forks themselves ask for
    running: dict[int, tuple[int, socket.socket]] = {}
    asking: list[socket.socket] = []  # one a worker
    while True:
        sockets = {one.fileno(): one for one in (listening, ours, *asking)}
        for ready in select.select([*sockets, *running], [], [])[0]:
            if ready in running:
                _tell(*running.pop(ready))
                os.close(ready)
                continue
            if ready == listening.fileno():
                asking.append(listening.accept()[0])
                continue
            message, files, *_ = socket.recv_fds(sockets[ready], _LONGEST, _FILES)
            if not message:
                sockets[ready].close()
                asking.remove(sockets[ready])
                if not asking:
                    return
                continue
            pid = os.fork()
            if pid == 0:
                told = (tell for _, tell in running.values())
                _begin(files, nested, [listening, ours, *asking, *told])
                os._exit(_work(json.loads(message)))
            tell = socket.socket(fileno=files.pop())
            for number in files:
                os.close(number)
            tell.send(str(pid).encode())
            running[os.pidfd_open(pid)] = pid, tell


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    return made


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    return pair


def _tell(pid: int, tell: socket.socket) -> None:
    """Reap a fork and tell how it ended."""
    _, status = os.waitpid(pid, 0)
    with tell, contextlib.suppress(OSError):  # nobody waits for it any more
        tell.send(str(os.waitstatus_to_exitcode(status)).encode())


def _begin(files: Sequence[int], nested: socket.socket, others: Sequence[socket.socket]) -> None:
    """Take a fork's own files, and let go of its parent's."""
    for number, file in enumerate(files[:-1]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    for other in others:
        other.close()
    here = Loaded(())
    here._asked = nested
    plain = subprocess.run

    def run(command: Any, **given: Any) -> Any:
        if command[:2] == [sys.executable, "-m"]:
            return run_module(here, command, **given)
        return plain(command, **given)

    subprocess.run = run  # type: ignore[assignment]


def run_module(loaded: Loaded, command: Sequence[str], **given: Any) -> Any:
    """Do as `subprocess.run` does for a module of ours: in a fork of the loaded process too."""
    with contextlib.ExitStack() as opened:
        asked, out, err = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        asked.write(given.get("input") or "")
        asked.seek(0)
        start = loaded.start(
            command[1:],
            stdin=asked,
            stdout=out,
            stderr=err,
            cwd=given.get("cwd"),
            environment=given.get("env"),
        )
        with start as fork:
            try:
                code = fork.wait(given.get("timeout"))
            except TimeoutError:
                raise subprocess.TimeoutExpired(command, given["timeout"]) from None
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def _work(what: dict[str, Any]) -> int:
    """Run a program as Python does, and return its exit code."""
    import atexit
    import threading

    os.environ.clear()
    os.environ.update(what["environment"])
    os.chdir(what["cwd"])
    sys.argv = what["argv"]
    code = 0
    try:
        _run(sys.argv[0])
    except SystemExit as ended:
        code = _code(ended.code)
    except BaseException:  # noqa: BLE001 - as Python does
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _run(program: str) -> None:
    module, _, function = program.partition(":")
    if program == "-c":
        _, code, *_ = sys.argv
        del sys.argv[1]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's
    elif program == "-m":
        del sys.argv[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the module is loaded already
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif function:
        getattr(importlib.import_module(module), function)()
    else:
        runpy.run_path(program, run_name="__main__")


def _code(given: object) -> int:
    if given is None or isinstance(given, int):
        return given or 0
    print(given, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
