"""A progress bar, and how it is told in a log: one line in 30 s, whatever is going on.

A bar only counts; who shows it looks at it now and then, so that counting costs nothing and a bar
that stands still is shown too.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.workspace.amounts import counted, pace
from pipeline.workspace.durations import in_time, time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOG_EVERY_S = 30.0
"""At most so often there is a line in a log about what is going on."""

_LOOK_EVERY_S = 1.0


class Bar:
    """What is done of how many, at which pace, and what is said beside it."""

    def __init__(
        self,
        label: str,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "",
    ) -> None:
        """Begin at nothing done of `total`, which may become known later.

        With a `unit` (rows, files, bytes), how many are done in a second is shown too.
        """
        self.label = label
        self.done = 0
        self.total = total
        self.unit = unit
        self.first = 0
        self.noted = ""
        self.clock = clock
        self._began = clock()
        self._is_told = False

    def begin(self, total: int, unit: str) -> None:
        """Begin to count now: what came before, such as a model that was read, is no pace."""
        self.done = self.first = 0
        self.total, self.unit = total, unit
        self._began, self._is_told = self.clock(), True

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
    def pace(self) -> str:
        """How much of its unit is done in a second; empty in the first one, and at the end."""
        new, seconds = self.done - self.first, self.seconds
        if not self.unit or new <= 0 or seconds < 1 or self.done == self.total:
            return ""
        return pace(new / seconds, self.unit)

    @property
    def seconds_left(self) -> float | None:
        """How long it will take to the end, at the pace so far; None where that can't be said."""
        return time_left(self.done, self.total, first=self.first, seconds=self.seconds)


class Log:
    """The lines of a log, when the last was written, and the bars that are open in it."""

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write with `write`."""
        self._write = write
        self._clock = clock
        self.last = clock()
        self.has_begun = False
        self.open: list[LogLines] = []

    def say(self, text: str) -> None:
        """Write a line."""
        self.last = self._clock()
        self._write(text)

    @property
    def is_due(self) -> bool:
        """Whether nothing was said for 30 s."""
        return self._clock() - self.last >= LOG_EVERY_S

    def goes_on(self, stage: str, began: float) -> None:
        """Say of a stage that it goes on, where no bar says so and nothing was said for 30 s."""
        if not self.open and self.is_due:
            self.say(f"{stage}: {in_time(self._clock() - began)} so far")


class LogLines:
    """A bar as lines of a log: what is done, of how many, the pace and the time left.

    There is one where nothing was said for 30 s, of the bar that was opened last. The first bar of
    all says that it begins, unless it is a brief one.
    """

    def __init__(self, bar: Bar, log: Log, *, brief: bool = False) -> None:
        """Say that it begins, where nothing has before."""
        self._bar = bar
        self._log = log
        self._began = bar.clock()
        log.open.append(self)
        if not brief and not log.has_begun:
            log.has_begun = True
            log.say(f"{bar.label} …")

    def look(self) -> None:
        """Say how far it is, where it is time to."""
        if self._log.open[-1:] == [self] and self._log.is_due:
            self._log.say(f"{self._bar.label}: {self._far()}")

    def end(self) -> None:
        """Let the bar around it speak again."""
        self._log.open.remove(self)

    def _far(self) -> str:
        bar, left = self._bar, self._bar.seconds_left
        far = counted(bar.done, bar.total, bar.unit)
        parts = [far if bar.total else f"{far} done"] if bar.done or bar.total else []
        parts += [one for one in (bar.noted, bar.pace) if one]
        parts.append(f"{in_time(bar.clock() - self._began)} so far")
        parts += [] if left is None else [f"about {in_time(left)} left"]
        return ", ".join(parts)


@contextmanager
def logged(bar: Bar, log: Log, *, brief: bool = False) -> Iterator[Callable[[], None]]:
    """Tell a bar in a log while the body runs; gives what is to be called now and then."""
    lines = LogLines(bar, log, brief=brief)
    try:
        yield lines.look
    finally:
        lines.end()


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
