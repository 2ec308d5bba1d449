"""Whom the page answers: names that nobody else decides about, and a token beyond this machine."""

from __future__ import annotations

import pytest

from pipeline.site.guard import Access
from pipeline.site.render import cell, cut, href
from pipeline.site.site import Asked
from registry.errors import UserError


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8642", "localhost:8642", "LOCALHOST:8642", "[::1]:8642"]
)
def test_on_the_loopback_its_own_names_are_ours(host: str) -> None:
    assert Access.to("127.0.0.1", 8642).is_ours(host)


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "127.0.0.1:80", "evil.example:8642", "localhost.evil.example:8642",
     "127.0.0.1.evil.example:8642", "10.0.0.5:8642", "evil.example", "127.0.0.1:8642:8642"],
)  # fmt: skip
def test_no_other_name_is_even_where_it_leads_here(host: str) -> None:
    assert not Access.to("127.0.0.1", 8642).is_ours(host)


def test_elsewhere_addresses_in_digits_are_ours_and_names_that_others_give_are_not() -> None:
    access = Access.to("0.0.0.0", 8642)  # noqa: S104 - what is asked for
    assert access.is_ours("10.0.0.5:8642")
    assert access.is_ours("[fe80::1]:8642")
    assert not access.is_ours("evil.example:8642")
    assert Access.to("box.lan", 8642).is_ours("box.lan:8642")


def test_only_this_machine_needs_no_token() -> None:
    assert Access.to("127.0.0.1", 1).token is None
    first, second = (Access.to("10.0.0.5", 1).token for _ in range(2))
    assert first is not None
    assert first != second
    assert len(first) > 40


def test_the_address_that_is_printed_is_one_to_open_here() -> None:
    assert Access.to("127.0.0.1", 80).url == "http://127.0.0.1:80/"
    access = Access.to("::", 80)
    assert access.url == f"http://127.0.0.1:80/?token={access.token}"


def test_values_in_an_address_stay_values() -> None:
    found = href("/data/a b?c#d", {"text": "a&b=c", "none": None, "id": ["x", "y"]})
    assert found == "/data/a%20b%3Fc%23d?text=a%26b%3Dc&id=x&id=y"


def test_cells_are_texts_as_people_write_them() -> None:
    values = (None, True, 12345, 0.123456, ["a", 1], "x" * 700)
    shown = [cell(one) for one in values]
    assert shown[:5] == ["", "yes", "12,345", "0.1235", "a, 1"]
    assert shown[5] == cut("x" * 700)
    assert str(shown[5]).endswith("… (700 characters)")


@pytest.mark.parametrize("given", ["-1", "1.5", "²", "9" * 10, "x"])
def test_a_number_in_an_address_is_a_whole_one(given: str) -> None:
    with pytest.raises(UserError, match="whole number"):
        Asked(query={"page": [given]}).number("page", 0)


def test_a_choice_is_among_those_that_there_are() -> None:
    asked = Asked(query={"way": ["x", "lost"], "split": ["no"]})
    assert asked.choice("way", ("", "lost")) == "lost"
    assert asked.choice("part", ("rows", "rejects")) == "rows"
    with pytest.raises(UserError, match="no split 'no'; expected dev, test"):
        asked.choice("split", ("dev", "test"))
