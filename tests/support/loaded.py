"""Processes forked from one that has torch, transformers and PEFT loaded.

A Python of its own takes some seconds of processor time to load them. Tests that need a process,
because they kill it or take its answer, but don't test how it starts, fork one here. The process
that they are forked from has done nothing else; each process of the tests starts its own once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

# Those of our modules that run in a process of their own and load the libraries there.
_MODULES = [
    *("registry.intake.adapter_places", "registry.intake.template"),
    *("registry.gguf.readback", "registry.models.parity"),
]
_LOADED = [
    *("tests.support.quiet_bitsandbytes", "peft", "lm_eval.tasks", *_MODULES),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("gpt2", "llama")),
    *("evals.engine.packed", "evals.scoring.evaluate", "pipeline.training.fit"),
]


RUN = subprocess.run
"""What starts a Python of its own, whatever is patched."""


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    return context


def start(function: Callable[..., object], *given: object) -> ForkServerProcess:
    """Call a module's function in a process; `kill` it, or `join` and look at its `exitcode`."""
    process = _context().Process(target=function, args=given)
    process.start()
    return process


def answer(function: Callable[..., Any], *given: object) -> Any:
    """Call a module's function in a process, in an empty folder, and return what it returns.

    Raises:
        EOFError: it raised; its traceback is on stderr.
    """
    context = _context()
    answers, ours = context.Pipe(duplex=False)
    process = start(_answer, ours, function, given)
    ours.close()
    found = answers.recv()
    process.join()
    return found


def _answer(connection: Any, function: Callable[..., Any], given: tuple[object, ...]) -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        connection.send(function(*given))


@contextlib.contextmanager
def forked_modules() -> Iterator[None]:
    """Let `python -m MODULE …` of these modules fork a process; all around it stays as it is."""

    def run(command: Sequence[str], **options: Any) -> CompletedProcess[Any]:
        python, flag, module = [*command, "", "", ""][:3]
        if (python, flag) == (sys.executable, "-m") and module in _MODULES:
            return _run(_module, list(command[2:]), **options)
        return RUN(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        yield


def gapmend(*arguments: str | Path, cwd: Path) -> CompletedProcess[str]:
    """Call the command line in a process; what it printed is in the result."""
    return _run(_gapmend, [str(argument) for argument in arguments], cwd=cwd)


def _run(
    function: Callable[[list[str]], None],
    arguments: list[str],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",  # noqa: A002 - as subprocess calls it
    timeout: float | None = None,
    **_always: bool,  # check=False, capture_output, text: it is all done so
) -> CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as scratch:
        said, out, err = (Path(scratch, name) for name in ("in", "out", "err"))
        said.write_text(input, "utf-8")
        process = start(_redirected, function, arguments, cwd or Path.cwd(), env, (said, out, err))
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout or 0)
        texts = (path.read_text("utf-8") for path in (out, err))
        return CompletedProcess(arguments, process.exitcode, *texts)


def _redirected(
    function: Callable[[list[str]], None],
    arguments: list[str],
    cwd: Path | str,
    env: Mapping[str, str] | None,
    paths: Sequence[Path],
) -> None:
    for stream, path in enumerate(paths):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - to the process's end
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    os.chdir(cwd)
    function(arguments)


def _module(arguments: list[str]) -> None:
    module, *sys.argv[1:] = arguments
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _gapmend(arguments: list[str]) -> None:
    from pipeline.cli.main import main

    sys.argv = ["gapmend", *arguments]
    main()
