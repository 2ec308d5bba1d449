"""RDS+ embeddings: a batch with padding gives what each row gives by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evals.engine.embed import Passage, embed
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


def plain(texts: list[str]) -> list[Passage]:
    return [Passage("", text) for text in texts]


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
    found = embed(loaded, plain(TEXTS), token_budget=token_budget).vectors
    expected = np.stack([by_itself(loaded, text) for text in TEXTS])
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_later_tokens_weigh_more(loaded) -> None:
    weighted = embed(loaded, plain(TEXTS[:1])).vectors[0]
    ids = loaded.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    mean = hidden.mean(0)
    assert np.abs(weighted - (mean / mean.norm()).numpy()).max() > 1e-3


def test_nothing_is_cut_and_nothing_is_empty(loaded) -> None:
    with pytest.raises(UserError, match="context"):
        embed(loaded, plain(["word " * 3 * loaded.context]))
    with pytest.raises(UserError, match="without a token"):
        embed(loaded, plain(["fine", ""]))
    assert embed(loaded, []).vectors.shape[0] == 0


def test_progress_ends_at_all(loaded) -> None:
    told: list[tuple[int, int]] = []
    embed(
        loaded,
        plain(TEXTS),
        token_budget=50,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert len(told) > 1


@pytest.mark.parametrize("token_budget", [1, 10_000])
def test_one_pass_gives_the_question_alone_and_the_loss_of_the_answer(loaded, token_budget) -> None:
    asked = ["How many?", TEXTS[3], "", "Say nothing."]
    answers = ["seven of them", "no", "a text by itself", ""]
    given = [Passage(*pair) for pair in zip(asked, answers, strict=True)]
    found = embed(loaded, given, losses=True, token_budget=token_budget)
    assert [one.text for one in given] == [
        *("How many?\nseven of them", f"{TEXTS[3]}\nno", "a text by itself", "Say nothing."),
    ]
    for place, one in enumerate(given):
        assert found.vectors[place] == pytest.approx(by_itself(loaded, one.text), abs=2e-6)
        alone = by_itself(loaded, one.asked or one.text)
        assert found.asked[place] == pytest.approx(alone, abs=2e-6)
    tokenizer = loaded.tokenizer
    ids = [tokenizer(one.text, add_special_tokens=False)["input_ids"] for one in given]
    assert found.tokens == sum(map(len, ids))
    for place, first in ((0, len(tokenizer(asked[0], add_special_tokens=False)["input_ids"])),
                         (2, 1)):  # fmt: skip
        row = torch.tensor([ids[place]])
        labels = row.clone()
        labels[0, :first] = -100
        with torch.no_grad():
            expected = float(loaded.model(row, labels=labels).loss)
        assert found.losses[place] == pytest.approx(expected, abs=1e-4)
    assert np.isnan(found.losses[3])
    assert np.isnan(embed(loaded, given).losses).all()
