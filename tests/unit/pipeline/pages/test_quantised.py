"""What quantising cost is a small part of the report, where a file was scored."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from evals.verdicts.forgetting import PairedScores, judge_guards
from evals.verdicts.stats import PairedItems
from pipeline.pages.changed import AnswerChanged
from pipeline.pages.parts import Part, parts
from pipeline.pages.quantised import QuantisedFile
from tests.support.accounts import account

if TYPE_CHECKING:
    from pipeline.pages.charts import Picture


def shown(*files: QuantisedFile) -> dict[str, Part]:
    drawn: defaultdict[str, list[Picture]] = defaultdict(list)
    return {part.id: part for part in parts(account(quantised=files), drawn, ())}


def test_lost_and_gained_stand_beside_each_other_with_the_items() -> None:
    pairs = PairedItems((1.0,) * 30 + (0.0,) * 2, (0.0,) * 9 + (1.0,) * 23, tuple(range(32)))
    (finding,) = judge_guards([PairedScores("colours", tuple(range(32)), pairs, 0.05)])
    changed = AnswerChanged("colours", "lost", "What <b>colour</b>?", "red", "red", "rod")
    part = shown(QuantisedFile("e" * 64, "q4_k_m", 1_234_567, (finding,), (changed,)))["quantised"]
    table, items = part.tables
    assert table.title == "q4_k_m, 1.2 MB"
    ((name, n, before, after, lost, gained, difference, _, verdict),) = table.rows
    assert (name, n, before, after) == ("colours", "32", "0.938", "0.719")
    assert (lost, gained, verdict) == ("9", "2", "forgotten")
    assert difference.startswith("-0.219 (")
    assert items.rows == (("colours", "lost", "What <b>colour</b>?", "red", "red", "rod"),)


def test_without_a_scored_file_there_is_no_such_part() -> None:
    assert "quantised" not in shown()
