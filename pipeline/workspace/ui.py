"""The user interface of stages: progress and logs on stderr, results on stdout.

Stages are handed a `Ui` and know nothing of terminals. Where stderr is not a terminal, a bar
becomes two lines, one at its start and one at its end, so that a log stays readable.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID


_LOG_WIDTH = 120  # columns, where stdout is a file or a pipe and has no width of its own


class Bar:
    """One running progress bar."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        """Wrap rich's task; both are None where there is no terminal."""
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more as done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, steps)

    def update(self, done: int, total: int) -> None:
        """Set what is done of what there is in all."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Show `text` beside the bar: the loss, the tokens per second."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, note=inert(text))


class Ui:
    """The terminal of one command: results go to stdout, everything else to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        """With `as_json`, tables are not shown: stdout belongs to one JSON value, or a notebook."""
        from pipeline.workspace.console import open_console

        self.as_json = as_json
        self.out: Console = open_console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
        self.err: Console = open_console(stderr=True)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """Show a bar named `label` over `total` steps while the block runs."""
        if not self.err.is_terminal:
            began = time.monotonic()
            self.log(f"{label} …")
            yield Bar(None, None)
            self.log(f"{label}: {time.monotonic() - began:.1f} s")
            return
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[note]}", markup=False),
        )
        with bars.Progress(*columns, console=self.err, transient=True) as progress:
            yield Bar(progress, progress.add_task(inert(label), total=total, note=""))

    def log(self, text: str) -> None:
        """Write one line to stderr."""
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
