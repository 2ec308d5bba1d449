"""Judgements on rows of the pool: likeness to a gap, what looks wrong, which answers hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pipeline.selection.choose import cosines
from pipeline.selection.judge.answers import UNUSABLE, repeats, why_unusable
from pipeline.selection.judge.likeness import above_floor, floor_of, owners
from pipeline.selection.judge.mislabelled import FEWEST, doubted_answers, doubted_labels
from pipeline.selection.judge.terms import Terms


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def around(centres: np.ndarray, each: int, spread: float, seed: int = 0) -> np.ndarray:
    """So many rows about each centre, one centre after the other."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(centres, each, axis=0)
    return unit(rows + rng.normal(size=rows.shape) * spread)


def at(*degrees: float) -> np.ndarray:
    """Unit rows at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


NONE = np.zeros((0, 2), np.float32)


def test_the_floor_is_what_nearly_all_failures_have_to_another_one() -> None:
    """Angles 0, 10, 30 and 90 degrees: nearest others at 10, 10, 20 and 60 degrees."""
    failures = at(0, 10, 30, 90)
    assert floor_of(failures, NONE, share=0.0) == pytest.approx(np.cos(np.radians(60)), abs=1e-6)
    assert floor_of(failures, NONE, share=1.0) == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert floor_of(failures[:2], NONE) == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert floor_of(failures[:1], failures) == 0.0
    assert floor_of(NONE, failures) == 0.0
    assert floor_of(at(0, 180), NONE) == 0.0  # never a row that is unlike


def test_the_floor_is_at_most_half_way_from_what_is_usual_in_the_pool() -> None:
    """Failures that are all alike (cosine 1) would have no other words of their kind."""
    same = at(0, 0, 0)
    assert floor_of(same, NONE) == pytest.approx(1.0)
    assert floor_of(same, at(90, 90, 0)) == pytest.approx(0.5, abs=1e-6)
    assert floor_of(same, at(0, 0, 90)) == pytest.approx(1.0)  # a pool of their kind
    assert floor_of(same, at(180, 180, 180)) == 0.0


@given(st.integers(0, 2**16))
def test_rows_of_the_failures_kind_are_above_their_floor_and_others_below(seed) -> None:
    """188 of 200 are on average; the fewest of 4,000 draws were 162."""
    one, other = np.eye(32)[:1], np.eye(32)[1:2]
    failures = around(one, 100, 0.08, seed)
    floor = floor_of(failures, np.zeros((0, 32), np.float32))
    near = above_floor(around(one, 200, 0.08, seed + 1), [failures], [floor])
    far = above_floor(around(other, 200, 0.08, seed + 2), [failures], [floor])
    assert (near >= 0).sum() >= 140
    assert (far >= 0).sum() == 0


def test_a_row_is_measured_in_the_form_that_it_has() -> None:
    plain, prompted = np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[1:2]
    rows = unit(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]))
    assert above_floor(rows, [plain, prompted], [0.9, 0.5]) == pytest.approx(
        [0.1, 0.5, -0.5, 0.5**0.5 - 0.9], abs=1e-6
    )
    assert above_floor(rows[:0], [plain], [0.0]).shape == (0,)
    assert above_floor(rows[:1], [plain[:0]], [0.0]).tolist() == [-1.0]  # nothing fails


def test_a_row_belongs_to_the_gap_whose_floor_it_is_farthest_above() -> None:
    above = {
        "orders": np.array([0.2, -0.1, 0.0, -0.2], np.float32),
        "intent": np.array([0.1, -0.2, 0.3, -0.1], np.float32),
    }
    assert owners(above) == ["orders", None, "intent", None]
    assert owners({}) == []
    assert owners({"alone": np.array([0.0, -0.01], np.float32)}) == ["alone", None]


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)), max_size=20))
def test_every_row_has_one_owner_at_most_and_only_one_that_it_is_like(values) -> None:
    above = {name: np.array([row[i] for row in values]) for i, name in enumerate("abc")}
    found = owners(above)
    assert len(found) == len(values)
    for row, owner in zip(values, found, strict=True):
        assert (owner is None) == (max(row) < 0)
        assert owner is None or row["abc".index(owner)] == max(row)


def test_sparse_rows_are_judged_as_dense_ones_are() -> None:
    rows = around(np.eye(16)[:4], 30, 0.1)
    labels = [name for name in "abcd" for _ in range(30)]
    labels[3] = "b"
    few = csr_matrix(rows[:10])
    assert doubted_labels(csr_matrix(rows), labels) == doubted_labels(rows, labels)
    assert floor_of(few, csr_matrix(rows)) == pytest.approx(floor_of(rows[:10], rows))
    assert above_floor(csr_matrix(rows), [few], [0.5]) == pytest.approx(
        above_floor(rows, [rows[:10]], [0.5]), abs=1e-6
    )


def test_likeness_is_of_what_texts_are_written_with() -> None:
    terms = Terms.of(["the card was lost", "the card was stolen", "write it as JSON"])
    found = cosines(terms.vectors(["a lost card", "as JSON", "??"]), terms.vectors(["lost cards"]))
    assert found.shape == (3, 1)
    assert found[0, 0] > 0.5 > found[1, 0]
    assert found[2, 0] == 0  # nothing of it is known
    assert terms.vectors([]).shape[0] == 0
    assert Terms.of(["", " "]).vectors(["x"]).shape[0] == 1  # and no error


def test_a_label_that_the_neighbours_deny_is_doubted() -> None:
    asked = around(np.eye(16)[:4], 30, 0.1)
    labels = [name for name in "abcd" for _ in range(30)]
    labels[3], labels[64] = "b", "a"
    found = doubted_labels(asked, labels)
    assert [doubt.position for doubt in found] == [3, 64]
    assert found[0].why == (
        "looks mislabelled: 20 of the 20 rows most like it say 'a', and it says 'b'"
    )


@given(st.integers(0, 2**16), st.integers(0, 8))
def test_flipped_labels_are_found_where_neighbours_foretell_them(seed, flips) -> None:
    rng = np.random.default_rng(seed)
    asked = around(np.eye(16)[:5], 30, 0.1, seed)
    labels = [name for name in "abcde" for _ in range(30)]
    flipped = set(rng.choice(150, size=flips, replace=False).tolist())
    for place in flipped:
        labels[place] = "abcde"["abcde".index(labels[place]) - 1]
    found = {doubt.position for doubt in doubted_labels(asked, labels)}
    assert found <= flipped
    assert len(found) >= flips / 2  # next to another flipped one, a margin can be too small


@given(st.integers(0, 2**16), st.integers(2, 30))
def test_where_questions_say_nothing_of_labels_nothing_is_doubted(seed, kinds) -> None:
    """Two labels by a coin: by votes alone, a sixth of all rows would be doubted."""
    rng = np.random.default_rng(seed)
    asked = unit(rng.normal(size=(200, 8)))
    assert doubted_labels(asked, [f"l{i}" for i in rng.integers(0, kinds, size=200)]) == []


def groups(*labels: str) -> tuple[np.ndarray, list[str]]:
    """Groups of 21 rows at one place each, so that the others of a row's group are its nearest."""
    places = np.repeat(np.eye(len(labels)), 21, axis=0).astype(np.float32)
    return places, [label for group in labels for label in group]


