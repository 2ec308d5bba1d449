"""Answers in OpenAI's shapes: the types of its own client read each of them."""

from __future__ import annotations

import math

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from evals.engine.live.ask import Finish, Token
from pipeline.serving.shapes import ChatShape, TextShape, Usage

END = Finish("stop", "é!", 3, 3, 0.1, 0.2)
TOKENS = [Token(1, -0.5, ((1, -0.5), (2, -1.5))), Token(2, -math.inf, ((1, -0.1),))]
SAID = {1: "é", 2: "!"}.__getitem__


def test_a_chat_answer() -> None:
    shape = ChatShape("champion", SAID, top=2)
    body = shape.whole([shape.choice(0, END, TOKENS)], Usage(3, 3))
    read = ChatCompletion.model_validate(body)
    assert read.model == "champion"
    assert read.choices[0].message.content == "é!"
    assert read.choices[0].finish_reason == "stop"
    assert read.usage is not None
    assert read.usage.total_tokens == 6
    logprobs = read.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [one.token for one in logprobs.content] == ["é", "!"]
    assert [one.logprob for one in logprobs.content] == [-0.5, -9999.0]
    assert logprobs.content[0].bytes == [0xC3, 0xA9]
    assert [one.token for one in logprobs.content[0].top_logprobs] == ["é", "!"]


def test_no_log_probabilities_unless_asked_for() -> None:
    shape = ChatShape("m", SAID)
    assert shape.choice(0, END, [Token(1)])["logprobs"] is None
    assert shape.part(0, "é", [Token(1)])["logprobs"] is None


def test_a_chat_stream() -> None:
    shape = ChatShape("m", SAID, top=0)
    made = [shape.first(1), shape.part(1, "é", TOKENS[:1]), shape.last(1, END)]
    read = [ChatCompletionChunk.model_validate(shape.chunk([one])) for one in made if one]
    assert [one.choices[0].delta.content for one in read] == ["", "é", None]
    assert [one.choices[0].finish_reason for one in read] == [None, None, "stop"]
    assert {one.choices[0].index for one in read} == {1}
    assert len({one.id for one in read}) == 1
    last = ChatCompletionChunk.model_validate(shape.chunk([], Usage(1, 2)))
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 3


def test_a_text_answer_behind_its_prompt() -> None:
    shape = TextShape("m", SAID, top=1, echoed=("!",))
    prompt = Token(TOKENS[1].id)  # nothing is before it
    made = shape.whole([shape.choice(0, END, (prompt, *TOKENS))], Usage(1, 1))
    assert made["choices"][0]["text"] == "!é!"
    logprobs = made["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["!", "é", "!"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"] == [
        None,
        {"é": -0.5, "!": -1.5},
        {"é": -0.1, "!": -9999.0},
    ]


def test_of_tokens_with_one_text_the_likelier_is_told() -> None:
    shape = TextShape("m", lambda _: "?", top=1)
    token = Token(1, -3.0, ((0, -0.5),))
    likely = shape.part(0, "?", (token,))["logprobs"]["top_logprobs"]
    assert likely == [{"?": -0.5}]


def test_a_text_stream_says_the_prompt_once() -> None:
    shape = TextShape("m", SAID, top=1, echoed=("ab",))
    assert shape.first(0) is not None
    shape.part(0, "", TOKENS[:1])
    assert shape.part(0, "!", TOKENS[1:])["logprobs"]["text_offset"] == [1]
    assert TextShape("m", SAID).first(0) is None
    assert TextShape("m", SAID).last(0, END)["finish_reason"] == "stop"
