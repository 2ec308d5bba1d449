"""What came from elsewhere does nothing on a terminal: everything that is printed is inert."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.verb import Answer, answer, json_line, run_app
from pipeline.workspace.inert import inert
from pipeline.workspace.ui import Ui
from registry.errors import DataError

ACTING = "\x1b[2J\x1b]0;title\x07 \u202etxt.exe\u202c \x9b31m \x7f \r \u2028 \u200f"


def acts(text: str) -> bool:
    return text != inert(text)


def test_what_would_act_is_shown() -> None:
    assert inert("a\x1b[31mb\u202ec") == r"a\u001b[31mb\u202ec"
    assert inert("née, 日本語, 😀\tand\n") == "née, 日本語, 😀\tand\n"


def test_json_stays_the_same_value() -> None:
    line = json_line({"text": ACTING, ACTING: 1.5})
    assert not acts(line)
    assert json.loads(line) == {"text": ACTING, ACTING: 1.5}


def table(ui: Ui) -> None:
    shown = Table(f"column {ACTING}")
    shown.add_row(Text(ACTING, style="bold"))
    ui.show(shown)


def bar(ui: Ui) -> None:
    with ui.progress(f"ingest {ACTING}", total=2) as progress:
        progress.note(ACTING)
        progress.advance()
        ui.log(ACTING)


def line(ui: Ui) -> None:
    ui.show(ACTING)


def message(ui: Ui) -> None:
    ui.log(ACTING)


@pytest.mark.parametrize("act", [table, bar, line, message])
def test_nothing_acts_that_is_shown(
    capsys: pytest.CaptureFixture[str], act: Callable[[Ui], None]
) -> None:
    act(Ui())
    out, err = capsys.readouterr()
    assert "txt.exe" in out + err
    assert not acts(out + err)


def test_on_a_terminal_rich_s_own_sequences_are_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    ui = Ui()
    table(ui)
    bar(ui)
    out, err = capsys.readouterr()
    assert "\x1b[1m" in out  # bold
    for text in (out, err):
        assert r"\u202etxt.exe" in text
        assert not any(part in text for part in ("\x1b[2J", "\x1b]0;", "\u202e", "\x9b"))


def test_csv_in_a_pipe_is_the_data_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Ui().show(Text("a\n\u202eb", no_wrap=True))
    assert capsys.readouterr().out == "a\n\u202eb\n"


def refused(_: Ui) -> Answer:
    raise DataError(f"the row says {ACTING}", where=f"{ACTING}.csv")


def broken(_: Ui) -> Answer:
    raise RuntimeError(ACTING)


@pytest.mark.parametrize("work", [refused, broken])
def test_errors_are_inert(capsys: pytest.CaptureFixture[str], work: Callable[[Ui], Answer]) -> None:
    with pytest.raises(typer.Exit):
        answer(work, as_json=True)
    out, err = capsys.readouterr()
    assert "txt.exe" in err
    assert not acts(out + err)


def test_a_wrong_call_is_inert(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli.main import app

    monkeypatch.setattr(sys, "argv", ["gapmend", "status", ACTING])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert "unexpected extra argument" in err
    assert not acts(out + err)
