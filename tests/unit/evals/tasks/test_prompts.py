"""Filling templates, the arms, and the examples that they show."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.tasks.capability import CapabilitySpec, Item, PromptsSpec, items_from_rows, labels_of
from evals.tasks.prompts import arms_of, choose_shots, fill, render_messages
from evals.tasks.similar import similar_shots
from registry.datasets.formats.content import Message
from registry.datasets.versions.row import Row
from registry.errors import UserError

_PROMPTS = PromptsSpec(
    zero_shot="Q: {input}", few_shot=(3,), examples=("random",), cot="Think. {input}"
)
ZERO, FEW, COT = arms_of(_PROMPTS)


def item(uid: int, text: str = "", cluster: int | None = None) -> Item:
    fields = {"input": text or f"question {uid}", "output": f"answer {uid}"}
    return Item(uid, f"{uid:064x}", fields, f"answer {uid}", uid if cluster is None else cluster)


def row(uid: int, messages, **values) -> Row:
    defaults = {
        "kind": "sft", "chosen": None, "rejected": None, "label": None, "tools": None,
        "split": "dev", "cluster": uid, "dataset": "d", "source_file": "d.csv",
        "source_line": uid + 1, "license": "", "tags": (), "meta": "{}",
    }  # fmt: skip
    turns = tuple(Message(*turn) for turn in messages)
    return Row(uid=uid, row_hash=f"{uid:064x}", messages=turns, **(defaults | values))


@settings(deadline=None)
@given(st.text(), st.text())
def test_data_is_never_read_as_a_template(first, second) -> None:
    filled = fill("<{a}|{b}>", {"a": first, "b": second})
    assert filled == f"<{first}|{second}>"


@settings(deadline=None)
@given(st.text(alphabet="{} \"':,a1"))
def test_braces_that_hold_no_name_stay(template) -> None:
    names = {"a": "A", "a1": "A", "a11": "A", "a111": "A"}
    try:
        filled = fill(template, names)
    except UserError:
        return
    assert filled.count("{") <= template.count("{")
    if "a" not in template:
        assert filled == template


def test_doubled_braces_mean_the_text_itself() -> None:
    assert fill('{{input}} {"k": {input}}', {"input": "x"}) == '{input} {"k": x}'


def test_an_unknown_name_lists_the_columns() -> None:
    with pytest.raises(UserError, match=r"\{inptu\}.*expected one of input, output"):
        fill("{inptu}", {"input": "", "output": ""})


def test_arms_come_in_a_fixed_order() -> None:
    assert [arm.name for arm in (ZERO, FEW, COT)] == ["zero_shot", "few_shot_3", "cot"]
    assert (FEW.template, FEW.shots) == (ZERO.template, 3)


def test_shots_do_not_depend_on_order_or_on_other_rows() -> None:
    train = [item(uid) for uid in range(200)]
    chosen = choose_shots(train, FEW, seed=0)
    random.Random(1).shuffle(train)
    assert choose_shots(train, FEW, seed=0) == chosen
    without = [one for one in train if one.uid != chosen[-1].uid]
    assert choose_shots(without, FEW, seed=0)[:-1] == chosen[:-1]
    assert choose_shots(train, FEW, seed=1) != chosen


def test_an_item_never_sees_itself_or_its_near_duplicate() -> None:
    train = [item(uid, cluster=uid // 2) for uid in range(40)]
    shots = choose_shots(train, FEW, seed=0)
    assert len({shot.cluster for shot in shots}) == len(shots)
    for asked in train:
        turns = render_messages(FEW, asked, shots)
        shown = [turn["content"] for turn in turns[:-1] if turn["role"] == "assistant"]
        assert len(shown) == 3
        in_cluster = {f"answer {one.uid}" for one in train if one.cluster == asked.cluster}
        assert not in_cluster & set(shown)


def test_shots_are_earlier_turns() -> None:
    shots = choose_shots([item(uid) for uid in range(9)], FEW, seed=0)
    turns = render_messages(FEW, item(100), shots)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3 + ["user"]
    assert turns[0]["content"] == f"Q: question {shots[0].uid}"
    assert turns[-1] == {"role": "user", "content": "Q: question 100"}
    assert turns[:-1] == render_messages(FEW, item(101), shots)[:-1]


def test_too_few_examples_is_said() -> None:
    with pytest.raises(UserError, match="few_shot_3 needs 3 examples, but train has 2"):
        choose_shots([item(0), item(1), item(2, cluster=1)], FEW, seed=0)


def test_labels_and_system_are_filled() -> None:
    (arm,) = arms_of(PromptsSpec(zero_shot="{input}? {labels}", system="One of {labels}."))
    turns = render_messages(arm, item(1, "so"), (), labels=("yes", "no"))
    assert turns == [
        {"role": "system", "content": "One of yes, no."},
        {"role": "user", "content": "so? yes, no"},
    ]


def test_rows_become_items_with_their_columns_and_history() -> None:
    spec = CapabilitySpec(data="d", answer="exact", goal=0.5)
    chat = [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    rows = [
        row(0, [("user", "hi"), ("assistant", "ho")], meta='{"topic": "x", "level": 3}'),
        row(1, [*chat, ("assistant", "d")]),
        row(2, [("user", "q")], kind="preference", chosen=(Message("assistant", "good"),)),
        row(3, [("text", "once upon a time")], kind="text"),
    ]
    plain, multi, preferred, text = items_from_rows(rows, spec)
    assert plain.fields == {"input": "hi", "output": "ho", "topic": "x", "level": "3"}
    assert [turn["content"] for turn in render_messages(ZERO, multi, ())] == [
        "be brief", "a", "b", "Q: c",
    ]  # fmt: skip
    assert (preferred.expected, text.text) == ("good", "once upon a time")


def test_a_row_without_an_answer_is_named() -> None:
    spec = CapabilitySpec(data="d", answer="exact", goal=0.5)
    with pytest.raises(UserError, match=r"d\.csv:6: .*without a question and its answer"):
        items_from_rows([row(5, [("user", "alone")])], spec)


def test_the_limit_takes_the_same_items_whatever_else_there_is() -> None:
    spec = CapabilitySpec(data="d", answer="exact", goal=0.5, limit=10)
    rows = [row(uid, [("user", "q"), ("assistant", "a")]) for uid in range(100)]
    chosen = items_from_rows(rows, spec)
    assert len(chosen) == 10
    assert items_from_rows(rows[::-1], spec) == chosen[::-1]
    gone = [one for one in rows if one.uid != chosen[0].uid]
    kept = {one.uid for one in items_from_rows(gone, spec)}
    assert {one.uid for one in chosen[1:]} <= kept
    assert len(items_from_rows(rows, spec, whole=True)) == 100


def test_labels_come_from_the_spec_a_file_or_the_data(tmp_path) -> None:
    def spec(labels) -> CapabilitySpec:
        return CapabilitySpec(data="d", answer="choice", goal=0.5, labels=labels)

    rows = [row(i, [("user", "q"), ("assistant", "ba"[i % 2])]) for i in range(4)]
    assert labels_of(spec(("x", "y")), rows, tmp_path) == ("x", "y")
    assert labels_of(spec(None), rows, tmp_path) == ("a", "b")
    (tmp_path / "labels.json").write_text('["one", "two"]')
    (tmp_path / "labels.txt").write_text("one\n\ntwo\n")
    assert labels_of(spec("labels.json"), rows, tmp_path) == ("one", "two")
    assert labels_of(spec("labels.txt"), rows, tmp_path) == ("one", "two")
    (tmp_path / "labels.txt").write_text("one\none\n")
    with pytest.raises(UserError, match=r"labels\.txt: labels occur twice: \['one'\]"):
        labels_of(spec("labels.txt"), rows, tmp_path)
    with pytest.raises(UserError, match="can't read the labels"):
        labels_of(spec("none.txt"), rows, tmp_path)


SIMILAR = arms_of(PromptsSpec(zero_shot="Q: {input}", few_shot=(3,)))[2]


def test_examples_are_chosen_both_ways_unless_the_spec_says_one() -> None:
    def names(**values) -> list[str]:
        return [arm.name for arm in arms_of(PromptsSpec(few_shot=(2, 5), **values))]

    assert names() == [
        "zero_shot", "few_shot_2", "few_shot_2_similar", "few_shot_5", "few_shot_5_similar",
    ]  # fmt: skip
    assert names(examples=("similar",)) == ["zero_shot", "few_shot_2_similar", "few_shot_5_similar"]
    assert names(examples=("random",)) == ["zero_shot", "few_shot_2", "few_shot_5"]


TOPICS = ("my card was declined", "the parcel is late", "how do I reset my password", "我的卡丢了")


def topical(uid: int) -> Item:
    return item(uid, f"{TOPICS[uid % 4]} {'again ' * (uid // 4 % 5)}no {uid}", cluster=uid // 8 * 4)


def test_similar_examples_are_like_the_question_and_the_likest_is_last() -> None:
    train = [item(uid, f"{TOPICS[uid % 4]}, case {uid}") for uid in range(40)]
    asked = [item(100 + topic, f"{text}, case 7") for topic, text in enumerate(TOPICS)]
    for one, shots in similar_shots(train, asked, SIMILAR).items():
        assert [shot.uid % 4 for shot in shots] == [one % 4] * 3
    nearest = similar_shots(train, [item(200, "the parcel is late, case 13")], SIMILAR)[200]
    assert nearest[-1].uid == 13


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 39), min_size=1), st.randoms(use_true_random=False))
def test_similar_examples_do_not_depend_on_what_else_is_asked(uids, mix) -> None:
    train = [topical(uid) for uid in range(40)]
    whole = similar_shots(train, train, SIMILAR)
    shuffled = mix.sample(train, len(train))
    asked = [topical(uid) for uid in uids]
    some = similar_shots(shuffled, asked, SIMILAR)
    assert some == {uid: whole[uid] for uid in uids}
    for one in asked:
        clusters = [shot.cluster for shot in some[one.uid]]
        assert len(set(clusters)) == 3
        assert one.cluster not in clusters


def test_too_few_similar_examples_is_said() -> None:
    with pytest.raises(UserError, match="few_shot_3_similar needs 3 examples, but train has 2"):
        similar_shots([item(0), item(1), item(2, cluster=1)], [item(9)], SIMILAR)


OWN = CapabilitySpec(
    data="d",
    answer="choice",
    goal=0.5,
    labels="{options}",
    prompts={"zero_shot": "{input} {labels}"},
)


def choosing(uid: int, answer: str, options: object) -> Row:
    return row(
        uid, [("user", "which?"), ("assistant", answer)], meta=json.dumps({"options": options})
    )


def test_each_item_may_bring_choices_of_its_own() -> None:
    rows = [choosing(0, "a", ["a", "b"]), choosing(1, "d", ["c", "d", "e"])]
    items = items_from_rows(rows, OWN)
    assert [one.labels for one in items] == [("a", "b"), ("c", "d", "e")]
    assert labels_of(OWN, rows, Path()) == ()
    (arm,) = arms_of(OWN.prompts)
    shown = [render_messages(arm, one, ())[0]["content"] for one in items]
    assert shown == ["which? a, b", "which? c, d, e"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            choosing(5, "a", ["b", "c"]),
            r"d.csv:6: the answer 'a' is not among the row's own choices",
        ),
        (choosing(5, "a", "a, b"), r"d.csv:6: column 'options' is no list of texts"),
        (choosing(5, "a", ["a", 2]), r"d.csv:6: column 'options' is no list of texts"),
        (choosing(5, "a", ["a"]), r"d.csv:6: a choice needs at least two labels"),
        (choosing(5, "a", ["a", "a"]), r"d.csv:6: labels occur twice"),
        (row(5, [("user", "q"), ("assistant", "a")]), r"d.csv:6: the row has no column 'options'"),
    ],
)
def test_choices_that_cannot_be_chosen_from_are_named_by_their_row(line: Row, said: str) -> None:
    with pytest.raises(UserError, match=said):
        items_from_rows([line], OWN)


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u3000"])
def test_blank_questions_are_all_alike(text: str) -> None:
    (arm,) = arms_of(PromptsSpec(zero_shot="{input}", few_shot=(2,), examples=("similar",)))[1:]
    train = [replace(item(uid), fields={"input": text, "output": "x"}) for uid in range(5)]
    shots = similar_shots(train, [item(9), replace(item(8), fields=train[0].fields)], arm)
    assert [len(chosen) for chosen in shots.values()] == [2, 2]
    assert shots[8] == shots[9]


def test_similar_examples_know_the_labels() -> None:
    (arm,) = arms_of(
        PromptsSpec(zero_shot="{input} {labels}", few_shot=(2,), examples=("similar",))
    )[1:]
    shots = similar_shots([item(uid) for uid in range(5)], [item(9)], arm, ("yes", "no"))
    assert len(shots[9]) == 2


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("{input} {output}", "tells the answer"),
        ("Which? {{input}}", "names no column"),
        ("Which? {in put}", "names no column"),
    ],
)
def test_a_prompt_that_asks_nothing_or_tells_all_is_refused(prompt: str, said: str) -> None:
    for key in ("zero_shot", "cot"):
        with pytest.raises(ValueError, match=said):
            PromptsSpec.model_validate({key: prompt})
