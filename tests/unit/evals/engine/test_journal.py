"""The journal of answers: what was handed over is found again, also beside a torn last line."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from evals.engine.journal import Journal, keys_of


def test_answers_come_back_and_are_gone_when_discarded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "partial" / "e.jsonl")
    assert (journal.known, journal.get("a")) == (0, None)
    assert not journal.path.parent.exists()
    journal.add("a", (-1.5, True))
    journal.add("b", 'text with\nlines, "quotes" and \u4e2d\u6587')
    journal.flush()
    again = Journal(journal.path)
    assert again.known == 2
    assert (again.get("a"), again.get("b")) == ([-1.5, True], 'text with\nlines, "quotes" and 中文')
    again.discard()
    assert Journal(journal.path).known == 0


def test_a_torn_last_line_is_passed_over_and_hurts_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    Journal(path).add("a", (-1.0, False))
    whole = path.read_bytes()
    for cut in range(1, 20):
        path.write_bytes(whole + b'["b", "torn by a kill"]'[:cut])
        journal = Journal(path)
        assert (journal.known, journal.get("a"), journal.get("b")) == (1, [-1.0, False], None)
        journal.add("c", "next")
        journal.flush()
        assert Journal(path).get("c") == "next"


def test_what_two_processes_hand_over_is_there(tmp_path: Path) -> None:
    one, other = (Journal(tmp_path / "e.jsonl") for _ in range(2))
    for number in range(100):
        one.add(f"one {number}", "x" * 100)
        other.add(f"other {number}", "y" * 100)
    one.flush()
    other.flush()
    assert Journal(one.path).known == 200


def test_an_answer_with_a_flipped_bit_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    Journal(path).add("a", (-1.0, False))
    Journal(path).add("b", "positive")
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        journal = Journal(path)
        found = [journal.get("a"), journal.get("b")]
        assert found in ([None, "positive"], [[-1.0, False], None], [None, None])


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=20))
def test_keys_are_those_of_the_requests(pairs: list[tuple[str, str]]) -> None:
    keys = keys_of("loglikelihood", pairs)
    assert len(set(keys)) == len(set(pairs))
    assert keys[::-1] == keys_of("loglikelihood", pairs[::-1])
    assert not pairs or keys != keys_of("generate_until", pairs)
