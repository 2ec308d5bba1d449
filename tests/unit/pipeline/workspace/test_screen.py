"""On a terminal a stage and what it is at are drawn together."""

from __future__ import annotations

import io
import re
from time import monotonic

import pytest
from rich.console import Console

from pipeline.workspace.bars import Bar
from pipeline.workspace.screen import Screen


def drawn(width: int = 100) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(Console(file=out, force_terminal=True, width=width, color_system=None)), out


def test_bars_in_bars_are_drawn_and_nothing_is_left() -> None:
    screen, out = drawn()
    with screen.showing(Bar("select")):
        for name in ("losses", "own answers"):
            bar = Bar(name, total=1200)
            with screen.showing(bar):
                bar.update(300, 1200)
                bar.note("so far")
                drawing = screen._drawn
                assert drawing is not None
                drawing.refresh()
    text = out.getvalue()
    for part in ("select", "losses", "own answers", "300 of 1,200", "so far"):
        assert part in text
    last = text.rpartition("\x1b[2K")[2]
    assert last.strip("\r\n") == "\x1b[?25h"  # transient: what was drawn is wiped


def test_the_time_goes_on_where_all_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out = drawn()
    bar = Bar("merge", total=2)
    with screen.showing(bar):
        drawing = screen._drawn
        assert drawing is not None
        bar.advance(2)
        drawing.refresh()
        monkeypatch.setattr(drawing.tasks[0], "get_time", lambda: monotonic() + 3600)
        drawing.refresh()
    assert re.search("1:0[0-9]:[0-9]{2}", out.getvalue())  # a machine may be busy


def test_one_that_fails_is_taken_away() -> None:
    screen, out = drawn()
    with pytest.raises(KeyError), screen.showing(Bar("gap")):
        raise KeyError
    with screen.showing(Bar("train")):
        drawing = screen._drawn
        assert drawing is not None
        assert [task.description for task in drawing.tasks] == ["train"]
    assert "gap" in out.getvalue()
