"""Answers of bases that think: found in what they write, and written as training writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evals.engine.generate import StopRule
from evals.engine.harness import HarnessLM
from evals.tasks.capability import CapabilitySpec, Item
from evals.tasks.prompts import Question
from evals.tasks.scorers import scorer_of
from evals.tasks.task import AskedForm, CapabilityTask
from registry.chat.chat import TurnRefusedError
from registry.chat.form import answer_form
from registry.chat.settings import ChatSettings, Thinking
from tests.support import tiny_models
from tests.support.templates import TEMPLATES, public_chat

ASKED = {"role": "user", "content": "two plus two"}
EXACT = CapabilitySpec(data="d", answer="exact", goal=0.5)


def chat_of(name: str, thinking: Thinking = "auto") -> Any:
    template = next(one for one in TEMPLATES if one.name == name)
    return public_chat(template, ChatSettings(thinking=thinking, date="2026-01-31"))


def score(name: str, written: str, expected: str = "4", thinking: Thinking = "auto") -> float:
    """What an answer scores under `exact`, as the engine hands it on."""
    chat = chat_of(name, thinking)
    form, specials = answer_form(chat), chat.texts_of(chat.specials)
    tokens = chat.tokenizer.encode(written, add_special_tokens=False)
    asking = AskedForm((), form, specials, scorer_of(EXACT, None), max_new_tokens=8)  # type: ignore[arg-type]
    fields = {"input": "two plus two", "output": expected}
    question = Question(Item(1, "00", fields, expected, 1), (ASKED,))
    task = CapabilityTask("sums", [question], [chat.context([ASKED])], asking)
    (request,) = task.construct_requests({"position": 0}, "", metadata=("sums", 0, 1))
    wanted = request.args[1]
    plain = wanted.get("skip_special_tokens", True)
    stops = StopRule(chat.tokenizer, wanted["until"], chat.stops, len(chat.tokenizer), plain=plain)
    return task.process_results({"position": 0}, [stops.text(tokens)])["score"]


@pytest.mark.parametrize(
    ("name", "written", "right"),
    [
        ("qwen3", "<think>\n\n</think>\n\n4<|im_end|>", True),
        ("qwen3", "<think>\nIs it 5? No.\n</think>\n\n4<|im_end|>", True),
        ("qwen3", "4<|im_end|>", True),
        ("qwen3", "<think>\n4", False),  # the thought didn't end
        ("qwen3.5", "It is even.\n</think>\n\n4<|im_end|>", True),
        ("qwen3.5", "4", False),  # the prompt has begun a thought
        ("gpt-oss", "<|channel|>final<|message|>4<|return|>", True),
        (
            "gpt-oss",
            "<|channel|>analysis<|message|>5?<|end|><|start|>assistant<|channel|>final<|message|>4",
            True,
        ),
        ("gpt-oss", "<|channel|>analysis<|message|>4", False),
        ("deepseek-r1-distill", "Two and two.\n</think>\n\n4<｜end▁of▁sentence｜>", True),  # noqa: RUF001 - theirs
        ("functionary-3.2", "all\n4<|eot_id|>", True),
        ("glm4-moe", "\n<think></think>\n4<|user|>", True),
        ("llama3", "4<|eot_id|>", True),
        ("llama3", "<think>5</think>4<|eot_id|>", False),  # to it, that is text
    ],
)
def test_the_answer_is_scored_and_not_the_thought(name: str, written: str, *, right: bool) -> None:
    assert score(name, written) == float(right)


def test_a_base_told_not_to_think_that_does_is_understood() -> None:
    assert score("qwen3", "<think>\n5?\n</think>\n\n4<|im_end|>", thinking="off") == 1
    assert score("qwen3", "4<|im_end|>", thinking="off") == 1


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "gpt-oss", "glm4-moe", "llama3", "phi3"])
@pytest.mark.parametrize("thinking", ["auto", "off"])
def test_a_choice_is_asked_for_as_it_is_trained(name: str, thinking: Thinking) -> None:
    chat = chat_of(name, thinking)
    form = answer_form(chat)
    turn = chat.turn([ASKED, {"role": "assistant", "content": "four"}], 1)
    assert turn.context == chat.context([ASKED])
    written = form.written("four")
    assert turn.target.startswith(written)
    assert not turn.target.removeprefix(written).strip("\n").removeprefix("<|endoftext|>")


def test_a_choice_that_cannot_be_asked_for_says_how() -> None:
    with pytest.raises(TurnRefusedError, match="thinking: off in bases"):
        answer_form(chat_of("deepseek-r1-distill")).written("four")
    assert answer_form(chat_of("deepseek-r1-distill", "off")).written("4").startswith("4")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(None, "auto", marks=pytest.mark.soak),
        pytest.param(True, "on", marks=pytest.mark.soak),
        (False, "off"),
    ],
)
def test_lm_evals_program_may_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, said: bool | None, told: str
) -> None:
    tiny_models.save(tmp_path, "llama")
    monkeypatch.chdir(tmp_path)
    model = HarnessLM(str(tmp_path), enable_thinking=said)
    assert model.chat.settings.thinking == told
