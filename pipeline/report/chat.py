"""A talk on a terminal: answers as they are written, one or two side by side."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

from pipeline.talk.reply import Failed
from pipeline.workspace.inert import inert
from registry.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from evals.engine.live.ask import Finish, Piece
    from pipeline.talk.reply import Reply, Said
    from pipeline.talk.talk import Talk

BESIDE = 90
"""Columns from which two answers stand side by side."""

_TAIL = 4_000  # characters of an answer that are shown while it is written
_MOST = 20_000  # of two that are set in columns at the end: beyond it takes seconds


def ask_shown(console: Console, talk: Talk, text: str) -> list[Said | Failed]:
    """Ask, and show the answers as they come; Ctrl-C ends them, and what was written stays.

    Raises:
        UserError: it can't be asked.
    """
    if len(talk.sides) > 1 and console.width >= BESIDE:
        return _beside(console, talk, text)
    found = []
    for reply in talk.ask(text):
        if len(talk.sides) > 1:
            console.print(f"{reply.side.who.name}:", style="bold", markup=False, highlight=False)
        found.append(_written(console, reply))
    return found


def _written(console: Console, reply: Reply) -> Said | Failed:
    """Write one answer as it comes; each character that would act is shown instead."""
    begun = False
    try:
        for text in reply:
            begun = True
            console.file.write(inert(text))
            console.file.flush()
    except KeyboardInterrupt:
        reply.stream.cancel()
    except UserError:  # `outcome` has it
        pass
    done = reply.outcome()
    if begun or not isinstance(done, Failed):
        console.file.write("\n")
    console.print(_note(done), highlight=False, soft_wrap=isinstance(done, Failed))
    return done


def _note(done: Said | Failed) -> Text:
    """Return what stands under an answer: what it took, or why there is none."""
    from rich.text import Text

    if isinstance(done, Failed):
        return Text(inert(f"gapmend: {done.error}"), style="red")
    return Text(done.took, style="dim")


def _beside(console: Console, talk: Talk, text: str) -> list[Said | Failed]:
    from rich.live import Live

    from evals.engine.live.ask import Finish

    events: SimpleQueue[tuple[int, Piece | Finish]] = SimpleQueue()
    replies = talk.ask(text, lambda place, event: events.put((place, event)))
    written = ["" for _ in replies]
    left = len(replies)
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        while left:
            try:
                place, event = events.get()
            except KeyboardInterrupt:
                for reply in replies:
                    reply.stream.cancel()
                continue
            if isinstance(event, Finish):
                left -= 1
            else:
                written[place] += event.text
                shown = [text[-_TAIL:] for text in written]
                live.update(_columns(talk, _last_lines(console, shown)))
    done = [reply.outcome() for reply in replies]
    if sum(map(len, written)) <= _MOST:
        console.print(_columns(talk, written, [_note(one) for one in done]))
        return done
    for one, whole in zip(done, written, strict=True):
        console.print(f"{one.model}:", style="bold", markup=False, highlight=False)
        console.file.write(inert(whole) + "\n")
        console.print(_note(one), highlight=False)
    return done


def _last_lines(console: Console, texts: list[str]) -> list[str]:
    """Return the ends of texts, no longer than the screen is high."""
    width, height = max(1, console.width // 2 - 2), max(1, console.height - 4)
    return ["\n".join(text[-width * height :].split("\n")[-height:]) for text in texts]


def _columns(talk: Talk, texts: list[str], notes: list[Text] | None = None) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_edge=False)
    for side in talk.sides:
        table.add_column(Text(side.who.name), ratio=1, overflow="fold")
    table.add_row(*(Text(text) for text in texts))
    if notes:
        table.add_row(*notes)
    return table
