"""TRL's forms, as texts and as conversations, and unpaired feedback, from its documentation."""

from __future__ import annotations

from typing import Any

import pytest

from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.detect import detect
from registry.datasets.formats.format import SHAPES, Format
from registry.datasets.formats.shapes import conversational
from registry.datasets.formats.turns import UnusableError

SKY = {"role": "user", "content": "What color is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
ASKED = Message("user", "What color is the sky?")
GOOD = Message("assistant", "It is blue.")
BAD = Message("assistant", "It is green.")


def read(record: dict[str, Any], **columns: str) -> Content:
    """Read a record in the format that is found for it."""
    found = detect(record, columns)
    assert found is not None
    shape = conversational(found.dialect)[found.name] if found.dialect else SHAPES[found.name]
    return Format(shape, {**found.columns, **columns}).content(record)


def unusable(record: dict[str, Any], name: str) -> str:
    with pytest.raises(UnusableError) as raised:
        Format(SHAPES[name]).content(record)
    return str(raised.value)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "The sky is blue."}, Content("text", (Message("text", "The sky is blue."),))),
        ({"messages": [SKY, BLUE]}, Content("sft", (ASKED, GOOD))),
        (
            {"prompt": "What color is the sky?", "completion": "It is blue."},
            Content("sft", (ASKED, GOOD)),
        ),
        ({"prompt": [SKY], "completion": [BLUE]}, Content("sft", (ASKED, GOOD))),
        ({"prompt": [SKY], "completion": "It is blue."}, Content("sft", (ASKED, GOOD))),
        (
            {
                "prompt": "What color is the sky?",
                "chosen": "It is blue.",
                "rejected": "It is green.",
            },
            Content("preference", (ASKED,), (GOOD,), (BAD,)),
        ),
        (
            {"prompt": [SKY], "chosen": [BLUE], "rejected": [GREEN]},
            Content("preference", (ASKED,), (GOOD,), (BAD,)),
        ),
        (
            {"chosen": [SKY, BLUE], "rejected": [SKY, GREEN]},
            Content("preference", (ASKED,), (GOOD,), (BAD,)),
        ),
        (  # as UltraFeedback has it: the question twice
            {"prompt": "What color is the sky?", "chosen": [SKY, BLUE], "rejected": [SKY, GREEN]},
            Content("preference", (ASKED,), (GOOD,), (BAD,)),
        ),
        (
            {"prompt": "What color is the sky?", "completion": "It is blue.", "label": True},
            Content("feedback", (ASKED, GOOD), label=True),
        ),
        (
            {"prompt": [SKY], "completion": [GREEN], "label": False},
            Content("feedback", (ASKED, BAD), label=False),
        ),
        (
            {"messages": [SKY, GREEN], "label": False},
            Content("feedback", (ASKED, BAD), label=False),
        ),
    ],
)
def test_each_form_is_found_and_read(record: dict[str, Any], expected: Content) -> None:
    assert read(record) == expected


def test_longer_conversations_keep_what_comes_before_the_answers() -> None:
    system = {"role": "system", "content": "Be brief."}
    before = [system, SKY, BLUE, {"role": "user", "content": "And at night?"}]
    black, pink = ({"role": "assistant", "content": text} for text in ("Black.", "Pink."))
    explicit = read({"prompt": before, "chosen": [black], "rejected": [pink]})
    implicit = read({"chosen": [*before, black], "rejected": [*before, pink]})
    assert explicit == implicit
    assert [m.role for m in explicit.messages] == ["system", "user", "assistant", "user"]
    assert explicit.chosen == (Message("assistant", "Black."),)


def test_the_question_is_asked_once() -> None:
    """Files repeat it at the head of each answer, with a system text or blanks of its own."""
    system = {"role": "system", "content": "Be brief."}
    for head in ([system, SKY], [system, SKY | {"content": f" {SKY['content']}\n"}]):
        pair = read({"prompt": SKY["content"], "chosen": [*head, BLUE], "rejected": [*head, GREEN]})
        assert pair.messages == (Message("system", "Be brief."), ASKED)
        assert (pair.chosen, pair.rejected) == ((GOOD,), (BAD,))
    assert read({"prompt": [SKY], "completion": [SKY, BLUE]}).messages == (ASKED, GOOD)
    later = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, SKY]
    pair = read({"prompt": later, "chosen": [SKY, BLUE], "rejected": [SKY, GREEN]})
    assert (pair.messages[-1], pair.chosen, pair.rejected) == (ASKED, (GOOD,), (BAD,))


def test_a_system_turn_of_the_prompt_goes_before_the_column() -> None:
    record = {"prompt": [{"role": "system", "content": "S"}, SKY], "completion": [BLUE]}
    assert read(record | {"system": "column"}).messages[0] == Message("system", "S")
    record["prompt"] = [SKY]
    assert read(record | {"system": "column"}).messages[0] == Message("system", "column")


def test_tools_are_kept_in_every_form() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for record in (
        {"messages": [SKY, BLUE]},
        {"prompt": [SKY], "completion": [BLUE]},
        {"prompt": [SKY], "chosen": [BLUE], "rejected": [GREEN]},
        {"prompt": "q", "completion": "a", "label": True},
    ):
        assert '"name": "f"' in str(read(record | {"tools": tools}).tools)


def test_a_verdict_may_be_written_as_tables_do() -> None:
    form = Format(SHAPES["feedback"], {"label": "thumb"})
    record = {"prompt": "q", "completion": "a"}
    for good in (True, 1, 1.0, "true", "True", " TRUE ", "1"):
        assert form.content(record | {"thumb": good}).label is True
    for bad in (False, 0, "false", "0"):
        assert form.content(record | {"thumb": bad}).label is False


@pytest.mark.parametrize("odd", [None, 2, -1, "up", "", [], 0.5])
def test_any_other_verdict_is_unusable(odd: object) -> None:
    record = {"prompt": "q", "completion": "a", "label": odd}
    assert unusable(record, "feedback") == f"label is not true or false: {odd!r}"


def test_feedback_without_an_answer_or_question_is_unusable() -> None:
    assert unusable({"prompt": "q", "label": True}, "feedback") == "completion is missing"
    assert unusable({"completion": "a", "label": True}, "feedback") == "prompt is missing"
    assert unusable({"messages": [SKY], "label": True}, "feedback").startswith("no answer")
    assert unusable({"prompt": [SKY], "completion": [], "label": True}, "feedback") == "no turns"


def test_prompts_alone_are_unusable_when_the_format_is_named() -> None:
    assert unusable({"prompt": [SKY]}, "prompt_completion") == "completion is missing"


def test_pairs_in_from_and_value_are_read_with_their_conversation() -> None:
    record = {
        "conversations": [{"from": "human", "value": "What color is the sky?"}],
        "chosen": {"from": "gpt", "value": "It is blue."},
        "rejected": {"from": "gpt", "value": "It is green."},
    }
    assert read(record) == Content("preference", (ASKED,), (GOOD,), (BAD,))


def test_the_label_is_no_part_of_what_is_kept_beside() -> None:
    record = {"prompt": "q", "completion": "a", "label": True, "rater": 7}
    assert Format(SHAPES["feedback"]).meta(record) == '{"rater": 7}'
