"""Bars in a log: a first line, and then one in 30 s for all of them; by a clock of its own."""

from __future__ import annotations

import pytest

from pipeline.workspace.bars import Bar, Log, LogLines, logged
from pipeline.workspace.durations import time_left


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def log_of(bar: Bar) -> tuple[LogLines, list[str]]:
    said: list[str] = []
    return LogLines(bar, Log(said.append, bar.clock)), said


def test_a_line_in_30_seconds(clock: Clock) -> None:
    bar = Bar("train · nano", clock=clock)
    lines, said = log_of(bar)
    for step in range(1, 101):
        clock.now += 1
        bar.update(step, 100)
        bar.note(f"loss {step / 100:.2f}")
        lines.look()
        lines.look()  # however often
    lines.end()
    assert said == [
        "train · nano …",
        # the pace is that since the first step was seen, a second after the beginning
        "train · nano: 30 of 100, loss 0.30, 30.0 s so far, about 1.2 min left",
        "train · nano: 60 of 100, loss 0.60, 1.0 min so far, about 40.0 s left",
        "train · nano: 90 of 100, loss 0.90, 1.5 min so far, about 10.0 s left",
    ]


def test_many_short_ones_are_a_line_in_30_seconds(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    for number in range(1, 71):
        bar = Bar(f"item {number}", total=2, clock=clock)
        with logged(bar, log) as look:
            clock.now += 1
            bar.advance()
            look()
    assert said == [
        "item 1 …",
        "item 30: 1 of 2, 1.0 s so far, about 1.0 s left",
        "item 60: 1 of 2, 1.0 s so far, about 1.0 s left",
    ]


@pytest.mark.parametrize(
    ("unit", "done", "said"),
    [
        ("rows", 1200, "1,200 of 3,600 rows, 40 rows/s, 30.0 s so far, about 1.0 min left"),
        ("files", 6, "6 of 3,600 files, 0.2 files/s, 30.0 s so far"),
        ("bytes", 1200, "1.2 kB of 3.6 kB, 40 B/s, 30.0 s so far, about 1.0 min left"),
        ("", 1200, "1,200 of 3,600, 30.0 s so far, about 1.0 min left"),
    ],
)
def test_what_has_a_unit_has_a_pace(clock: Clock, unit: str, done: int, said: str) -> None:
    bar = Bar("export", 3600, clock, unit)
    lines, told = log_of(bar)
    assert bar.pace == ""
    clock.now += 30
    bar.advance(done)
    lines.look()
    assert told == ["export …", f"export: {said}"]


def test_what_stands_still_is_said_too(clock: Clock) -> None:
    bar = Bar("export", clock=clock)
    lines, said = log_of(bar)
    clock.now += 31
    lines.look()
    bar.advance(1200)
    clock.now += 31
    lines.look()
    assert said[1:] == [
        "export: 31.0 s so far",
        "export: 1,200 done, 1.0 min so far",
    ]


def test_answers_that_were_found_are_no_pace(clock: Clock) -> None:
    bar = Bar("items", total=10, clock=clock)
    clock.now += 50  # a model is loaded
    bar.update(900, 1000)  # from a journal
    assert bar.seconds_left is None
    clock.now += 10
    bar.update(910, 1000)
    assert bar.seconds_left == pytest.approx(90)
    bar.update(0, 500)  # another count: of the next requests
    assert bar.seconds_left is None
    clock.now += 10
    bar.update(100, 500)
    assert bar.seconds_left == pytest.approx(40)


def test_steps_that_are_counted_from_nothing_have_a_pace_at_once(clock: Clock) -> None:
    bar = Bar("erase", total=4, clock=clock)
    clock.now += 3
    bar.advance()
    assert bar.seconds_left == pytest.approx(9)


def test_what_came_before_the_beginning_is_no_pace(clock: Clock) -> None:
    bar = Bar("export", clock=clock)
    clock.now += 8  # a model is read
    bar.begin(100, "tensors")
    clock.now += 5
    bar.advance(50)
    assert (bar.seconds_left, bar.pace) == (5, "10 tensors/s")
    bar.advance(50)
    clock.now += 60  # it is read back
    assert (bar.seconds_left, bar.pace) == (None, "")


@pytest.mark.parametrize(
    ("done", "total", "first", "seconds"),
    [
        (5, None, 0, 9),
        (5, 9, 5, 9),
        (5, 9, 0, 0.5),
        (9, 9, 0, 9),
        (2, 1000, 0, 30),
        (19, 9999, 0, 9),
    ],
)
def test_no_time_is_made_up(done: int, total: int | None, first: int, seconds: float) -> None:
    assert time_left(done, total, first=first, seconds=seconds) is None


def test_a_stage_goes_on_between_its_bars(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    began = clock()
    clock.now += 29
    log.goes_on("select", began)
    assert said == []
    clock.now += 1
    log.goes_on("select", began)
    log.goes_on("gap", began)  # the stage around it: one line is enough
    assert said == ["select: 30.0 s so far"]
    with logged(Bar("drawn", clock=clock), log) as look:
        clock.now += 31
        log.goes_on("select", began)
        look()
    assert said[1:] == ["drawn …", "drawn: 31.0 s so far"]


def test_a_brief_one_is_said_where_it_takes_long(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    with logged(Bar("gc", clock=clock), log, brief=True) as look:
        clock.now += 29
        look()
    assert said == []
    bar = Bar("look ahead", total=3, clock=clock)
    with logged(bar, log, brief=True) as look:
        clock.now += 31
        bar.advance()
        look()
    assert said == ["look ahead: 1 of 3, 31.0 s so far, about 1.0 min left"]


def test_the_bar_that_was_opened_last_speaks(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    with logged(Bar("select", clock=clock), log, brief=True) as outer:
        with logged(Bar("losses", clock=clock), log) as inner:
            for _ in range(70):
                clock.now += 1
                outer()
                inner()
        assert said == ["losses …", "losses: 30.0 s so far", "losses: 1.0 min so far"]
        clock.now += 20
        outer()
    assert said[3:] == ["select: 1.5 min so far"]


def test_a_bar_that_fails_lets_others_speak(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    with pytest.raises(ValueError), logged(Bar("drawn", clock=clock), log):  # noqa: PT011 - ours
        raise ValueError
    assert (said, log.open) == (["drawn …"], [])
