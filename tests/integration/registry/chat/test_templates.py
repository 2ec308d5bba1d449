"""What is trained with public chat templates is what is asked for with them, or it is refused.

`GAPMEND_WRITE_DOCS=1 pytest` on this file writes tests/templates/trained.json, to be read before it
is committed, and the table in docs/reference/templates.md.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.training.examples.encode import IGNORED, RowRejectedError, TrainingRow, encode_row
from registry.chat.chat import Chat
from registry.chat.settings import ChatSettings, Thinking
from tests.support.templates import FOLDER, TEMPLATES, PublicTemplate, as_loaded, public_chat

TABLE = Path(__file__).parents[4] / "docs" / "reference" / "templates.md"
WAYS: tuple[Thinking, ...] = ("off", "on")
WRITE = os.environ.get("GAPMEND_WRITE_DOCS") == "1"
CALL: dict[str, Any] = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "add_up", "arguments": {"first": 2, "second": "three"}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add_up",
            "description": "adds numbers",
            "parameters": {
                "type": "object",
                "properties": {
                    "first": {"type": "integer", "description": "one"},
                    "second": {"type": "string", "description": "two"},
                },
                "required": ["first"],
            },
        },
    }
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


SEVERAL = (user("asked one"), said("said one"), user("asked two"), said("said two"))
KINDS: dict[str, tuple[dict[str, Any], ...]] = {
    "single": SEVERAL[:2],
    "several": (*SEVERAL, user("asked three"), said("said three")),
    "system": ({"role": "system", "content": "rules"}, *SEVERAL),
    "tools": (
        user("asked one"),
        said("", tool_calls=[CALL]),
        {"role": "tool", "name": "add_up", "tool_call_id": "abcdef123", "content": "result 5"},
        said("said one"),
    ),
    "thinking": (
        user("asked one"),
        said("said one", reasoning="thought one"),
        user("asked two"),
        said("said two", reasoning="thought two"),
    ),
}


def row(kind: str) -> TrainingRow:
    return TrainingRow(1, KINDS[kind], TOOLS if kind == "tools" else None, "c", f"{kind}.jsonl:1")


def trained(chat: Chat, given: TrainingRow) -> list[str] | str:
    """The trained turns of a conversation, or why there are none."""
    try:
        examples = encode_row(as_loaded(chat), given)
    except RowRejectedError as error:
        return f"refused: {error}"
    texts: list[str] = []
    for example in examples:
        kept = example.labels != IGNORED
        begins = [at for at in range(len(kept)) if kept[at] and not (at and kept[at - 1])]
        for begin in begins:
            end = begin
            while end < len(kept) and kept[end]:
                end += 1
            texts.append(chat.tokenizer.decode(example.input_ids[begin:end]))
    return texts


def outcomes(template: PublicTemplate, thinking: Thinking) -> dict[str, list[str] | str]:
    chat = public_chat(template, ChatSettings(thinking=thinking, date="2026-01-31"))
    return {kind: trained(chat, row(kind)) for kind in KINDS}


def all_outcomes() -> dict[str, dict[str, list[str] | str]]:
    """Of each template, and with the setting of `thinking` that what is refused is offered."""
    found: dict[str, dict[str, list[str] | str]] = {}
    for template in TEMPLATES:
        found[template.name] = outcomes(template, "auto")
        said = json.dumps(found[template.name])
        for way in WAYS:
            if f"thinking: {way}" in said:
                found[f"{template.name}, thinking: {way}"] = outcomes(template, way)
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, list[str] | str]]:
    made = all_outcomes()
    if WRITE:
        text = json.dumps(made, ensure_ascii=False, indent=1)
        (FOLDER / "trained.json").write_text(f"{text}\n", encoding="utf-8")
        TABLE.write_text(table(made), encoding="utf-8")
    return made


def table(made: dict[str, dict[str, list[str] | str]]) -> str:
    """The page in docs."""
    reasons: dict[str, int] = {}
    lines = []
    for name, kinds in made.items():
        cells = []
        for outcome in kinds.values():
            if isinstance(outcome, str):
                reason = outcome.removeprefix("refused: ").replace(name.partition(",")[0], "BASE")
                number = reasons.setdefault(reason, len(reasons) + 1)
                cells.append(f"({number})")
            else:
                cells.append("right")
        shown = re.sub(r", thinking: (\w+)", r" (\1)", name)
        lines.append(f"|{shown}|{'|'.join(cells)}|")
    return "\n".join(
        [
            "# Chat templates",
            "",
            (
                "What is trained of five conversations with public templates: one question, "
                "three, a system text, a tool call with its result, thoughts before answers. "
                "*right*: each answer from the generation prompt up to and with its end of "
                "turn, the thought and the call with it (without the thought where thinking "
                "is off), and nothing else; [the trained "
                "texts](../../tests/templates/trained.json). *(1)*: the row is refused, by its "
                "file and line, for that reason. `(off)`: with `thinking: off`. Made by "
                "`tests/integration/registry/chat/test_templates.py`."
            ),
            "",
            f"|template|{'|'.join(KINDS)}|",
            f"|---{'|---' * len(KINDS)}|",
            *lines,
            "",
            *(f"{number}. {reason}" for reason, number in reasons.items()),
            "",
        ]
    )


def test_what_is_trained_is_as_it_was_read(found: Any) -> None:
    kept = json.loads((FOLDER / "trained.json").read_text(encoding="utf-8"))
    assert found == kept


def test_the_table_in_docs_is_made_of_it(found: Any) -> None:
    assert TABLE.read_text(encoding="utf-8") == table(found)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_nothing_but_the_answers_is_trained(template: PublicTemplate, found: Any) -> None:
    """By the words alone, whatever the template: all of each answer, and nobody else's."""
    right = 0
    for name, kinds in found.items():
        if name.partition(",")[0] != template.name:
            continue
        for kind, texts in kinds.items():
            if isinstance(texts, str):
                reasons = ("asks with", "leaves out", "refuses")
                assert texts.startswith(
                    tuple(f"refused: the chat template {one}" for one in reasons)
                )
                continue
            right += 1
            turns = [turn for turn in KINDS[kind] if turn["role"] == "assistant"]
            assert len(texts) == len(turns)
            for text, turn in zip(texts, turns, strict=True):
                assert turn["content"] in text
                assert text.endswith(template.stops)
                assert not any(word in text for word in ("asked", "rules", "result"))
                if "tool_calls" in turn:
                    assert all(word in text for word in ("add_up", "first", "2", "second", "three"))
                if "off" not in name:
                    assert turn.get("reasoning", "") in text
                others = {other["content"] for other in turns} - {turn["content"], ""}
                assert not any(other in text for other in others)
    assert right or template.name == "hermes3-tool-use"


