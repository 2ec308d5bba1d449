"""A progress bar and where it is shown: a terminal, the lines of a log, the file of a stage.

A bar only counts; who shows it looks at it now and then, so that counting costs nothing and a bar
that stands still is shown too.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.workspace.durations import in_time, time_left
from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console, RenderableType

LOG_EVERY_S = 30.0
"""At most so often a bar is a line in a log."""

_LOOK_EVERY_S = 1.0


class Bar:
    """What is done of how many, at which pace, and what is said beside it."""

    def __init__(
        self, label: str, total: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin at nothing done of `total`, which may become known later."""
        self.label = label
        self.done = 0
        self.total = total
        self.first = 0
        self.noted = ""
        self.clock = clock
        self._began = clock()
        self._is_told = False

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more as done."""
        self.done += steps
        self._is_told = True

    def update(self, done: int, total: int) -> None:
        """Set what is done of what there is in all.

        The pace is that since the first call: loading a model before it, and answers that were
        found in a journal, say nothing about it. Less than before is another count.
        """
        if not self._is_told or done < self.done:
            self._began, self.first = self.clock(), done
        self.done, self.total = done, total
        self._is_told = True

    def note(self, text: str) -> None:
        """Show `text` beside the bar: the loss, the tokens per second."""
        self.noted = text

    @property
    def seconds(self) -> float:
        """How long it has been counting."""
        return self.clock() - self._began

    @property
    def seconds_left(self) -> float | None:
        """How long it will take to the end, at the pace so far; None where that can't be said."""
        return time_left(self.done, self.total, first=self.first, seconds=self.seconds)


class LogLines:
    """A bar as lines of a log: one at its beginning, one at its end, and between them one in 30 s.

    It has what is done, of how many, and the time left.
    """

    def __init__(self, bar: Bar, say: Callable[[str], None]) -> None:
        """Say that it begins."""
        self._bar = bar
        self._say = say
        self._began = self._last = bar.clock()
        say(f"{bar.label} …")

    def look(self) -> None:
        """Say how far it is, where it is time to."""
        now = self._bar.clock()
        if now - self._last < LOG_EVERY_S:
            return
        self._last = now
        self._say(f"{self._bar.label}: {self._far(now)}")

    def end(self) -> None:
        """Say how long it took."""
        self._say(f"{self._bar.label}: {self._bar.clock() - self._began:.1f} s")

    def _far(self, now: float) -> str:
        bar, left = self._bar, self._bar.seconds_left
        parts = [f"{bar.done:,} of {bar.total:,}"] if bar.total else []
        parts += [f"{bar.done:,} done"] if bar.done and not bar.total else []
        parts += [bar.noted] if bar.noted else []
        parts.append(f"{in_time(now - self._began)} so far")
        parts += [] if left is None else [f"about {in_time(left)} left"]
        return ", ".join(parts)


@contextmanager
def watched(looks: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Call each of these once a second while the body runs, whatever that is busy with."""
    if not looks:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            for look in looks:
                look()

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def on_terminal(bar: Bar, console: Console) -> Iterator[None]:
    """Show a bar on a terminal while the body runs; rich looks at it ten times a second."""
    from rich import progress as rich

    class Looking(rich.Progress):
        """Takes the count over before it is drawn."""

        def get_renderables(self) -> Iterable[RenderableType]:
            for task in self.task_ids:
                self.update(task, completed=bar.done, total=bar.total, said=inert(_said(bar)))
            return super().get_renderables()

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[said]}", markup=False),
    )
    with Looking(*columns, console=console, transient=True) as progress:
        progress.add_task(inert(bar.label), total=bar.total, said="")
        yield


def _said(bar: Bar) -> str:
    left = bar.seconds_left
    parts = ("" if left is None else f"{in_time(left)} left", bar.noted)
    return " · ".join(part for part in parts if part)
