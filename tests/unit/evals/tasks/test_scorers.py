"""What an answer says, against what was expected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evals.scoring.plan import Answerer, ScoringPlan, identity_of
from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
from evals.tasks.prompts import Arm
from evals.tasks.scorers import check_expected, code_path, final_answer, scorer_of, words
from registry.errors import UserError

if TYPE_CHECKING:
    from registry.models.base import BaseIdentity

CODE = "def half(answer, expected, fields):\n    return 0.5 if answer == expected else {wrong}\n"


def item(expected: str, **fields: str) -> Item:
    return Item(1, "0" * 64, {"input": "q", "output": expected, **fields}, expected, 1)


def score(answer_kind: str, answer: str, expected: str, root=None, **spec) -> float:
    made = CapabilitySpec(data="d", answer=answer_kind, goal=0.5, **spec)
    return scorer_of(made, root)(answer, item(expected))


def test_exact_forgives_case_and_white_space_alone() -> None:
    assert score("exact", "  New\n York ", "new york") == 1
    assert score("exact", "new york.", "new york") == 0


def test_contains_finds_the_expected_text() -> None:
    assert score("contains", "It is PARIS, of course", "Paris") == 1
    assert score("contains", "It is Rome", "Paris") == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Cafe\u0301", "Café"),  # decomposed
        ("\uff30aris\u3000\uff12\uff10", "paris 20"),  # full width, with its own space
        ("カード", "ｶｰﾄﾞ"),
        ("\ufeffre\u00adfund\u200b", "refund"),  # zero-width characters
        ("New\u00a0York", "new york"),
        ("STRASSE", "straße"),
        ("\u1fb3\u0301", "\u1fb4"),  # folding takes this one apart
    ],
)
def test_words_are_compared_in_one_unicode_form(answer: str, expected: str) -> None:
    for kind in ("exact", "choice", "contains", "f1", "rouge"):
        assert score(kind, answer, expected) == score(kind, expected, answer) == 1, kind


def test_what_differs_by_more_than_its_form_is_not_equal() -> None:
    for answer, expected in (
        ("resume", "résumé"),
        ("カート", "カード"),
        ("3.5", "35"),
        ("a b", "ab"),
    ):
        assert score("exact", answer, expected) == 0


def test_only_what_was_scored_otherwise_has_another_key() -> None:
    def key(answer: str, arm: Arm) -> object:
        spec = CapabilitySpec(data="d", answer=answer, goal=0.5)
        answerer = Answerer(cast("BaseIdentity", SimpleNamespace(digest="d")))
        plan = ScoringPlan("s", "dev", spec, arm, ("a", "b"), (), answerer, Path())
        return identity_of(plan).get("scorer")

    plain = Arm("plain", "{input}", 0, None, "zero_shot")
    reasoned = Arm("cot", "{input}", 0, None, "cot")
    assert key("exact", plain) == key("contains", plain) == key("choice", reasoned) == 2
    assert key("choice", plain) is key("perplexity", plain) is None


def test_a_number_is_compared_by_value() -> None:
    assert score("number", "so 6 * 7 = **42.0**", "42") == 1
    assert score("number", "1/4", "3/4") == 0
    assert score("number", "$5", "-$5") == 0
    assert score("number", "none", "3") == 0


@pytest.mark.parametrize("expected", ["three", "3-5", "1,2,3", "of 3, 2026-11-29"])
def test_an_expected_answer_that_is_no_number_is_said_before_a_model_is_asked(expected) -> None:
    row = replace(item(expected), source_file="d.csv", source_line=7)
    made = CapabilitySpec(data="d", answer="number", goal=0.5)
    with pytest.raises(UserError, match=r"d\.csv:7: answer: number, but .* is not one number"):
        check_expected(made, [item("3"), row])
    with pytest.raises(UserError, match="is not one number"):
        score("number", "3", expected)


def test_a_pattern_is_filled_with_escaped_columns() -> None:
    assert score("regex", "so: a.b!", "a.b", pattern=r"^so: {output}!$") == 1
    assert score("regex", "so: axb!", "a.b", pattern=r"^so: {output}!$") == 0
    assert score("regex", "aaa", "x", pattern=r"^a{3}$") == 1
    with pytest.raises(ValueError, match="not valid"):
        score("regex", "a", "a", pattern="(")
    with pytest.raises(UserError, match="not valid"):  # only this row makes it so
        score("regex", "a", "a b", pattern="(?P<{output}>a)")


@pytest.mark.parametrize(
    ("answer", "expected", "f1", "rouge"),
    [
        # Twice the words shared, over the words of both: 2 * 5 / (5 + 6); in order only 3 are.
        ("mat the on cat sat", "the cat sat on the mat", 10 / 11, 6 / 11),
        ("THE cat, the cat!", "the cat", 4 / 6, 4 / 6),
        ("天气好", "今天天气很好。", 6 / 9, 6 / 9),
        ("好天气", "今天天气很好", 6 / 9, 4 / 9),
        ("GPT-4很好", "gpt 4 很 好", 1, 1),
        ("ありがとう", "ありがた", 6 / 9, 6 / 9),
        ("Straße", "STRASSE", 1, 1),
        ("", "the cat", 0, 0),
        ("…", "the cat", 0, 0),
        ("a dog", "the cat", 0, 0),
    ],
)
def test_shared_words_in_any_order_and_in_order(answer, expected, f1, rouge) -> None:
    assert score("f1", answer, expected) == pytest.approx(f1)
    assert score("rouge", answer, expected) == pytest.approx(rouge)


@given(st.text(max_size=30), st.text(max_size=30))
def test_an_overlap_is_between_0_and_1_and_the_same_text_has_it_all(one, other) -> None:
    one += " x"
    assert 0 <= score("rouge", other, one) <= score("f1", other, one) + 1e-12 <= 1 + 1e-12
    assert score("f1", one, one) == score("rouge", one, one) == pytest.approx(1)


def test_words_keep_their_marks_and_their_script() -> None:
    assert words("हिन्दी भाषा, 한국어 text_1") == ["हिन्दी", "भाषा", "한국어", "text_1"]
    assert words("?! —") == []


@pytest.mark.parametrize("kind", ["f1", "rouge"])
def test_an_expected_answer_without_a_word_is_said(kind) -> None:
    row = replace(item("?!"), source_file="d.csv", source_line=7)
    made = CapabilitySpec(data="d", answer=kind, goal=0.5)
    with pytest.raises(UserError, match=rf"d\.csv:7: answer: {kind}, but .* '\?!' has no word"):
        scorer_of(made, Path())("", row)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 is 4.\nAnswer: **4**.", "4"),
        ("Answer: 3? No.\nAnswer: 5", "5"),
        ("so the final answer is: cat", "cat"),
        ("The answer is cat.", "cat"),
        ("first\n#### 42", "42"),
        ("**Answer:** Paris", "Paris"),
        ("thinking\n\nyes\n\n", "yes"),
        ("", ""),
    ],
)
def test_the_answer_at_the_end_of_reasoning(text, answer) -> None:
    assert final_answer(text) == answer


def test_own_code_is_run_only_by_the_name_in_the_spec(tmp_path) -> None:
    (tmp_path / "polite.py").write_text(CODE.format(wrong=0))
    assert score("python:polite:half", "a", "a", tmp_path) == 0.5
    assert score("python:polite:half", "b", "a", tmp_path) == 0
    assert code_path("python:polite:half", tmp_path) == tmp_path / "polite.py"
    with pytest.raises(UserError, match="no function whole"):
        score("python:polite:whole", "a", "a", tmp_path)
    with pytest.raises(UserError, match="no module rude"):
        score("python:rude:half", "a", "a", tmp_path)


def test_own_code_that_fails_is_said_in_one_line(tmp_path) -> None:
    (tmp_path / "too_much.py").write_text(CODE.format(wrong=2))
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
    with pytest.raises(UserError, match=r"gave 2; expected a number from 0 to 1"):
        score("python:too_much:half", "b", "a", tmp_path)
    with pytest.raises(UserError, match="importing it raised RuntimeError"):
        score("python:broken:half", "b", "a", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"answer": "choices"}, "should match pattern"),
        ({"answer": "regex"}, "needs pattern"),
        ({"answer": "exact", "pattern": "x"}, "regex alone"),
        ({"answer": "exact", "labels": ("a", "b")}, "choice alone"),
        ({"answer": "choice", "labels": ("a",)}, "at least two labels"),
        ({"answer": "choice", "labels": ("a", "a")}, "occur twice"),
        ({"answer": "exact", "goal": 1.5}, "less than or equal to 1"),
        ({"answer": "exact", "gaol": 1}, "Extra inputs"),
        ({"answer": "python:a.b"}, "should match pattern"),
    ],
)
def test_a_capability_that_makes_no_sense_is_refused(values, message) -> None:
    with pytest.raises(ValidationError, match=message):
        CapabilitySpec(**{"data": "d", "goal": 0.5, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either data or lm_eval"),
        ({"data": "d", "lm_eval": "t", "answer": "exact"}, "either data or lm_eval"),
        ({"data": "d"}, "answer goes with data"),
        ({"lm_eval": "t", "answer": "exact"}, "answer goes with data"),
        ({"lm_eval": "tasks/t.yaml"}, "is code; set allow_code: true to run it"),
        ({"lm_eval": "t.yml"}, "is code; set allow_code: true to run it"),
        ({"lm_eval": "hellaswag", "allow_code": True}, "allow_code is for a task file of your own"),
        ({"data": "d", "answer": "exact", "allow_code": True}, "allow_code is for a task file"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(values, message) -> None:
    with pytest.raises(ValidationError, match=message):
        GuardSpec(**values)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('boom')", r"raised RuntimeError\('boom'\) for the answer 'b'"),
        ("raise SystemExit(5)", r"raised SystemExit\(5\)"),
        ("return f(answer, expected, fields)", "raised RecursionError"),
        ("return None", "gave None"),
        ("return float('nan')", "gave nan"),
    ],
)
def test_what_own_code_does_wrong_is_one_line_with_the_row(tmp_path, body: str, said: str) -> None:
    name = f"wrong_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def f(answer, expected, fields):\n    {body}\n")
    made = CapabilitySpec(data="d", answer=f"python:{name}:f", goal=0.5)
    row = replace(item("a"), source_file="d.csv", source_line=7)
    with pytest.raises(UserError, match=rf"d\.csv:7: answer: python:{name}:f {said}"):
        scorer_of(made, tmp_path)("b", row)


def test_numpy_s_numbers_are_numbers(tmp_path) -> None:
    code = "import numpy\n\n\ndef f(answer, expected, fields):\n    return numpy.float32(0.5)\n"
    (tmp_path / "with_numpy.py").write_text(code)
    assert score("python:with_numpy:f", "a", "a", tmp_path) == 0.5


def test_what_a_scorer_imports_from_the_workspace_is_its_code_too(tmp_path) -> None:
    from evals.scoring.plan import code_digest

    (tmp_path / "sc.py").write_text(
        "import json\n\nimport helper\n\n\ndef f(a, e, d):\n    return helper.h(a)\n"
    )
    (tmp_path / "helper.py").write_text("def h(a):\n    return 0.0\n")
    (tmp_path / "other.py").write_text("raise RuntimeError('never run')\n")
    made = CapabilitySpec(data="d", answer="python:sc:f", goal=0.5)
    before = code_digest(made, tmp_path)
    (tmp_path / "other.py").write_text("changed = 1\n")
    assert code_digest(made, tmp_path) == before
    (tmp_path / "helper.py").write_text("def h(a):\n    return 1.0\n")
    assert code_digest(made, tmp_path) != before
    (tmp_path / "sc.py").write_text("def f(a, e, d)\n")
    with pytest.raises(UserError, match=r"sc\.py:1: answer: python:sc:f: expected ':'"):
        code_digest(made, tmp_path)
