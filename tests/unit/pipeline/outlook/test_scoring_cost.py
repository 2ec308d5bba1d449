"""Tokens that prompts share go through a model once; what scoring takes, by its rates."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, cast

import pytest
import torch

from pipeline.outlook.prompts import shared
from pipeline.outlook.training import BaseOutline, LearntRates
from pipeline.training.machine import rates as machine
from pipeline.training.machine.rates import Rates


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ([[1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3]], 2),
        ([[1, *range(50)], [1, *range(100, 150)]], 0),  # one of 51 is not worth it
        ([[1, 2, 3]], 0),
        ([[], []], 0),  # texts, asked by themselves
        ([], 0),
    ],
)
def test_what_all_prompts_begin_with(asked: list[list[int]], same: int) -> None:
    assert shared(asked) == same


def outline(parameters: int) -> BaseOutline:
    identity = type("Identity", (), {"parameters": parameters})
    loaded = type("Loaded", (), {"identity": identity})
    return BaseOutline(cast("Any", loaded), 0, 0, Rates(operations=1e9, numbers=1e9))


def test_scoring_takes_its_operations_and_those_of_a_lora() -> None:
    base, none = outline(1_000_000), LearntRates(None, None)
    alone = base.scoring_seconds(1000, none)
    assert alone == pytest.approx(2e6 * 1000 / (0.55 * 1e9))
    on = base.scoring_seconds(1000, none, lora=1000 * 30_000)
    assert on - alone == pytest.approx(2 * 30e6 / (0.06 * 1e9))
    assert base.scoring_seconds(1000, none, plain=1000) == pytest.approx(alone * 0.55 / 0.8)


def test_a_rate_of_earlier_runs_goes_first() -> None:
    learnt = LearntRates(500.0, None)
    assert outline(1_000_000).scoring_seconds(1000, learnt) == 2.0
    assert outline(1).scoring_seconds(1000, learnt, plain=400) == pytest.approx(1.2 + 0.55)


def test_other_processes_slow_no_rate_down() -> None:
    """Beside a process for each processor and two more, a rate is what it is without them."""
    cpu = torch.device("cpu")

    def rate() -> float:
        return machine.measured_rates(192, 512, torch.float32, cpu).operations

    alone, threads = rate(), torch.get_num_threads()
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 + (os.cpu_count() or 1))
    ]
    try:
        beside = rate()
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert torch.get_num_threads() == threads
    assert alone / 3 < beside < 3 * alone
