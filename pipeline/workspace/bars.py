"""A progress bar, and how it is told in the lines of a log.

A bar only counts; who shows it looks at it now and then, so that counting costs nothing and a bar
that stands still is shown too.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.workspace.durations import in_time, time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


class Log:
    """The lines of a log, when the last was written, and how many bars are open in it."""

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write with `write`."""
        self._write = write
        self._clock = clock
        self.last = clock()
        self.open = 0

    def say(self, text: str) -> None:
        """Write a line."""
        self.last = self._clock()
        self._write(text)

    def goes_on(self, stage: str, began: float) -> None:
        """Say of a stage that it goes on, where no bar says so and nothing was said for 30 s."""
        now = self._clock()
        if not self.open and now - self.last >= LOG_EVERY_S:
            self.say(f"{stage}: {in_time(now - began)} so far")


class LogLines:
    """A bar as lines of a log: one at its beginning, one at its end, and between them one in 30 s.

    It has what is done, of how many, and the time left. A brief one has the lines between alone,
    where nothing else was said for 30 s, and the last one where it had any.
    """

    def __init__(self, bar: Bar, log: Log, *, brief: bool = False) -> None:
        """Say that it begins."""
        self._bar = bar
        self._log = log
        self._brief = brief
        self._is_told = not brief
        self._began = self._last = bar.clock()
        log.open += 1
        if not brief:
            log.say(f"{bar.label} …")

    def look(self) -> None:
        """Say how far it is, where it is time to."""
        now = self._bar.clock()
        if now - (max(self._last, self._log.last) if self._brief else self._last) < LOG_EVERY_S:
            return
        self._last = now
        self._is_told = True
        self._log.say(f"{self._bar.label}: {self._far(now)}")

    def end(self, *, done: bool) -> None:
        """Say how long it took, if it is done."""
        self._log.open -= 1
        if done and self._is_told:
            self._log.say(f"{self._bar.label}: {self._bar.clock() - self._began:.1f} s")

    def _far(self, now: float) -> str:
        bar, left = self._bar, self._bar.seconds_left
        parts = [f"{bar.done:,} of {bar.total:,}"] if bar.total else []
        parts += [f"{bar.done:,} done"] if bar.done and not bar.total else []
        parts += [bar.noted] if bar.noted else []
        parts.append(f"{in_time(now - self._began)} so far")
        parts += [] if left is None else [f"about {in_time(left)} left"]
        return ", ".join(parts)


@contextmanager
def logged(bar: Bar, log: Log, *, brief: bool = False) -> Iterator[Callable[[], None]]:
    """Tell a bar in a log while the body runs; gives what is to be called now and then."""
    lines, done = LogLines(bar, log, brief=brief), False
    try:
        yield lines.look
        done = True
    finally:
        lines.end(done=done)


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
