"""RDS+ embeddings: a batch with padding gives what each row gives by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evals.engine.embed import embed
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

TEXTS = [
    "The weather was fine.",
    "a",
    "Le café est fermé; 你好, 世界 🙂",
    "A much longer text, whose words go on and on, so that every other row is mostly padding. " * 3,
    "12 + 30 = 42",
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> LoadedModel:
    folder = tiny_models.save(tmp_path_factory.mktemp("tiny"), "llama")
    return load_model("tiny", BaseSpec(model=str(folder)), Path("/"))


def by_itself(loaded: LoadedModel, text: str) -> np.ndarray:
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    total = torch.zeros(hidden.shape[1])
    for position, state in enumerate(hidden, start=1):
        total += position * state
    return (total / total.norm()).numpy()


@pytest.mark.parametrize("token_budget", [1, 200, 10_000])
def test_padding_changes_nothing(loaded, token_budget) -> None:
    found = embed(loaded, TEXTS, token_budget=token_budget)
    expected = np.stack([by_itself(loaded, text) for text in TEXTS])
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_later_tokens_weigh_more(loaded) -> None:
    plain = embed(loaded, [TEXTS[0]])[0]
    ids = loaded.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    mean = hidden.mean(0)
    assert np.abs(plain - (mean / mean.norm()).numpy()).max() > 1e-3


def test_nothing_is_cut_and_nothing_is_empty(loaded) -> None:
    with pytest.raises(UserError, match="context"):
        embed(loaded, ["word " * 3 * loaded.context])
    with pytest.raises(UserError, match="without a token"):
        embed(loaded, ["fine", ""])
    assert embed(loaded, []).shape[0] == 0


def test_progress_ends_at_all(loaded) -> None:
    told: list[tuple[int, int]] = []
    embed(loaded, TEXTS, token_budget=50, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert len(told) > 1
