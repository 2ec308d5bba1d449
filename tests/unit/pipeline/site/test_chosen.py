"""What a form of the chat may have."""

from __future__ import annotations

import pytest

from pipeline.site.talks.chosen import Chosen
from pipeline.talk.talk import Drawing
from registry.errors import UserError


def test_what_is_left_out_is_what_the_page_begins_with() -> None:
    assert Chosen.of({"tokens": "", "other": "x"}) == Chosen()
    assert Chosen().drawing() == Drawing()
    assert Chosen().asked_by == (None, None)
    assert Chosen.of({"prompt": "form/few_shot_5"}).asked_by == ("few_shot_5", "form")


def test_line_breaks_are_as_they_were_typed() -> None:
    assert Chosen.of({"text": "a\r\nb\nc"}).text == "a\nb\nc"


def test_how_answers_are_drawn() -> None:
    chosen = Chosen.of({"tokens": " 9 ", "temperature": "1.5", "seed": "0"})
    assert chosen.drawing() == Drawing(limit=9, temperature=1.5, seed=0)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("tokens", "0", "'0' is no number of tokens; expected 1 to"),
        ("tokens", "-3", "'-3' is no number of tokens"),
        ("tokens", "\u0663", "is no number of tokens"),
        ("tokens", "9" * 5000, "is no number of tokens"),
        ("temperature", "2.1", "'2.1' is no temperature; expected 0 to 2"),
        ("temperature", "nan", "'nan' is no temperature"),
        ("temperature", "hot", "'hot' is no temperature"),
        ("seed", "x", "'x' is no seed"),
    ],
)
def test_a_value_that_cannot_be(part: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Chosen.of({part: value}).drawing()


def test_a_long_text_does_not_go_into_an_address() -> None:
    assert Chosen(text="a").query()["text"] == "a"
    assert Chosen(text="a" * 5000).query()["text"] == ""
