"""A bar in a log: a first line, a last one, and between them one in 30 s; by a clock of its own."""

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
    lines.end(done=True)
    assert said == [
        "train · nano …",
        # the pace is that since the first step was seen, a second after the beginning
        "train · nano: 30 of 100, loss 0.30, 30.0 s so far, about 1.2 min left",
        "train · nano: 60 of 100, loss 0.60, 1.0 min so far, about 40.0 s left",
        "train · nano: 90 of 100, loss 0.90, 1.5 min so far, about 10.0 s left",
        "train · nano: 100.0 s",
    ]


def test_a_short_one_is_two_lines(clock: Clock) -> None:
    lines, said = log_of(Bar("ingest · x", clock=clock))
    clock.now += 29
    lines.look()
    lines.end(done=True)
    assert said == ["ingest · x …", "ingest · x: 29.0 s"]


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
    assert said[1:] == ["drawn …", "drawn: 31.0 s so far", "drawn: 31.0 s"]


def test_a_brief_one_is_said_where_it_takes_long(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    for seconds in (29, 31):
        bar = Bar("look ahead", total=3, clock=clock)
        with logged(bar, log, brief=True) as look:
            clock.now += seconds
            bar.advance()
            look()
    assert said == [
        "look ahead: 1 of 3, 31.0 s so far, about 1.0 min left",
        "look ahead: 31.0 s",
    ]


def test_a_brief_one_is_silent_while_another_is_said(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    with logged(Bar("select", clock=clock), log, brief=True) as outer:
        with logged(Bar("losses", clock=clock), log) as inner:
            for _ in range(70):
                clock.now += 1
                inner()
                outer()
        assert said[1:3] == ["losses: 30.0 s so far", "losses: 1.0 min so far"]
        clock.now += 30
        outer()
    assert said[3:] == ["losses: 70.0 s", "select: 1.7 min so far", "select: 100.0 s"]


def test_a_bar_that_fails_is_not_said_to_be_done(clock: Clock) -> None:
    said: list[str] = []
    log = Log(said.append, clock)
    with pytest.raises(ValueError), logged(Bar("drawn", clock=clock), log):  # noqa: PT011 - ours
        raise ValueError
    assert (said, log.open) == (["drawn …"], 0)
