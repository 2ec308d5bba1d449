"""Processes forked from one that has torch, transformers and PEFT loaded.

A Python of its own takes some seconds of processor time to load them. Tests that need a process,
because they kill it or take its answer, but don't test how it starts, fork one here. The process
that they are forked from has done nothing else; each process of the tests starts its own once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

_LOADED = [
    *("peft", "lm_eval.tasks"),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("gpt2", "llama")),
    *("evals.engine.packed", "evals.scoring.evaluate", "pipeline.training.fit"),
    *("registry.intake.adapter_places", "registry.models.parity"),
]


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


def gapmend(*arguments: str | Path, cwd: Path) -> CompletedProcess[str]:
    """Call the command line in a process; what it printed is in the result."""
    given = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch, "out"), Path(scratch, "err")
        process = start(_gapmend, given, cwd, out, err)
        process.join()
        assert process.exitcode is not None
        return CompletedProcess(
            given, process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
        )


def _gapmend(arguments: list[str], cwd: Path, out: Path, err: Path) -> None:
    from pipeline.cli.main import main

    os.chdir(cwd)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["gapmend", *arguments]
    main()
