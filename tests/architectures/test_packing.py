"""Rows and choices are packed only where a model attends to them as it does one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evals.engine.forward import Forward
from pipeline.training import compute
from pipeline.training.fit import fit
from pipeline.training.losses.loss import pack_rows, packed_loss
from pipeline.training.losses.objective import encode
from pipeline.training.preview.look import look
from registry.models.load import LoadedModel
from registry.models.parts import length_limits
from tests.architectures import configs
from tests.architectures.chain import SPEC, plain_loss, plainly, rows

Base = Callable[..., LoadedModel]
UNLIKE = "packed rows give other logits than the model's own attention"


@pytest.mark.parametrize("kind", ["llama4_text", "phimoe"])
def test_attention_that_is_cut_by_the_mask_alone_is_found(base: Base, kind: str) -> None:
    loaded = base(kind)
    longest = 40
    assert compute.why_not_packed(loaded) == f"{UNLIKE} for rows of 24 tokens"
    assert compute.why_not_packed(loaded, longest) == f"{UNLIKE} for rows of 24 tokens"
    # Rows that end before the limit are as they would be without it.
    assert compute.why_not_packed(loaded, configs.WINDOW) is None


@pytest.mark.parametrize("kind", ["mistral", "phi3", "gemma4_text", "cohere2"])
def test_a_window_that_attention_is_told_of_is_kept(base: Base, kind: str) -> None:
    assert compute.why_not_packed(base(kind)) is None


@pytest.mark.parametrize("kind", ["llama4_text", "phimoe"])
def test_what_packs_wrongly_is_trained_a_row_at_a_time_and_says_so(
    base: Base, tmp_path: Path, kind: str
) -> None:
    found = fit(base(kind), rows(), SPEC, tmp_path)
    assert not found.packed
    assert found.note == f"{UNLIKE} for rows of 24 tokens"
    short = rows(longest=2)
    assert fit(base(kind), short, SPEC, tmp_path / "short").packed


def test_packed_its_loss_would_be_another_one(base: Base) -> None:
    loaded = base("llama4_text")
    plain = plainly(Path(loaded.model.config._name_or_path))
    encoded = [row for (row,) in encode(loaded, rows(), SPEC, allow_rejects=0).objective.parts]
    wanted = sum(plain_loss(plain, row) for row in encoded)
    encoded.sort(key=lambda row: -row.tokens)
    with torch.no_grad(), compute.packed(loaded.model):
        packed = float(packed_loss(loaded.model, pack_rows(encoded)))
    assert abs(packed - wanted) > 0.001 * wanted


def test_every_limit_of_a_config_is_known() -> None:
    found = {kind: set(length_limits(configs.config(kind))) for kind in ("llama4_text", "gpt_neo")}
    assert ("attention_chunk_size", configs.WINDOW) in found["llama4_text"]
    assert ("floor_scale", 8192) in found["llama4_text"]
    assert found["gpt_neo"] == {("window_size", configs.WINDOW)}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    config = configs.config("llama")
    config.rope_parameters = rope
    assert ("original_max_position_embeddings", 64) in set(length_limits(config))


def test_choices_are_scored_alone_where_attention_may_change_beyond_what_is_tried(
    base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    near = base("gpt_neo")
    assert not Forward(near).packs
    far = base("gpt_neo", window_size=2000, max_position_embeddings=4096)
    with caplog.at_level(logging.WARNING):
        assert not Forward(far).packs
    assert "its attention changes at 2000 tokens; one sequence a row" in caplog.text


def test_a_look_packs_as_the_run_does(base: Base) -> None:
    assert look(base("phimoe"), rows(), SPEC).batches == 2
