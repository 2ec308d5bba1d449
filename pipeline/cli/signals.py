"""Ctrl-C and SIGTERM: one line, and exit code 130 or 143, whatever the process is doing.

The first one ends the work in order, as an exception; a second one, or one that comes where no
Python runs for some seconds, ends the process at once. Nothing acknowledged is lost by either.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from registry.errors import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_LINE = "stopped; the next call goes on from here"
_CAUGHT = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 5.0  # a library's call that looks at no signal may take a while
_FROM = 128  # a shell's exit code for a process that a signal ended, less the signal's number


@dataclass
class _Call:
    """One call of the command line: which signal has come, and whether its line was written."""

    number: int | None = None
    is_told: bool = False
    is_over: bool = False
    is_asking: bool = False


_call = _Call()


def has_come() -> bool:
    """Whether a signal has come: whatever fails then fails because of it."""
    return _call.number is not None


def record() -> ErrorRecord:
    """Return what is said of a process that was stopped; it counts as said."""
    _call.is_told = True
    return _record(_call.number or signal.SIGINT)


def is_told() -> bool:
    """Whether it was said."""
    return _call.is_told


@contextmanager
def caught() -> Iterator[None]:
    """Catch the signals while the body runs in the main thread; afterwards all is as it was."""
    global _call  # noqa: PLW0603 - a process has one handler of each signal
    call = _call = _Call()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, _stop) for number in _CAUGHT]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    awake = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, call), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(awake)
        for number, handler in zip(_CAUGHT, before, strict=True):
            signal.signal(number, handler)
        os.close(writing)  # the thread reads the end, and ends


@contextmanager
def left_to_others() -> Iterator[None]:
    """Leave the signals to what runs in the body: it handles them, and takes its time to end."""
    awake = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(awake)


@contextmanager
def answered() -> Iterator[None]:
    """Let each Ctrl-C be a KeyboardInterrupt that the body answers to, and that ends nothing."""
    _call.is_asking = True
    try:
        yield
    finally:
        _call.is_asking = False


def leave() -> None:
    """End the process after a signal, with the line unless it was written."""
    _leave(_call.number or signal.SIGINT, _call)


def stop_at_once() -> None:
    """Let a signal end the process at once from now on: nothing is left to end in order."""
    _call.is_over = True
    for number in _CAUGHT:
        signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    if _call.is_asking and number == signal.SIGINT:
        raise KeyboardInterrupt
    if _call.number is not None or _call.is_over:
        _leave(number, _call)
    _call.number = number
    raise KeyboardInterrupt


def _watch(reading: int, call: _Call) -> None:
    """End the process where a signal has come and no Python has run since, which would know."""
    with os.fdopen(reading, "rb", buffering=0) as file:
        while came := file.read(1):
            if came[0] in _CAUGHT:
                time.sleep(_PATIENCE_S)
                if call.number is None and not call.is_asking:
                    _leave(came[0], call)


def _leave(number: int, call: _Call) -> None:
    """End the process here and now, with the line unless it was written."""
    with suppress(OSError):  # whoever read it is gone
        if not call.is_told:
            os.write(2, f"gapmend: {_LINE}\n".encode())
            if "--json" in sys.argv[1:]:
                os.write(1, f"{json.dumps(asdict(_record(number)))}\n".encode())
    os._exit(_FROM + number)


def _record(number: int) -> ErrorRecord:
    return ErrorRecord("stopped", _LINE, exit_code=_FROM + number)


def _let_go() -> None:
    """In a forked child signals mean what they mean to any process."""
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_let_go)
