"""The data of examples/assistant: made by its program, nothing of one split in another."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from evals.verdicts.looks import DEV, level_at
from evals.verdicts.sample_size import usual_to_keep

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "assistant"
SPLITS = ("train", "dev", "test")
CHOICES = ("facts", "opposites", "categories", "plurals")
ANSWERED = ("repeats", "chats")


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program writes today."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    folder = tmp_path_factory.mktemp("data")
    try:
        loaded("make_data").write(folder)
    finally:
        sys.path.remove(str(FOLDER))
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]
    return folder


def read(name: str, split: str) -> list[dict[str, Any]]:
    lines = (FOLDER / "data" / name / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_files_are_those_that_the_program_writes(made: Path) -> None:
    files = sorted(path.relative_to(made) for path in made.rglob("*.jsonl"))
    assert len(files) == 21
    for file in files:
        assert (made / file).read_bytes() == (FOLDER / "data" / file).read_bytes(), file


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_has_its_answer_once_among_four(name: str) -> None:
    for split in SPLITS:
        for item in read(name, split):
            assert len(set(item["options"])) == 4
            assert item["options"].count(item["output"]) == 1


@pytest.mark.parametrize("name", [*CHOICES, *ANSWERED])
def test_a_guard_has_items_enough_to_be_found_kept(name: str) -> None:
    spec = yaml.safe_load((FOLDER / "gapmend.yaml").read_text("utf-8"))["guards"][name]
    for split, level in (("dev", DEV), ("test", level_at(1))):
        asked = {json.dumps(item) for item in read(name, split)}
        assert len(asked) == 300
        limit = spec.get("limit", len(asked))
        assert limit >= usual_to_keep(spec["max_drop"], level.of_bound)


def test_nothing_that_is_asked_is_trained_on() -> None:
    for name in (*CHOICES, "repeats", "orders"):
        splits = [
            {item["input"] for item in read(name, split)} for split in ("train", "dev", "test")
        ]
        assert not splits[0] & (splits[1] | splits[2]), name
        assert not splits[1] & splits[2], name
    for name in ("facts", "opposites", "plurals"):
        words = [{item["output"] for item in read(name, split)} for split in SPLITS]
        assert sum(map(len, words)) == len(set().union(*words)), name
    names = [
        {json.loads(item["output"])["name"] for item in read("orders", split)}
        for split in ("train", "dev", "test")
    ]
    assert not names[0] & (names[1] | names[2])


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"count": 2, "size": "large", "item": "tea", "name": "Ida"}', 1.0),
        ('{"name":"Ida","item":"tea","size":"large",\n"count":2}', 1.0),
        ('{"count": 3, "size": "large", "item": "tea", "name": "Ida"}', 0.0),
        ('{"count": 2, "size": "large", "item": "tea"}', 0.0),
        ("two large teas for Ida", 0.0),
        ("", 0.0),
    ],
)
def test_an_order_is_right_however_it_is_spaced(answer: str, score: float) -> None:
    expected = '{"count": 2, "size": "large", "item": "tea", "name": "Ida"}'
    assert loaded("order_form").order(answer, expected, {}) == score
