"""Hypothesis strategies for rows as the store has them: of any text, each kind, tools and calls."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.turns import json_text

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
SAID = TEXTS.filter(lambda text: bool(text.strip()))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False,
        allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
OBJECTS = st.dictionaries(TEXTS, _VALUES, max_size=3)


@st.composite
def calls(draw: st.DrawFn) -> str:
    """Tool calls in the one form that the readers write."""
    made = draw(st.lists(st.tuples(TEXTS, OBJECTS | st.just("not an object")), min_size=1,
                         max_size=2))  # fmt: skip
    return json_text(
        [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in made]
    )


def _tools() -> st.SearchStrategy[str | None]:
    schema = st.builds(_schema, TEXTS, OBJECTS)
    return st.none() | st.lists(schema, min_size=1, max_size=2).map(json_text)


def _schema(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


_NAMES = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
_FLAGS = st.none() | st.booleans()
_ASKED = st.builds(Message, st.just("user"), SAID, name=_NAMES)
_ANSWERED = st.builds(Message, st.just("assistant"), SAID, name=_NAMES, train=_FLAGS)
_CALLED = st.builds(Message, st.just("assistant"), st.just(""), calls(), train=_FLAGS)
_RESULT = st.builds(Message, st.just("tool"), TEXTS, name=_NAMES)
_ANY = st.one_of(_ASKED, _ANSWERED, _CALLED, _RESULT)
_SYSTEM = st.builds(Message, st.just("system"), TEXTS.filter(bool))


@st.composite
def _questions(draw: st.DrawFn) -> tuple[Message, ...]:
    head = draw(st.lists(_SYSTEM, max_size=1))
    between = draw(st.lists(_ANY, max_size=3))
    return (*head, draw(_ASKED), *between)


@st.composite
def contents(draw: st.DrawFn, kind: str | None = None) -> Content:
    """A row of the kind, or of any; what the readers would refuse is not among them."""
    kind = kind or draw(st.sampled_from(["sft", "text", "preference", "feedback"]))
    if kind == "text":
        return Content("text", (Message("text", draw(SAID)),))
    question, tools = draw(_questions()), draw(_tools())
    if kind == "preference":
        chosen, rejected = draw(
            st.tuples(_ANSWERED, _ANSWERED).filter(lambda pair: pair[0] != pair[1])
        )
        return Content("preference", question, chosen=(chosen,), rejected=(rejected,), tools=tools)
    messages = (*question, draw(_ANSWERED))
    if kind == "feedback":
        return Content("feedback", messages, label=draw(st.booleans()), tools=tools)
    return Content("sft", messages, tools=tools)
