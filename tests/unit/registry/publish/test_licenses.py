"""The licence of what was made of several."""

from __future__ import annotations

import pytest

from registry.errors import UserError
from registry.publish.licenses import strictest


@pytest.mark.parametrize(
    ("base", "rows", "whole"),
    [
        ("apache-2.0", "cc0-1.0", "apache-2.0"),
        ("Apache-2.0", "CC-BY-4.0", "cc-by-4.0"),
        ("mit", "apache-2.0", "apache-2.0"),
        ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("llama3.1", "mit", "llama3.1"),
        ("gemma", "gemma", "gemma"),
    ],
)
def test_the_strictest_holds(base: str, rows: str, whole: str) -> None:
    assert strictest({"base b": base, "dataset d": rows}) == whole
    assert strictest({"dataset d": rows, "base b": base}) == whole


@pytest.mark.parametrize(
    ("base", "rows", "said"),
    [
        ("apache-2.0", None, "the licence of dataset d is not known"),
        ("other", "mit", "the licence of base b is not known"),
        ("apache-2.0", "cc-by-nc-nd-4.0", "forbids passing on what is made of it"),
        ("apache-2.0", "my-own", "does not know what the licence of dataset d, my-own"),
        ("gpl-3.0", "cc-by-sa-4.0", "base b (gpl-3.0)"),
        ("cc-by-sa-4.0", "cc-by-nc-4.0", "can't all be kept at once: dataset d (cc-by-nc-4.0)"),
        ("llama3", "cc-by-nc-4.0", "can't all be kept at once"),
    ],
)
def test_what_has_no_licence_for_the_whole_is_refused(
    base: str, rows: str | None, said: str
) -> None:
    with pytest.raises(UserError) as raised:
        strictest({"base b": base, "dataset d": rows})
    assert said in str(raised.value)


def test_nothing_has_no_licence() -> None:
    with pytest.raises(UserError):
        strictest({})
