"""Estimates are near what is measured, checks find what is wrong, and bad input loses nothing."""

from __future__ import annotations

import hashlib
import io
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline.report.train_dry import dry_run_tables
from pipeline.spec.spec import load_spec
from pipeline.spec.train import TrainSpec
from pipeline.training.examples.encode import EncodedRow, TrainingRow, encode_rows
from pipeline.training.examples.packing import PackedBatch, plan_batches
from pipeline.training.fit import FitResult, StepMetrics, fit
from pipeline.training.methods.lora import trainable
from pipeline.training.methods.methods import trained_weights
from pipeline.training.preview.dry_run import dry_run, pieces_of
from pipeline.training.preview.estimate import estimate
from pipeline.training.preview.preflight import (
    Preflight,
    preflight,
    round_trip_warnings,
    stop_warnings,
)
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

SPEC = TrainSpec(
    base="tiny", rank=4, learning_rate=5e-3, epochs=2, batch_tokens=128, min_steps=1, seed=5
)
WORDS = ["the", "film", "was", "good", "dull", "but", "warm", "as", "a", "card", "lazy", "dog"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("llama")
    tiny_models.save(root, "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def conversations(count: int, *, words: int = 12) -> list[TrainingRow]:
    rng = random.Random(1)
    return [
        TrainingRow(
            uid=100 + uid,
            messages=(
                {"role": "user", "content": " ".join(rng.choices(WORDS, k=words + uid % 7))},
                {"role": "assistant", "content": " ".join(rng.choices(WORDS, k=words // 4))},
            ),
            tools=None,
            capability="sentiment",
        )
        for uid in range(count)
    ]


def planned(
    loaded: LoadedModel, rows: Sequence[TrainingRow], spec: TrainSpec
) -> tuple[tuple[EncodedRow, ...], tuple[PackedBatch, ...]]:
    encoded = encode_rows(loaded, rows, allow_rejects=0).rows
    lengths = [row.tokens for row in encoded]
    plan = plan_batches(lengths, epochs=spec.epochs, seed=spec.seed, budget=spec.batch_tokens)
    return encoded, plan


def checked(loaded: LoadedModel, rows: Sequence[TrainingRow], spec: TrainSpec) -> Preflight:
    encoded, plan = planned(loaded, rows, spec)
    return preflight(loaded, rows, encoded, plan, spec)


# ------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("method", ["lora", pytest.param("dora", marks=pytest.mark.soak), "full"])
def test_memory_and_time_are_near_the_measured(
    nano: LoadedModel, tmp_path: Path, method: Any
) -> None:
    spec = TrainSpec(
        base="nano", method=method, epochs=1, batch_tokens=1536, batch_rows=99, min_steps=1
    )
    rows = conversations(48, words=70)
    encoded, plan = planned(nano, rows, spec)
    assert len(plan) > 2
    fit(nano, rows[:2], spec, tmp_path / "first")  # what is imported once isn't training's
    clock: list[float] = []

    def tick(_step: StepMetrics) -> None:
        clock.append(time.process_time())

    result = fit(nano, rows, spec, tmp_path / "run", on_step=tick)
    expected = estimate(nano, encoded, plan, spec)
    assert expected.trainable == result.trainable
    assert expected.steps == result.steps
    assert expected.tokens == result.tokens
    assert expected.trained_tokens == result.trained_tokens
    assert 1 / 2 < expected.growth / (result.memory - expected.weights) < 2
    # One thread's own time, without the first step: the machine may be busy with other work.
    first = result.losses[0].tokens
    seconds = (clock[-1] - clock[0]) * result.tokens / (result.tokens - first)
    assert 1 / 3 < expected.seconds / seconds < 3


def test_what_changes_an_estimate(loaded: LoadedModel) -> None:
    rows, plan = planned(loaded, conversations(8), SPEC)

    def expect(**changes: Any) -> Any:
        return estimate(loaded, rows, plan, SPEC.model_copy(update=changes))

    plain = expect()
    again = expect(activation_checkpointing=True)
    assert again.activations < plain.activations
    assert expect(rank=8).trained == 2 * plain.trained
    numbers = sum(p.numel() for p in loaded.model.parameters())
    assert expect(method="full").trainable == numbers
    assert expect(method="full").trained == 16 * numbers
    assert plain.trainable < expect(method="freeze", layers=1).trainable < numbers
    assert expect(dtype="bf16").copies == 2 * numbers
    assert expect(dtype="bf16").activations < plain.activations
    larger = replace(rows[0], labels=rows[0].input_ids)
    more = estimate(loaded, [larger, *rows[1:]], plan, SPEC)
    assert more.logits > plain.logits


def state_of(loaded: LoadedModel) -> tuple[Any, ...]:
    sha = hashlib.sha256()
    for name, weight in loaded.model.named_parameters():
        sha.update(f"{name} {weight.requires_grad} {weight.grad is None}".encode())
        sha.update(weight.detach().numpy().tobytes())
    legacy = np.random.get_state()  # noqa: NPY002 what transformers draws from
    return (
        sha.hexdigest(),
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        str(legacy),
        loaded.model.training,
    )


@pytest.mark.parametrize("method", ["lora", "pissa", "freeze", "full"])
def test_looking_changes_neither_the_model_nor_a_generator(
    loaded: LoadedModel, method: Any
) -> None:
    before = state_of(loaded)
    checked(loaded, conversations(8), SPEC.model_copy(update={"method": method, "layers": 1}))
    assert state_of(loaded) == before


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "lora") for kind in ("gpt2", "gemma3", "jamba")),
        *((kind, "freeze") for kind in ("gpt2", "mamba", "jamba", "qwen3_next")),
    ],
)
def test_every_architecture_can_be_looked_at(tmp_path: Path, kind: str, method: Any) -> None:
    tiny_models.save(tmp_path, kind)
    base = load_model("tiny", BaseSpec(model=str(tmp_path), dtype="fp32"), tmp_path)
    spec = SPEC.model_copy(update={"method": method, "layers": 1})
    found = checked(base, conversations(6), spec).estimate
    assert found is not None
    with trained_weights(base, spec) as trained:
        assert found.trainable == sum(p.numel() for p in trainable(trained.model).values())
    assert found.activations > 0
    assert 0 < found.seconds < 60


# ---------------------------------------------------------------------------------------- checks


def test_the_built_in_base_passes_without_a_word(nano: LoadedModel) -> None:
    spec = TrainSpec(base="nano", learning_rate=2e-3, min_steps=1)
    found = checked(nano, conversations(40), spec)
    assert found.warnings == ()
    assert found.estimate is not None
    assert found.estimate.growth > 0
    assert found.free is not None


def test_each_check_is_made(loaded: LoadedModel) -> None:
    spec = SPEC.model_copy(
        update={"learning_rate": 1.0, "rank": 32, "alpha": 1, "batch_tokens": 64}
    )
    rows = conversations(4, words=70)
    warnings = checked(loaded, rows, spec).warnings
    said = ("answers end with <|end|>", "batch_tokens (64): 4", "learning_rate 1", "train.rank 32")
    assert len(warnings) == 5
    for warning, part in zip(warnings, [*said, "train.alpha 1 is"], strict=True):
        assert part in warning


def test_a_template_that_is_not_the_rows(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = conversations(40)
    encoded, _plan = planned(loaded, rows, SPEC)
    assert not list(round_trip_warnings(loaded, rows, encoded))
    other = "{% for m in messages %}<|{{ m.role }}|>Now: {{ m.content }}<|end|>{% endfor %}"
    monkeypatch.setattr(loaded.tokenizer, "chat_template", other)
    with pytest.raises(UserError, match=r"give no row's text back \(row 100, 103, 106 and 11 more"):
        list(round_trip_warnings(loaded, rows, encoded))


def test_a_prompt_that_lost_text(loaded: LoadedModel) -> None:
    rows = conversations(8)
    encoded = list(planned(loaded, rows, SPEC)[0])
    ids, labels = (
        np.delete(part, slice(1, 4)) for part in (encoded[3].input_ids, encoded[3].labels)
    )
    encoded[3] = EncodedRow(103, ids, labels)
    (warning,) = round_trip_warnings(loaded, rows, encoded)
    assert warning.startswith("1 of 8 rows looked at lose text")
    assert "(row 103)" in warning


def test_text_in_other_tokens_than_the_tokenizers(loaded: LoadedModel) -> None:
    rows = conversations(8)
    encoded = list(planned(loaded, rows, SPEC)[0])
    special = set(loaded.tokenizer.all_special_ids)
    ids: list[int] = []
    for one in encoded[2].input_ids.tolist():
        text = loaded.tokenizer.decode(one)
        alone = [loaded.tokenizer.encode(char, add_special_tokens=False)[0] for char in text]
        ids += [one] if one in special else alone
    labels = np.array(ids, dtype=np.int32)
    encoded[2] = EncodedRow(102, labels, labels)
    (warning,) = round_trip_warnings(loaded, rows, encoded)
    assert warning.startswith("1 of 8 rows looked at are read as other tokens")
    assert "(row 102)" in warning


def test_plain_text_makes_the_round_trip(loaded: LoadedModel) -> None:
    text = TrainingRow(9, ({"role": "text", "content": "The quick brown fox"},), None, "keep")
    encoded = encode_rows(loaded, [text], allow_rejects=0).rows
    assert not list(round_trip_warnings(loaded, [text], encoded))


def test_a_first_token_of_the_tokenizers_own(tmp_path: Path) -> None:
    tiny_models.save(tmp_path, "llama", bos=True)
    base = load_model("bos", BaseSpec(model=str(tmp_path), dtype="fp32"), tmp_path)
    base.tokenizer.chat_template = None  # with one, it is the template that writes it
    rows = conversations(4)
    encoded, _plan = planned(base, rows, SPEC)
    assert encoded[0].input_ids[0] == base.tokenizer.bos_token_id
    assert not list(round_trip_warnings(base, rows, encoded))


def test_an_end_that_generation_stops_at(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, _plan = planned(loaded, conversations(4), SPEC)
    end = int(loaded.tokenizer.convert_tokens_to_ids("<|end|>"))
    (warning,) = stop_warnings(loaded, encoded)
    assert f"add its id ({end}) to eos_token_id" in warning
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", [1, end])
    assert not list(stop_warnings(loaded, encoded))


# --------------------------------------------------------------------------------------- dry run


def test_a_dry_run_shows_three_rows(loaded: LoadedModel) -> None:
    rows = conversations(9)
    encoded, plan = planned(loaded, rows, SPEC)
    found = preflight(loaded, rows, encoded, plan, SPEC)
    report = dry_run(loaded, encoded, (), plan, SPEC, found)
    lengths = sorted(row.tokens for row in encoded)
    assert [row.which for row in report.shown] == ["shortest", "median", "longest"]
    assert [row.tokens for row in report.shown] == [lengths[0], lengths[4], lengths[8]]
    assert report.rows == 9
    assert report.estimate is not None
    assert report.estimate.tokens == 2 * sum(lengths)
    by_uid = {row.uid: row for row in rows}
    for shown in report.shown:
        question, answer = (message["content"] for message in by_uid[shown.uid].messages)
        (asked, said) = shown.pieces
        assert (asked.text, asked.trained) == (f"<|user|>{question}<|end|><|assistant|>", False)
        assert (said.text, said.trained) == (f"{answer}<|end|>", True)
    out = io.StringIO()
    console = Console(file=out, width=200)
    for one in dry_run_tables(report):
        console.print(one)
    assert f"«{report.shown[0].pieces[1].text}»" in out.getvalue()


@pytest.mark.parametrize(
    ("count", "which"), [(1, ["shortest"]), (2, ["shortest", "longest"]), (3, None)]
)
def test_a_dry_run_of_few_rows(loaded: LoadedModel, count: int, which: list[str] | None) -> None:
    rows = conversations(count)
    encoded, plan = planned(loaded, rows, SPEC)
    found = preflight(loaded, rows, encoded, plan, SPEC)
    shown = dry_run(loaded, encoded, (), plan, SPEC, found).shown
    assert [row.which for row in shown] == (which or ["shortest", "median", "longest"])
    assert len({row.uid for row in shown}) == count


def test_pieces_alternate_with_the_turns(loaded: LoadedModel) -> None:
    one = conversations(1)[0]
    (row,) = encode_rows(loaded, [replace(one, messages=one.messages * 2)], allow_rejects=0).rows
    pieces = list(pieces_of(loaded, row))
    assert [piece.trained for piece in pieces] == [False, True, False, True]
    assert "".join(piece.text for piece in pieces) == loaded.tokenizer.decode(row.input_ids)


# ------------------------------------------------------------------------------------- bad input


def test_a_target_that_is_not_there_is_found_before_the_first_step(loaded: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"train.targets: .*'gate_prj'.*gate_proj"):
        checked(loaded, conversations(4), SPEC.model_copy(update={"targets": ("gate_prj",)}))
    with pytest.raises(UserError, match=r"train.layers: the base has 3 layers"):
        checked(loaded, conversations(4), SPEC.model_copy(update={"method": "freeze", "layers": 4}))


def test_rank_0_is_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "gapmend.yaml"
    path.write_text(
        "bases: {nano: {model: nano}}\n"
        "datasets: {d: {path: d.csv, columns: {input: text, output: label}}}\n"
        "capabilities: {c: {data: d, answer: choice, goal: 0.8}}\n"
        "train: {base: nano, pool: [d],\n"
        "  rank: 0}\n",
        "utf-8",
    )
    (tmp_path / "d.csv").write_text("text,label\na,b\n", "utf-8")
    with pytest.raises(UserError, match=r"gapmend.yaml.*train\.rank.*0") as raised:
        load_spec(path)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], "there are no rows to train on. Raise budget_rows or widen the pool"),
        (
            [replace(row, messages=row.messages[:1]) for row in conversations(3)],
            r"3 of 3 rows .*row 100: no assistant turn.*some that can\. Change or drop them$",
        ),
        (
            [
                replace(row, messages=(row.messages[0], {"role": "assistant", "content": ""}))
                for row in conversations(3)
            ],
            r"3 of 3 rows can't be trained on .*row 100: an answer is empty",
        ),
    ],
    ids=["none", "no answers", "empty answers"],
)
def test_rows_that_teach_nothing(
    loaded: LoadedModel, tmp_path: Path, rows: list[TrainingRow], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        fit(loaded, rows, SPEC, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_during_a_checkpoint_loses_no_step_before(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    rows, spec = conversations(24), SPEC.model_copy(update={"checkpoint_steps": 2})
    whole = fit(loaded, rows, spec, tmp_path / "whole")
    assert whole.steps > 4
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: StepMetrics) -> None:
        if step.step == 3:  # the journal of steps still fits, the next checkpoint does not
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))

    try:
        with pytest.raises(UserError, match="the disk is full"):
            fit(loaded, rows, spec, tmp_path / "filled", on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resumed = fit(loaded, rows, spec, tmp_path / "filled")
    assert resumed.resumed_from == 2
    assert digest_of(resumed) == digest_of(whole)


def digest_of(result: FitResult) -> str:
    weights = result.adapter_dir / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()