PURE = [label * 21 for label in "cdefghij"]


def test_a_margin_of_six_votes_of_twenty_is_enough_where_neighbours_foretell_labels() -> None:
    """Of 13 a and 8 b each b has 7 votes to 13; of 12 a and 9 b it has 8 to 12."""
    more = ["b" * 21]  # b is no rare label
    found = doubted_labels(*groups("a" * 13 + "b" * 8, "a" * 12 + "b" * 9, *more, *PURE))
    assert [doubt.position for doubt in found] == [*range(13, 21)]
    assert found[0].why.startswith("looks mislabelled: 13 of the 20 rows most like it say 'a'")


def test_where_neighbours_foretell_too_few_labels_nothing_is_doubted() -> None:
    mixed, scattered = ["a" * 16 + "b" * 5, "b" * 21], ["klmnopqrstuvwxyzKLMNO"] * 4
    assert len(doubted_labels(*groups(*mixed, *PURE[:3], *scattered[:1]))) == 5
    assert doubted_labels(*groups(*mixed, *PURE[:1], *scattered)) == []


def test_a_rare_label_is_not_outvoted_by_rows_that_are_only_the_next() -> None:
    """Six rows at a place of their own: of 20 neighbours 15 are others, and none of 5."""
    places, labels = groups(*PURE)
    rare = np.repeat(np.eye(1, len(PURE), dtype=np.float32) * 0.6, 6, axis=0)
    turned = unit(rare + np.eye(1, len(PURE), 1, dtype=np.float32) * 0.8)
    asked = np.vstack([places, turned])
    assert doubted_labels(asked, [*labels, *"r" * 6]) == []
    # One label too few, and nothing is said of it, whatever its neighbours say.
    assert doubted_labels(*groups("a" * 17 + "bbbb", *PURE)) == []


