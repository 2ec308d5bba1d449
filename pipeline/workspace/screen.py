"""Bars on a terminal, one below the other: a stage, and what it is at."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipeline.workspace.amounts import counted
from pipeline.workspace.durations import in_time
from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from pipeline.workspace.bars import Bar


class Screen:
    """The bars that are open; rich draws all of a terminal's together, ten times a second."""

    def __init__(self, console: Console) -> None:
        """Nothing is drawn before the first bar."""
        self._console = console
        self._bars: dict[TaskID, Bar] = {}
        self._drawn: Progress | None = None

    @contextmanager
    def showing(self, bar: Bar) -> Iterator[None]:
        """Show a bar while the body runs, below those that are open."""
        drawn = self._drawn or _drawing(self._bars, self._console)
        task = drawn.add_task(inert(bar.label), total=bar.total, **_fields(bar))
        self._bars[task] = bar
        if self._drawn is None:
            self._drawn = drawn
            drawn.start()
        try:
            yield
        finally:
            del self._bars[task]
            drawn.remove_task(task)
            if not self._bars:
                self._drawn = None
                drawn.stop()


def _drawing(bars: dict[TaskID, Bar], console: Console) -> Progress:
    from rich import progress as rich
    from rich.text import Text

    class Drawing(rich.Progress):
        """Takes the counts over before they are drawn."""

        def get_renderables(self) -> Iterable[RenderableType]:
            with self._lock:  # a bar that ends waits
                for task, bar in list(bars.items()):
                    self.update(task, completed=bar.done, total=bar.total, **_fields(bar))
                return list(super().get_renderables())

    class Elapsed(rich.ProgressColumn):
        """The time since the beginning, also where all is counted and something else goes on."""

        def render(self, task: rich.Task) -> Text:
            return Text(str(timedelta(seconds=int(task.elapsed or 0))), "progress.elapsed")

    return Drawing(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[count]}", markup=False),
        Elapsed(),
        rich.TextColumn("{task.fields[said]}", markup=False),
        console=console,
        transient=True,
    )


def _fields(bar: Bar) -> dict[str, Any]:
    left = bar.seconds_left
    parts = ("" if left is None else f"{in_time(left)} left", bar.pace, bar.noted)
    return {
        "count": counted(bar.done, bar.total, bar.unit) if bar.done or bar.total else "",
        "said": inert(" · ".join(part for part in parts if part)),
    }
