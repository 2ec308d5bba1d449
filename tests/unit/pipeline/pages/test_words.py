"""The story says what was measured, and nothing else."""

from __future__ import annotations

import pytest

from pipeline.pages.unended import Unended
from pipeline.pages.words import listed, story
from pipeline.workspace.durations import in_time
from tests.support.accounts import SECOND, account, finding


def told(**changed: object) -> dict[str, str]:
    return {chapter.title: chapter.text for chapter in story(account(**changed))}


def test_the_whole_story() -> None:
    found = told()
    assert "moods scores 0.400, and 0.80 is wanted: a real gap." in found["What was lacking"]
    assert found["What was tried without training"] == (
        "moods: the best prompt, few_shot_5, gets it to 0.500 for 300 tokens a call. "
        "forms: the best prompt, few_shot_5, gets it to 0.950 for 300 tokens a call, and nothing "
        "is trained for it."
    )
    assert "40 of moods; to fill in what was lost 20 of colours" in found["What was trained"]
    assert "5 rows were kept out" in found["What was trained"]
    assert found["What was lost"].startswith(
        "The first adapter, on dev: 60 of 100 guard items were lost: colours forgotten "
        "(0.900 to 0.300)."
    )
    assert (
        "on test: 1 of 100 guard items was lost, and every guard is kept"
        in (found["What was lost"])
    )
    assert "1.4 min; most of it gap 1.0 min and train 24.0 s" in found["What it cost"]
    assert "10,000 tokens were trained on, and 2,000 read" in found["What it cost"]
    assert found["May it be used?"].startswith("Yes: it passed all 1 gates on test, look 1.")


def test_what_was_not_done_is_not_told() -> None:
    found = told(promotion=None, tested=None, merge=None)
    assert "not promoted" in found["May it be used?"]
    assert "Merged" not in found["May it be used?"]
    assert "This one, on dev: 0 of 100" in found["What was lost"]


def test_without_an_adapter_the_gap_is_told_alone() -> None:
    found = told(facts=None, trainings=(), promotion=None, tested=None, merge=None)
    assert found["What was trained"] == "Nothing was trained."
    assert "May it be used?" not in found
    assert "What was lost" not in found


def test_an_adapter_from_elsewhere() -> None:
    found = told(gap=(), trainings=(), tested=None)
    assert "What was lacking" not in found
    assert f"{SECOND[:8]} was put together or trained elsewhere" in found["What was trained"]


def test_what_has_not_ended_and_what_was_erased_is_told() -> None:
    failed = Unended("train", "failed", "train failed on 2026-01-02 03:04: RuntimeError: full.")
    found = told(unended=(failed,), erased=1)
    assert found["What has not ended"] == failed.said
    assert "1 row that taught it was erased since." in found["May it be used?"]
    assert "What has not ended" not in told()


def test_the_order_is_that_of_the_loop() -> None:
    assert [*told()] == [
        *("What was lacking", "What was tried without training", "What was trained"),
        *("What it cost", "What was lost", "May it be used?"),
    ]


def test_too_few_items_are_said() -> None:
    found = told(gap=(finding("moods", 0.75, "inconclusive"),))
    assert "don't settle whether it is lacking; 700 items would" in found["What was lacking"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(59.4, "59.4 s"), (252, "4.2 min"), (3599, "60.0 min"), (7500, "2.1 h")]
)
def test_times(seconds: float, said: str) -> None:
    assert in_time(seconds) == said


def test_lists() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"])] == ["none", "a", "a and b"]
    assert listed(["a", "b", "c"]) == "a, b and c"