# Of the others, one wants texts as parts, and one tools whatever is asked.
ASKED = [one for one in TEMPLATES if one.name not in ("smolvlm", "hermes3-tool-use")]


@pytest.mark.parametrize("template", ASKED, ids=lambda template: template.name)
def test_the_context_is_what_transformers_asks_with(template: PublicTemplate) -> None:
    chat = public_chat(template, ChatSettings())
    for messages in (SEVERAL[:1], SEVERAL[:3]):
        theirs = chat.tokenizer.apply_chat_template(
            [dict(one) for one in messages], tokenize=False, add_generation_prompt=True
        )
        assert chat.context(messages) == theirs


def test_a_thought_is_asked_for_by_the_setting() -> None:
    qwen3 = next(one for one in TEMPLATES if one.name == "qwen3")
    asked = {
        thinking: public_chat(qwen3, ChatSettings(thinking=thinking)).context(SEVERAL[:1])
        for thinking in ("auto", "on", "off")
    }
    assert asked["on"] == asked["auto"]
    assert asked["off"] == asked["auto"] + "<think>\n\n</think>\n\n"


def test_a_date_is_the_workspaces() -> None:
    llama = next(one for one in TEMPLATES if one.name == "llama3.2")
    chat = public_chat(llama, ChatSettings(date="2024-02-29"))
    assert "Today Date: 29 Feb 2024" in chat.context(SEVERAL[:1])
    other = Chat(chat.tokenizer, chat.identity, replace(chat.settings, date="2031-12-01"))
    assert "Today Date: 01 Dec 2031" in other.context(SEVERAL[:1])


