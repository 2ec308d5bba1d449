"""The user interface of stages: progress and logs on stderr, results on stdout.

Stages are handed a `Ui` and know nothing of terminals. Where stderr is not a terminal, bars are a
line in 30 s, so that a log stays readable.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Self

from pipeline.workspace.bars import Bar, Log, logged, watched
from pipeline.workspace.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from pipeline.workspace.progress_file import ProgressFile

_LOG_WIDTH = 120  # columns, where stdout is a file or a pipe and has no width of its own


class Ui:
    """The terminal of one command: results go to stdout, everything else to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        """With `as_json`, tables are not shown: stdout belongs to one JSON value, or a notebook."""
        from pipeline.workspace.console import open_console

        self.as_json = as_json
        self.out: Console = open_console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
        self.err: Console = open_console(stderr=True)
        self._screen = Screen(self.err) if self.err.is_terminal else None
        self._log = Log(self._write)
        self._file: ProgressFile | None = None

    @contextmanager
    def stage(self, name: str, file: ProgressFile) -> Iterator[Self]:
        """Say that a stage goes on while the block runs, also between its bars.

        Gives the same, whose bars are told in the stage's file too.
        """
        told = copy(self)
        told._file = file  # noqa: SLF001 - its own
        bar = Bar(name)
        goes_on = partial(self._log.goes_on, name, bar.clock())
        with self._screen.showing(bar) if self._screen else watched([goes_on]):
            yield told

    @contextmanager
    def progress(
        self, label: str, total: int | None = None, unit: str = "", *, brief: bool = False
    ) -> Iterator[Bar]:
        """Show a bar named `label` over `total` of a `unit` while the block runs.

        A `brief` one, which seldom takes long, doesn't say in a log that it begins.
        """
        bar = Bar(label, total, unit=unit)
        with ExitStack() as open_in:
            looks = [] if self._file is None else [open_in.enter_context(self._file.telling(bar))]
            if self._screen:
                open_in.enter_context(self._screen.showing(bar))
            else:
                looks.append(open_in.enter_context(logged(bar, self._log, brief=brief)))
            open_in.enter_context(watched(looks))
            yield bar

    def log(self, text: str) -> None:
        """Write one line to stderr."""
        self._log.say(text)

    def _write(self, text: str) -> None:
        self.err.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Show a result on stdout, unless the command answers in JSON."""
        from rich.text import Text

        if self.as_json:
            return
        # Text that asks for it (CSV) is never broken into the lines of a terminal.
        whole = bool(getattr(renderable, "no_wrap", False))
        if whole and isinstance(renderable, Text) and not self.out.is_terminal:
            self.out.file.write(f"{renderable.plain}\n")  # data: a program gets it as it is
            return
        self.out.print(renderable, soft_wrap=whole, markup=False, emoji=False)