def test_few_rows_or_one_label_say_nothing() -> None:
    asked = around(np.eye(8)[:2], FEWEST // 2, 0.05)
    labels = ["a"] * (FEWEST // 2) + ["b"] * (FEWEST // 2)
    labels[0] = "b"
    assert [doubt.position for doubt in doubted_labels(asked, labels)] == [0]
    assert doubted_labels(asked[:-1], labels[:-1]) == []
    assert doubted_labels(asked, ["a"] * FEWEST) == []
    assert doubted_labels(asked[:0], []) == []


def test_an_answer_far_less_likely_than_the_others_is_doubted() -> None:
    """Median 2.0, median deviation 0.5, so that three deviations end at 2 + 3 x 1.4826 x 0.5."""
    losses = [1.5, 2.0, 2.0, 2.5] * 10 + [1.0, 4.22, 4.23, float("nan"), 3.0]
    losses += [1.0] * 3
    found = doubted_answers(losses)
    assert [doubt.position for doubt in found] == [42]
    assert found[0].why == (
        "looks wrong: the base's loss on its answer is 4.23 a token, and 2.00 on half of the rows"
    )
    assert doubted_answers([1.0] * (FEWEST - 1) + [float("nan"), 9.0][:1]) == []
    assert [one.position for one in doubted_answers([1.0] * FEWEST + [1.1])] == [FEWEST]


def test_a_small_heap_of_unlikely_answers_is_doubted_though_none_is_far_out() -> None:
    """Of 80, each tenth is wrong: three deviations alone end behind all of them."""
    rng = np.random.default_rng(0)
    right, wrong = rng.uniform(1.0, 1.5, 72), rng.normal(1.8, 0.05, 8)
    both = [*right.tolist(), *wrong.tolist()]
    middle = float(np.median(both))
    assert max(both) < middle + 3 * 1.4826 * float(np.median(np.abs(np.array(both) - middle)))
    assert {doubt.position for doubt in doubted_answers(both)} >= {*range(72, 80)}
    assert len(doubted_answers(both)) <= 9
    assert doubted_answers(right.tolist()) == []
    half = [*right.tolist(), *(right[:60] + 0.6).tolist()]  # two forms, and neither is rare
    assert doubted_answers(half) == []


@given(st.lists(st.floats(0, 20), min_size=FEWEST, max_size=200))
def test_at_most_half_of_the_answers_are_doubted_and_those_are_the_least_likely(losses) -> None:
    doubted = {doubt.position for doubt in doubted_answers(losses)}
    assert len(doubted) <= len(losses) / 2
    worst = max((loss for i, loss in enumerate(losses) if i not in doubted), default=0)
    assert all(losses[place] >= worst for place in doubted)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Paris is the capital of France.", None),
        ("Sorry is a word; so is cannot.", None),
        ("No, I can't think of one.", None),
        ("  \n", "empty answers"),
        ("I'm sorry, but I can't help with that.", "refusals"),
        ("I\u2019m sorry, I am unable to open files.", "refusals"),
        ("As an AI language model, I have no body.", "refusals"),
        ("I cannot provide medical advice.", "refusals"),
        ("What is the capital of France? ", "echoes"),
        ("Paris " * 30, "endless repetition"),
    ],
)
def test_an_answer_of_the_base_is_replayed_if_it_is_one(answer, why) -> None:
    assert why_unusable(answer, "What is the capital of France?", ended=True) == why
    assert why is None or why in UNUSABLE


def test_an_answer_that_was_cut_is_not_replayed() -> None:
    assert why_unusable("Paris is", "?", ended=False) == "answers without end"
    assert why_unusable("Paris " * 30, "?", ended=False) == "endless repetition"


@pytest.mark.parametrize(
    "script", ["The sun rises in the east. ", "太阳从东方升起。今天天气很好。"]
)
def test_what_comes_three_times_is_repetition_in_any_script(script) -> None:
    long = script if len(script) > 20 else script * 2
    assert repeats(long.replace("太", "大", 1) + long * 3)
    assert not repeats(" ".join(f"{number}. {word}" for number, word in enumerate(
        "apple pear plum fig grape melon lemon lime cherry peach mango kiwi".split()  # noqa: SIM905
    )))  # fmt: skip
    assert not repeats("ha" * 30)  # short


@given(st.text("abcdefg é.\n", min_size=80, max_size=120))
def test_a_text_said_three_times_over_is_repetition(text) -> None:
    assert repeats(text * 3)


def test_repetition_is_where_fewer_than_half_of_the_pieces_differ() -> None:
    """Of 111 characters there are 100 pieces of 12; of a period of 50, 50 differ."""
    letters = "".join(chr(0x4E00 + place) for place in range(50))
    assert not repeats((letters * 3)[:111])
    assert repeats((letters * 3)[:112])
    assert repeats((letters[:49] * 3)[:111])
    assert repeats("ab" * 36)
    assert not repeats(("ab" * 36)[:71])
