"""The whole corpus of the built-in base: no held-out item, nor a near-duplicate, is in it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.datasets.duplicates.near_duplicates import near_pairs
from registry.nano.recipe import train
from registry.nano.recipe.corpus import documents, short_documents
from registry.nano.recipe.tokenizer import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.nano.recipe.corpus import CorpusDocument

ROOT = Path(__file__).resolve().parents[4]
DATA = ROOT / "examples" / "quickstart" / "data"
SEED = json.loads((ROOT / "registry" / "nano" / "recipe.json").read_text())["seed"]


# What the recipe draws: short documents for its first steps, then the others.
PLAN = train.TrainingBudget()
FIRST, REST = 40_000, 80_000


def drawn(stream: Iterator[CorpusDocument], tokens: int, batches: int) -> int:
    """Return how many documents the recipe draws until it has so many batches, by its grouping."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "registry" / "nano")
    made = documents_drawn = 0
    while made < batches:
        pool = list(islice(stream, train._POOL))
        encoded = tokenizer([render(d) for d in pool], add_special_tokens=False)["input_ids"]
        made += len(train._groups([len(ids) for ids in encoded], tokens))
        documents_drawn += len(pool)
    return documents_drawn


def texts_of(stream: Iterator[CorpusDocument]) -> Iterator[str]:
    for document in stream:
        yield from (turn.input for turn in document.turns)
        if document.text:
            yield document.text


@pytest.mark.parametrize(
    "share",
    [
        pytest.param(8, id="an eighth"),
        pytest.param(1, id="all", marks=(pytest.mark.soak, pytest.mark.slow)),
    ],
)
def test_no_held_out_item_is_anywhere_in_the_corpus(share: int) -> None:
    # The numbers were counted for this budget, by the test below.
    assert (PLAN.first_steps, PLAN.first_tokens) == (1_000, 1_024)
    assert (PLAN.steps, PLAN.tokens) == (2_500, 2_048)
    corpus = {
        *texts_of(islice(short_documents(SEED), FIRST // share)),
        *texts_of(islice(documents(SEED), REST // share)),
    }
    assert len(corpus) > 100_000 // share
    held = [
        json.loads(line)["input"]
        for path in sorted(DATA.glob("*/*.jsonl"))
        if path.stem != "train"
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(held) >= 14_000
    assert near_pairs(held, list(corpus)) == []


@pytest.mark.soak
def test_so_many_documents_are_drawn() -> None:
    first = PLAN.first_steps * train.WORKERS
    rest = PLAN.steps * train.WORKERS - first
    assert drawn(short_documents(SEED), PLAN.first_tokens, first) == FIRST
    assert drawn(documents(SEED), PLAN.tokens, rest) == REST
