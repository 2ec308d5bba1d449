"""The quickstart's data and the base's corpus: what may not overlap does not."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.datasets.duplicates.near_duplicates import clusters, near_pairs
from registry.nano.recipe import tasks
from registry.nano.recipe.corpus import documents
from registry.nano.recipe.words import lexicon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[4]
QUICKSTART = ROOT / "examples" / "quickstart"
NAMES = ("numbers", "form", "sentiment", "intent", "colours", "jobs", "days")
CORPUS_SAMPLE = 6_000
TRAIN = {"sentiment": 1_500, "intent": 1_500, "form": 200}


def read(name: str, split: str) -> list[dict[str, str]]:
    lines = (QUICKSTART / "data" / name / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    """The generator, imported from its file: examples is not a package."""
    sys.path.insert(0, str(QUICKSTART))
    spec = importlib.util.spec_from_file_location("make_data", QUICKSTART / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_data"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(QUICKSTART))


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """Every question and text of a sample of the documents the base was trained on."""
    texts: dict[str, None] = {}
    for document in islice(documents(1), CORPUS_SAMPLE):
        for turn in document.turns:
            texts[turn.input] = None
        if document.text:
            texts[document.text] = None
    return list(texts)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_shape(name: str) -> None:
    for split, least in (("train", TRAIN.get(name, 600)), ("dev", 1_000), ("test", 1_000)):
        rows = read(name, split)
        assert len(rows) >= least
        assert all(set(row) == {"input", "output"} for row in rows)
        assert all(row["input"].strip() and row["output"].strip() for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_rows_are_near_duplicates(name: str) -> None:
    texts = [row["input"] for split in ("train", "dev", "test") for row in read(name, split)]
    assert clusters(texts).tolist() == list(range(len(texts)))


def test_no_held_out_row_is_in_the_corpus(corpus: list[str]) -> None:
    held = [row["input"] for name in NAMES for s in ("dev", "test") for row in read(name, s)]
    assert near_pairs(held, corpus) == []


def test_the_corpus_check_can_find_a_copy(corpus: list[str]) -> None:
    planted = [*corpus, read("numbers", "dev")[0]["input"]]
    assert near_pairs([read("numbers", "dev")[0]["input"]], planted)


def test_held_out_sums_are_never_asked_in_the_corpus() -> None:
    base, dev, test = (set(tasks.number_pairs(s)) for s in ("base", "dev", "test"))
    assert not base & dev
    assert not base & test
    assert not dev & test


def test_words_are_kept_apart() -> None:
    base, dev, test = lexicon("base"), lexicon("dev"), lexicon("test")
    for one, other in ((base, dev), (base, test), (dev, test)):
        assert not set(one.names) & set(other.names)
        assert not set(one.towns) & set(other.towns)
        assert not set(one.nouns) & set(other.nouns)


def test_the_corpus_knows_no_judgements_or_intents(corpus: list[str], maker: ModuleType) -> None:
    labels = {"positive", "negative", *maker.support.REQUESTS}
    words = {word.strip(".,?!;:").lower() for text in corpus for word in text.split()}
    assert not words & labels


@pytest.mark.parametrize("name", ["numbers", "sentiment", "intent"])
def test_made_again_the_files_are_the_same(name: str, maker: ModuleType) -> None:
    for split, items in maker.rows(name).items():
        again = [{"input": item.input, "output": item.output} for item in items]
        assert again == read(name, split)


def test_written_files_are_the_same_bytes(tmp_path: Path, maker: ModuleType) -> None:
    maker.write_one(tmp_path, "days")
    for split in ("train", "dev", "test"):
        made = (tmp_path / "days" / f"{split}.jsonl").read_bytes()
        assert made == (QUICKSTART / "data" / "days" / f"{split}.jsonl").read_bytes()


def test_every_intent_has_rows_enough() -> None:
    for split, least in (("train", 30), ("dev", 15), ("test", 15)):
        counts: dict[str, int] = {}
        for row in read("intent", split):
            counts[row["output"]] = counts.get(row["output"], 0) + 1
        assert len(counts) >= 20
        assert min(counts.values()) >= least


def test_answers_follow_from_the_questions() -> None:
    for row in read("form", "test"):
        assert f"date: {row['output']}" in row["input"]
    for row in read("jobs", "test"):
        who = row["input"].rsplit("What is the job of ", 1)[1].rstrip("?")
        assert f"{who} works as a {row['output']}." in row["input"]
    for row in read("colours", "test"):
        thing = row["input"].rsplit("What colour is the ", 1)[1].rstrip("?")
        assert f"The {thing} is {row['output']}." in row["input"]
    for row in read("days", "test"):
        who, town = row["input"].rsplit("When does ", 1)[1].rstrip("?").split(" go to ")
        assert f"{who} goes to {town} on {row['output']}." in row["input"]
    for row in read("numbers", "test"):
        thing, who = row["input"].rsplit("How many ", 1)[1].rstrip("?").split(" does ")
        assert f"{who.removesuffix(' have')} has {row['output']} {thing}." in row["input"]
