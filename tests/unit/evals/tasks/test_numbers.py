"""One grammar of numbers, for what is answered and what is expected."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.tasks.numbers import expected_number, last_number

NUMBERS = {
    "thousands": {
        "1,234.50 dollars": "1234.5", "10,000,000": "10000000", "12,34,567": "1234567",
        "1'234.5": "1234.5", "1\u2019234": "1234", "1{,}234": "1234", r"1\,234": "1234",
        r"1,\!234": "1234", "1_000_000": "1000000", "1\u202f234": "1234", "1.234.567": "1234567",
    },
    "decimals": {
        ".5": "0.5", "3.": "3", "3,14": "3.14", "1,2345": "1.2345", "0,125": "0.125",
        "1.234,5": "1234.5", "1.234": "1.234", "€ 1.234,50": "1234.5",
        "12,5 und 1.234": "1234",  # the text writes decimal commas
        "12.5 and 1,234": "1234",
    },
    "signs": {
        "x = -7": "-7", "x = - 7": "-7", "it is \N{MINUS SIGN}4": "-4", "- 5": "-5", "+7": "7",
        "-$5": "-5", "$-5": "-5", r"-\$5": "-5", "5 - 3": "3", "a - 5": "5", "(-3)": "-3",
    },
    "fractions": {
        "3/4": "3/4", "-3/4": "-3/4", "1 1/2": "3/2", "-1 1/2": "-3/2", "½": "1/2", "1½": "3/2",
        r"\frac{3}{4}": "3/4", r"$-\dfrac{1}{2}$": "-1/2", r"1\frac{1}{2}": "3/2",
    },
    "powers of ten": {
        "2e3 m": "2000", "1.5E-3": "0.0015", r"2 \times 10^{3}": "2000", "2\u00d710³": "2000",
        "1.5 x 10^-3": "0.0015", "10^6": "1000000", "10⁻²": "0.01",
    },
    "the last one": {
        "1, 2, 3": "3", "7 then 42.": "42", "5kg": "5", "GPT-4 says 7": "7", "١٢٣": "123",
        "42 (as of 2026-11-29)": "42", "2^10 = 1024": "1024", "7-5=2": "2",
        "答案是42。": "42", "共3/4个": "3/4", "정답은 42입니다": "42", "第２題": "2",
    },
    "where the answer is marked": {
        r"so \boxed{42} of 50": "42", r"\boxed{\frac{3}{4}}, not 1": "3/4", r"\fbox{9}": "9",
        r"\boxed{1} or \boxed{2}": "2", "6 * 7\n#### 42\n": "42", "**Answer:** 12. Of 30.": "30",
        "Answer: 3? No.\nAnswer: 5\nas 2 of 9 say": "5", r"x = \boxed{5": "5",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [pytest.param(*one, id=one[0]) for kind in NUMBERS.values() for one in kind.items()],
)
def test_a_number_is_read(text: str, value: str) -> None:
    found = last_number(text)
    assert found is not None
    assert found.parts == (Fraction(value),)


@pytest.mark.parametrize(
    "text",
    [
        *("", "none", "3-5", "3\N{EN DASH}5", "2026-11-29", "29.11.2026", "1.2.3", "1,2,3"),
        *("GPT-4", "H2O", "0x1F", "2^10", "24/0", "1e9999", "192.168.0.1", r"\boxed{x} or 5"),
    ],
)
def test_what_is_no_number_is_not_cut_to_one(text: str) -> None:
    assert last_number(text) is None


def test_a_number_of_any_length_raises_nothing() -> None:
    assert last_number("9" * 400) is not None
    assert last_number("it is 7, or " + "9" * 100_000) == last_number("7")


def test_an_expected_value_that_ends_with_no_number_is_none() -> None:
    assert last_number("of 3 in 2026-11-29") is not None
    assert expected_number("of 3 in 2026-11-29") is None
    assert expected_number("3 in all") is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("3/4", "0.75", True),
        ("3/4", "1/4", False),
        ("50%", "50", True),
        (r"50\%", "0.5", True),
        ("0.5", "50 percent", True),
        ("50%", "5%", False),
        ("12:30", "at 12:30:00", True),
        ("12:30", "30", False),
        ("3:30 pm", "15:30", True),
        ("12:05 a.m.", "0:05", True),
        ("1:2", "1:3", False),
        ("-$5", "5", False),
        ("$5", "5 dollars", True),
    ],
)
def test_they_are_equal_by_value(one: str, other: str, same: bool) -> None:
    first, second = expected_number(one), last_number(other)
    assert first is not None
    assert second is not None
    assert first.same(second) is second.same(first) is same


@given(st.integers(-(10**15), 10**15), st.integers(0, 999), st.sampled_from([",", "'", "{,}", "_"]))
def test_however_thousands_are_set_apart(whole: int, thousandths: int, apart: str) -> None:
    text = f"so it is {whole:,}".replace(",", apart) + f".{thousandths:03}"
    wanted = abs(whole) + Fraction(thousandths, 1000)
    found = last_number(text)
    assert found is not None
    assert found.parts == (-wanted if whole < 0 else wanted,)


@given(st.text(alphabet="0123456789.,:/'-+ e^%$x{}\\", max_size=30))
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or found.same(found)