def only(kept: int) -> TrainingRow:
    """Three answers, of which one is trained."""
    turns = KINDS["several"]
    shown = [
        {**turn, "train": False} if turn["role"] == "assistant" and at != kept else turn
        for at, turn in enumerate(turns)
    ]
    return TrainingRow(1, tuple(shown), None, "c", "f:1")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_an_answer_that_is_context_is_so_with_its_end(template: PublicTemplate, found: Any) -> None:
    """As LlamaFactory's pull request 10827: history that is kept out still trained its end.

    Nor is an end lost that is the pad token too (unsloth's issue 416): nothing is told by its id.
    """
    for name, kinds in found.items():
        if name.partition(",")[0] != template.name or isinstance(kinds["several"], str):
            continue
        thinking = cast("Thinking", name.partition("thinking: ")[2] or "auto")
        chat = public_chat(template, ChatSettings(thinking=thinking, date="2026-01-31"))
        for number, text in enumerate(kinds["several"]):
            chat.tokenizer.pad_token = template.stops[number % len(template.stops)]
            assert trained(chat, only(2 * number + 1)) == [text]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("gemma", "<end_of_turn>"),
        ("gemma3", "<end_of_turn>"),
        ("gemma4", "<turn|>"),
        ("llama3.1", "<|eot_id|>"),
        ("qwen2.5", "<|im_end|>"),
    ],
)
def test_a_turns_end_is_trained_where_configs_know_only_another(name: str, end: str) -> None:
    """As axolotl's issue 3754: Gemma's tokenizer and config know <eos>, which no turn ends with."""
    template = next(one for one in TEMPLATES if one.name == name)
    chat = public_chat(replace(template, stops=("<eos>",)))
    chat.tokenizer.add_special_tokens(
        {"additional_special_tokens": [end]}, replace_extra_special_tokens=False
    )
    assert trained(chat, row("several")) == [f"said {n}{end}" for n in ("one", "two", "three")]


def test_turns_that_a_template_rewrites_are_examples_of_their_own() -> None:
    qwen3 = next(one for one in TEMPLATES if one.name == "qwen3")
    chat = public_chat(qwen3)
    examples = encode_row(as_loaded(chat), row("thinking"))
    assert len(examples) == 2
    last = chat.tokenizer.decode(examples[1].input_ids)
    assert "thought one" not in last
    assert last.startswith(chat.context(KINDS["thinking"][:3]))


WRITTEN_CALL = (
    '<tool_call>\n{"name": "add_up", "arguments": ' + json.dumps(CALL["function"]["arguments"])
    + "}\n</tool_call>"
)  # fmt: skip


def test_tools_that_a_template_leaves_out_are_said_in_texts(
    found: dict[str, dict[str, list[str] | str]],
) -> None:
    left_out = [t for t in TEMPLATES if "Set tools: text in" in str(found[t.name]["tools"])]
    assert len(left_out) > 9
    for template in left_out:
        for system in ("keep", "join"):
            told = ChatSettings(system=system, date="2026-01-31", tools="text")
            chat = public_chat(template, told)
            texts = trained(chat, row("tools"))
            if isinstance(texts, list):
                break
        assert isinstance(texts, list), (template.name, texts)
        call, answer = texts
        assert call == answer.replace("said one", WRITTEN_CALL), template.name  # and the same end
        context = chat.context([dict(turn) for turn in KINDS["tools"][:3]], TOOLS)
        assert context.count(WRITTEN_CALL) == 1
        assert json.dumps(TOOLS[0]) in context
        assert "<tool_response>\nresult 5\n</tool_response>" in context


def calling(name: str, tools: Any) -> list[str] | str:
    """What is trained of the conversation with a call when nothing in it has an id."""
    template = next(one for one in TEMPLATES if one.name == name)
    chat = public_chat(template, ChatSettings(thinking="off", date="2026-01-31"))
    bare = tuple(
        {key: value for key, value in turn.items() if key not in ("tool_call_id", "tool_calls")}
        for turn in KINDS["tools"]
    )
    call = said("", tool_calls=[{"type": "function", "function": CALL["function"]}])
    return trained(chat, TrainingRow(1, (bare[0], call, *bare[2:]), tools, "c", "f:1"))


def test_calls_without_ids_are_trained_where_a_template_wants_ids() -> None:
    texts = calling("mistral-nemo", TOOLS)
    assert texts[0] == (
        '[TOOL_CALLS][{"name": "add_up", "arguments": {"first": 2, "second": "three"}, '
        '"id": "call00001"}]</s>'
    )
    assert texts[1:] == ["said one</s>"]


def test_arguments_are_text_where_a_template_wants_text() -> None:
    texts = calling("deepseek-v3", None)
    assert '```json\n{"first": 2, "second": "three"}\n```' in texts[0]
