"""What a stage says when it stops for too many rejects."""

from __future__ import annotations

from registry.datasets.versions.rejects import commonest


def test_three_reasons_are_told_the_commonest_first_each_by_its_first_row() -> None:
    rejects = [
        ("empty", "a.csv:9"),
        ("take 600 tokens of 512", "a.csv:2"),
        ("rare", "a.csv:1"),
        ("take 700 tokens of 512", "a.csv:3"),
        ("empty", "a.csv:4"),
        ("take 513 tokens of 512", "b.csv:1"),
        ("odd", "a.csv:5"),
        ("odd", "a.csv:6"),
    ]
    assert commonest(rejects) == (
        "3 x take 600 tokens of 512 (first a.csv:2); 2 x empty (first a.csv:9); "
        "2 x odd (first a.csv:5)"
    )
    assert commonest([]) == ""
