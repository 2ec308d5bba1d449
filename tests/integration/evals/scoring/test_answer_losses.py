"""The loss of given answers: what the model says by hand, kept, and none where there is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from evals.engine.packed import PackedLM
from evals.scoring.answer_losses import answer_losses
from registry.models.load import LoadedModel

GIVEN = [("How many?", "seven of them"), ("Who?", "no"), ("", "a text by itself"), ("Why?", " ")]


def by_hand(nano: LoadedModel, engine: PackedLM, asked: str, answer: str) -> float:
    context, said = engine.encode_pair(asked, f"\n{answer}")
    row = torch.tensor([context + said])
    labels = row.clone()
    labels[0, : len(context)] = -100
    with torch.no_grad():
        return float(nano.model(row, labels=labels).loss)


def test_losses_are_the_model_s_and_are_kept(nano: LoadedModel, tmp_path: Path) -> None:
    kept = tmp_path / "losses.jsonl"
    engine = PackedLM(nano)
    found = answer_losses(engine, GIVEN, kept)
    for place, (asked, answer) in enumerate(GIVEN[:2]):
        assert found.losses[place] == pytest.approx(by_hand(nano, engine, asked, answer), abs=1e-3)
    assert found.losses[2] > 0
    assert math.isnan(found.losses[3])
    assert found.tokens > 10
    read = engine.tokens_processed
    again = answer_losses(engine, GIVEN[:2], kept)
    assert engine.tokens_processed == read  # nothing is asked twice
    assert again.losses == found.losses[:2]


def test_what_is_longer_than_the_context_has_no_loss(nano: LoadedModel, tmp_path: Path) -> None:
    long = "word " * 3 * nano.context
    found = answer_losses(PackedLM(nano), [(long, "no"), ("Who?", "no")], tmp_path / "l.jsonl")
    assert math.isnan(found.losses[0])
    assert found.losses[1] > 0
