"""What a request may say, what is passed over, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.serving.refusal import of_fields
from pipeline.serving.requests import ChatRequest, CompletionRequest

HELLO = [{"role": "user", "content": "Hello"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "nano", "messages": HELLO, **fields})


def refusal(kind: type[ChatRequest | CompletionRequest], **fields: Any) -> tuple[str, str | None]:
    """The message and the field of the error that such a request is answered with."""
    usual: dict[str, Any] = {"messages": HELLO} if kind is ChatRequest else {"prompt": "x"}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "nano", **usual, **fields})
    error = of_fields(caught.value).body()["error"]
    assert error["type"] == "invalid_request_error"
    return error["message"], error["param"]


def test_the_defaults_are_openai_s() -> None:
    asked = chat()
    assert (asked.temperature, asked.top_p, asked.n, asked.max_tokens) == (1.0, 1.0, 1, None)
    assert (asked.stream, asked.top, asked.stop) == (False, None, ())
    assert CompletionRequest.model_validate({"model": "nano", "prompt": "x"}).max_tokens == 16


@pytest.mark.parametrize(
    "field",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}, "store": True},
        {"service_tier": "auto", "parallel_tool_calls": True},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"seed": None, "stop": None, "tools": None, "stream_options": None, "logprobs": None},
    ],
)
def test_what_changes_no_answer_is_passed_over(field: dict[str, Any]) -> None:
    assert chat(**field) == chat()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format isn't done here"),
        ({"frequency_penalty": 0.5}, "frequency_penalty isn't done here; expected 0"),
        ({"logit_bias": {"1": 5}}, "logit_bias isn't done here"),
        ({"reasoning_effort": "low"}, "reasoning_effort isn't done here; expected no"),
        ({"functions": [{"name": "f"}]}, "functions isn't done here"),
        ({"tool_choice": "required"}, "expected 'auto' or 'none'"),
        ({"top_logprobs": 2}, "expected with logprobs: true"),
    ],
)
def test_what_would_change_an_answer_and_isn_t_done_is_refused(
    field: dict[str, Any], said: str
) -> None:
    assert said in refusal(ChatRequest, **field)[0]


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_k": 5}, "top_k"),
        ({"seed": "x"}, "seed"),
        ({"stop": [""]}, "stop.0"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages.0.role"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    ],
)
def test_a_wrong_field_is_named(field: dict[str, Any], param: str) -> None:
    message, named = refusal(ChatRequest, **field)
    assert named == param
    assert message.startswith(f"{param}: ")


def test_a_picture_is_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    _, param = refusal(ChatRequest, messages=[{"role": "user", "content": [part]}])
    assert (param or "").startswith("messages.0.content")


def test_several_mistakes_are_counted() -> None:
    assert refusal(ChatRequest, temperature=3, top_p=3)[0].endswith("(and 1 more)")


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate([1])


def test_the_new_name_of_the_limit_and_one_stop_text() -> None:
    asked = chat(max_completion_tokens=7, stop="\n")
    assert (asked.max_tokens, asked.stop) == (7, ("\n",))


def test_tools_that_are_not_to_be_called_are_left_out() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert chat(tools=[tool], tool_choice="none").tools == ()
    assert [one.as_chat() for one in chat(tools=[tool], tool_choice="auto").tools] == [tool]


def test_messages_are_those_that_templates_are_given() -> None:
    said = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
        # As clients send back what they got.
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
            "refusal": None,
            "audio": None,
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": "2", "annotations": [], "function_call": None},
    ]
    assert [one.as_chat() for one in chat(messages=said).messages] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "2"},
    ]


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    call = {**CALL, "function": {"name": "f", "arguments": "not json"}}
    (message,) = chat(messages=[{"role": "assistant", "tool_calls": [call]}]).messages
    assert message.as_chat()["tool_calls"][0]["function"]["arguments"] == "not json"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_prompts_are_texts_or_tokens(prompt: Any, prompts: tuple[Any, ...]) -> None:
    assert CompletionRequest.model_validate({"model": "m", "prompt": prompt}).prompts == prompts


@pytest.mark.parametrize("prompt", [None, [], [-1], [[1], "a"], 5, ["a"] * 1025])
def test_no_other_prompts(prompt: Any) -> None:
    refusal(CompletionRequest, prompt=prompt)


def test_completions_are_asked_one_best() -> None:
    assert "best_of isn't done here" in refusal(CompletionRequest, best_of=3)[0]
