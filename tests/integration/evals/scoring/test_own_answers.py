"""A base's own answers: by its chat template, to their end, and asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from evals.engine.packed import PackedLM
from evals.scoring.own_answers import own_answers

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.load import LoadedModel


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


FACT = user("Boton goes to Ridraby on Sunday. Boton works as a baker. When does Boton go?")


def test_the_base_answers_by_its_template_and_is_asked_once(
    nano: LoadedModel, tmp_path: Path
) -> None:
    engine, kept = PackedLM(nano), tmp_path / "answers" / "nano.jsonl"
    turns = [*FACT, {"role": "assistant", "content": "Sunday"}, *user(FACT[0]["content"])]
    first = own_answers(engine, [FACT, turns], kept, max_new_tokens=16)
    one, two = first
    assert one is not None
    assert two is not None
    assert (one.text, one.ended) == ("Sunday", True)
    asked = len(nano.tokenizer(nano.chat.context(FACT), add_special_tokens=False)["input_ids"])
    said = len(nano.tokenizer("Sunday", add_special_tokens=False)["input_ids"])
    assert one.tokens == asked + said
    assert two.tokens > 2 * asked  # the whole conversation was read
    run = engine.tokens_processed
    assert own_answers(engine, [turns, FACT], kept, max_new_tokens=16) == [two, one]
    assert engine.tokens_processed == run
    assert engine.journal is None


def test_an_answer_that_is_cut_is_told_from_one_that_ends(
    nano: LoadedModel, tmp_path: Path
) -> None:
    cut = own_answers(PackedLM(nano), [FACT], tmp_path / "a.jsonl", max_new_tokens=1)[0]
    assert cut is not None
    assert not cut.ended


def test_what_cannot_be_asked_has_no_answer(nano: LoadedModel, tmp_path: Path) -> None:
    """One with a role that the template refuses, one with no room for an answer."""
    long = user("word " * nano.context)
    strange = [{"role": "nobody", "content": "hello"}]
    found = own_answers(
        PackedLM(nano), [long, FACT, strange], tmp_path / "a.jsonl", max_new_tokens=16
    )
    assert [one is None for one in found] == [True, False, True]
    assert own_answers(PackedLM(nano), [], tmp_path / "b.jsonl", max_new_tokens=16) == []


@pytest.fixture(autouse=True)
def _no_adapter(nano: LoadedModel) -> None:
    nano.use(None)
