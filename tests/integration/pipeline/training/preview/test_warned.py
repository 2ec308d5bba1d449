"""What is warned of before a training, and how a dry run is printed."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.cli.verb import json_line
from pipeline.report.train_dry import MarkedRow, dry_run_tables
from pipeline.spec.train import TrainSpec
from pipeline.training.examples.encode import EncodedRow, RejectedRow, TrainingRow
from pipeline.training.examples.packing import Family, PackedBatch
from pipeline.training.machine.free_memory import FreeMemory
from pipeline.training.preview.dry_run import DryRun, Piece, ShownRow
from pipeline.training.preview.estimate import Estimate, Load, flattened, loads
from pipeline.training.preview.preflight import (
    budget_warnings,
    memory_warnings,
    rate_warnings,
    step_warnings,
    thought_warnings,
)
from registry.chat.form import AnswerForm
from registry.chat.settings import ChatSettings
from registry.errors import UserError

MB = 10**6


def spec(**given: Any) -> TrainSpec:
    return TrainSpec(base="b", **given)


ESTIMATE = Estimate(
    weights=100 * MB,
    copies=0,
    trained=10 * MB,
    activations=80 * MB,
    logits=10 * MB,
    least=20 * MB,
    trainable=655_360,
    tokens=12_345,
    trained_tokens=678,
    steps=9,
    seconds=123.4,
)


# ------------------------------------------------------------------------------- thoughts


def talk(*reasonings: str | None) -> TrainingRow:
    turns: list[dict[str, Any]] = []
    for reasoning in reasonings:
        said = {"role": "assistant", "content": "a"}
        turns += [
            {"role": "user", "content": "q"},
            said | ({"reasoning": reasoning} if reasoning else {}),
        ]
    return TrainingRow(1, tuple(turns), None, "c")


QWEN3 = AnswerForm("<think>\n\n</think>\n\n", "<|im_end|>", "</think>", "<think>")


@pytest.mark.parametrize(
    ("form", "thinking", "rows", "said"),
    [
        (QWEN3, "auto", [talk("r")], []),
        (QWEN3, "auto", [talk("r"), talk(None)], ["1 of 2 rows have no thought"]),
        (QWEN3, "on", [talk("r", "s")], ["1 rows have earlier thoughts"]),
        (QWEN3, "off", [talk("r"), talk(None)], ["1 rows have thoughts that are not trained"]),
        (QWEN3, "off", [talk(None)], []),
        (AnswerForm("", "</s>"), "auto", [talk(None)], []),
    ],
)
def test_what_is_said_of_thoughts(
    form: AnswerForm, thinking: Any, rows: list[TrainingRow], said: list[str]
) -> None:
    found = list(thought_warnings(form, ChatSettings(thinking=thinking), rows))
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))


# ------------------------------------------------------------------------------- rates and ranks


@pytest.mark.parametrize("method", ["lora", "dora", "lora+", "freeze", "full"])
def test_the_default_rate_is_a_usual_one_for_bases_of_billions(method: Any) -> None:
    for hidden in (896, 2048, 4096, 8192):
        assert not list(rate_warnings(spec(method=method), hidden))


def test_whole_weights_take_a_tenth_of_loras_rate() -> None:
    for hidden in (192, 4096):
        usual = spec().usual_rate(hidden)
        assert spec(method="full").usual_rate(hidden) == pytest.approx(usual / 10)
    # What the quickstart says for `nano`, 192 wide, is not far from it.
    assert spec().usual_rate(192) == pytest.approx(2e-3, rel=0.5)


def test_a_rate_that_is_left_out_is_that_of_the_base_s_width() -> None:
    assert spec().on_base(4096).rate == spec().on_base(None).rate == 4e-4
    assert spec().on_base(576).rate == pytest.approx(4e-4 * (2000 / 576) ** 0.781)
    assert spec(method="full").on_base(576).rate == pytest.approx(1.057e-4, rel=1e-2)
    assert spec(learning_rate=3e-4).on_base(64).rate == 3e-4


# ------------------------------------------------------------------------------------------ steps


def test_too_few_steps_say_what_to_change() -> None:
    def warnings(batches: int, **given: Any) -> list[str]:
        plan = [PackedBatch((row,), 0) for row in range(batches)]
        return list(step_warnings(plan, spec(**given)))

    assert not warnings(60)
    assert not warnings(20, min_steps=20)
    (line,) = warnings(20)
    assert "20 steps are below train.min_steps (60)" in line
    assert "raise train.epochs (2) to 6 or choose more rows" in line
    (line,) = warnings(2)
    assert "little may be learnt; choose more rows" in line
    (line,) = warnings(119, accumulation=2, min_steps=61, epochs=0.5)
    assert "60 steps" in line
    assert "raise train.epochs (0.5) to 0.51 or lower train.accumulation (2)" in line


@pytest.mark.parametrize(
    ("given", "hidden", "said"),
    [
        ({"learning_rate": 2e-2}, 4096, "0.02 is 50 times above what lora"),
        ({"learning_rate": 2e-6}, 4096, "2e-06 is 200 times below what lora"),
        ({"learning_rate": 1e-3, "method": "full"}, 4096, "25 times above what full"),
        ({"learning_rate": 2e-3}, 192, None),
        ({"learning_rate": 4e-3, "method": "full"}, 192, "times above what full"),
        ({"learning_rate": 2e-5}, 48, "times below what lora"),
    ],
)
def test_rates_far_from_the_usual(given: dict[str, Any], hidden: int, said: str | None) -> None:
    warnings = list(rate_warnings(spec(**given), hidden))
    assert len(warnings) == (said is not None)
    assert not said or said in warnings[0]


def row(length: int, trained: int, uid: int = 0) -> EncodedRow:
    ids = np.arange(length, dtype=np.int32)
    return EncodedRow(uid, ids, np.where(ids >= length - trained, ids, -100).astype(np.int32))


def test_rows_over_the_batch_budget() -> None:
    rows = [row(10, 2), row(65, 2), row(90, 2)]
    assert not list(budget_warnings(rows, spec(batch_tokens=90)))
    (warning,) = budget_warnings(rows, spec(batch_tokens=64))
    assert "(64): 2," in warning
    assert "90 tokens" in warning


def test_the_load_of_a_batch_counts_shared_tokens_once() -> None:
    rows = [row(10, 2), row(8, 3), row(5, 1)]
    alone = loads(rows, [PackedBatch((0, 1, 2), 0), PackedBatch((2,), 1)])
    assert alone == [Load(23, 55 + 36 + 15, 6), Load(5, 15, 1)]
    shared = loads(rows, [PackedBatch((0, 1, 2), 0)], [Family((0, 1), prefix=4)])
    assert shared == [Load(19, 55 + 36 + 15 - 10, 6)]


def test_a_plan_of_pairs_is_one_of_their_rows() -> None:
    rows = [row(4 + uid, 2, uid) for uid in range(5)]
    plan = [PackedBatch((2, 0), 0), PackedBatch((1,), 0)]
    flat, batches = flattened([rows[:2], rows[2:3], rows[3:]], plan)
    assert [one.uid for one in flat] == [0, 1, 2, 3, 4]
    assert batches == (PackedBatch((3, 4, 0, 1), 0), PackedBatch((2,), 0))


# ---------------------------------------------------------------------------------------- memory


def test_memory_is_compared_with_what_is_free() -> None:
    def warnings(free: int, *, raises: bool = False) -> list[str]:
        return list(memory_warnings(ESTIMATE, FreeMemory(free * MB, "x", raises), spec()))

    assert not warnings(101)
    (line,) = warnings(99)
    assert "add 100 MB to the base's 100 MB, and 99 MB are free of x" in line
    assert "lower train.batch_tokens (4096) or set train.activation_checkpointing" in line
    assert len(warnings(67)) == 1
    with pytest.raises(UserError, match=r"66 MB are free.*batch_tokens"):
        warnings(66)
    # Where memory that isn't there is an error, and no kill, the batch is halved until it fits.
    assert len(warnings(14, raises=True)) == 1
    with pytest.raises(UserError, match="13 MB are free"):
        warnings(13, raises=True)


@pytest.mark.parametrize(
    ("given", "fix"),
    [({"method": "full"}, "Train by lora"), ({"rank": 512}, r"Lower train.rank \(512\)")],
)
def test_what_to_do_names_what_takes_the_memory(given: dict[str, Any], fix: str) -> None:
    heavy = replace(ESTIMATE, trained=900 * MB)
    with pytest.raises(UserError, match=fix):
        list(memory_warnings(heavy, FreeMemory(MB, "x", raises=False), spec(**given)))


# --------------------------------------------------------------------------------------- dry run


def printed(*shown: Any, color: bool = False, **options: Any) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=100,
        force_terminal=color,
        color_system="truecolor" if color else None,
        _environ={},
        **options,
    )
    for one in shown:
        console.print(one)
    return out.getvalue()


PIECES = (Piece("<|user|>[red]hi\x1b[2J<|end|>", trained=False), Piece("a b<|end|>", trained=True))


def test_what_is_trained_is_in_colour() -> None:
    shown = printed(MarkedRow(PIECES), color=True)
    assert "\x1b[1;32ma b<|end|>\x1b[0m" in shown
    assert "«" not in shown


@pytest.mark.parametrize("options", [{}, {"color": True, "no_color": True}], ids=["file", "wish"])
def test_without_colour_it_stands_in_guillemets(options: dict[str, Any]) -> None:
    shown = printed(MarkedRow(PIECES), **options)
    assert "«a b<|end|>»" in shown
    assert shown.startswith("<|user|>[red]hi\N{REPLACEMENT CHARACTER}[2J")  # and does nothing


def test_the_middle_of_a_long_piece_is_left_out() -> None:
    shown = printed(MarkedRow((Piece("a" * 1000 + "bc", trained=True),)))
    shown = shown.replace("\n", "")
    assert "[… 402 characters …]" in shown
    assert shown.startswith("«" + "a" * 300 + " ")
    assert shown.endswith("a" * 298 + "bc»")


REPORT = DryRun(
    base="tiny",
    method="lora",
    rows=3,
    rejects=tuple(RejectedRow(uid, "tiny", "an answer is empty") for uid in range(5)),
    batches=18,
    shown=(ShownRow("shortest", 7, 12, 4, PIECES),),
    estimate=ESTIMATE,
    free=FreeMemory(8_000_000_000, "GPU memory", raises=True),
    warnings=("train.rank 512 is much",),
)


def test_a_dry_run_is_printed_with_its_facts() -> None:
    shown = printed(*dry_run_tables(REPORT))
    for said in (
        "shortest row (7): 12 tokens, 4 trained",
        "«a b<|end|>»",
        "3 (5 rejected)",
        "12,345 (678 trained)",
        "18, 9",
        "8.0 GB of GPU memory",
        "about 2.1 min",
        "row 2 is left out: an answer is empty",
        "and 2 more rows are left out",
        "warning: train.rank 512 is much",
    ):
        assert said in shown
    assert "row 3 is left out" not in shown


def test_a_dry_run_as_json() -> None:
    value = json.loads(json_line(REPORT))
    assert value["shown"][0]["pieces"][1] == {"text": "a b<|end|>", "trained": True}
    assert value["estimate"]["growth"] == 100 * MB
    assert value["free"]["bytes"] == 8_000_000_000
    assert json.loads(json_line(replace(REPORT, free=None)))["free"] is None
