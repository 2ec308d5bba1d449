"""Rich's console, on which nothing acts but what rich itself writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderHook
from rich.segment import Segment

from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import ConsoleOptions, ConsoleRenderable


class _Inert:
    """A renderable whose text is inert; its styles are rich's own."""

    def __init__(self, shown: ConsoleRenderable) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for part in console.render(self._shown, options):
            yield part if part.control else Segment(inert(part.text), part.style)


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Inert(one) for one in renderables]


def open_console(**settings: Any) -> Console:
    """Return a console whose text is inert; `settings` are those of rich's."""
    console = Console(**settings)
    console.push_render_hook(_Hook())
    return console
