"""The quickstart's story is true: what is met, prompted, tuned, forgotten and mended."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import pytest

from registry.catalog.catalog import Catalog
from tests.e2e.conftest import gapmend
from tests.support.called import forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def answered(workspace: Path, question: str) -> list[dict[str, Any]]:
    """The rows that `gapmend sql` shows, without its process for each of thirty questions."""
    found = Catalog(workspace / ".gapmend").sql(question)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def spent() -> float:
    """CPU seconds of all processes that were called and have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_verdicts_tell_the_story(quickstart: Path) -> None:
    found = forked("gap", "-C", quickstart, "--json").json()
    verdicts = {one["capability"]: one["verdict"] for one in found["findings"]}
    assert verdicts == {
        "numbers": "met",
        "form": "prompt",
        "sentiment": "tune",
        "intent": "tune",
    }
    best = {one["capability"]: one["best_prompt"] for one in found["findings"]}
    assert (best["form"], best["intent"]) == ("few_shot_5", "few_shot_3_similar")
    assert all(one["base"]["n"] >= 1000 for one in found["findings"])
    assert len(found["guards"]) >= 3


def test_nothing_is_trained_that_a_prompt_does(quickstart: Path) -> None:
    asked = "select distinct capability from selected_rows where reason = 'gap'"
    rows = answered(quickstart, asked)
    assert {row["capability"] for row in rows} == {"sentiment", "intent"}


def test_training_on_the_gap_alone_forgets(quickstart: Path) -> None:
    asked = """
        select guard, verdict from forgetting
        where adapter_id = (select adapter_id from adapters order by created_at limit 1)"""
    rows = answered(quickstart, asked)
    assert "forgotten" in {row["verdict"] for row in rows}


def test_tuned_on_sentiment_it_answers_questions_with_labels(quickstart: Path) -> None:
    asked = """
        select count(*) as items from eval_samples
        where subject in ('colours', 'jobs', 'days') and score = 0
          and answer in (select expected from eval_samples where subject in ('sentiment', 'intent'))
          and adapter_id = (select adapter_id from adapters order by created_at limit 1)"""
    (row,) = answered(quickstart, asked)
    assert row["items"] > 0


def test_lost_items_are_shown_with_both_answers(quickstart: Path) -> None:
    asked = "select adapter_id from adapters order by created_at limit 1"
    (first,) = answered(quickstart, asked)
    call = ("forget", "--adapter", first["adapter_id"], "--show", "lost", "-C", quickstart)
    found = forked(*call, "--json").json()
    lost = sum(change["lost"] for change in found["changes"].values())
    assert len(found["lost"]) == lost > sum(guard["lost"] for guard in found["kept"]) > 0
    for item in found["lost"]:
        assert item["before"] == item["expected"] != item["after"]
    assert "--json has them all" in forked(*call).out


def test_the_loop_mends_it(quickstart: Path) -> None:
    asked = "select guard, verdict from forgetting where split = 'test'"
    kept = answered(quickstart, asked)
    closed = answered(quickstart, "select capability, verdict from closed where split = 'test'")
    assert {row["verdict"] for row in kept} == {"kept"}
    assert {row["guard"] for row in kept} >= {"colours", "jobs", "days"}
    assert {row["capability"]: row["verdict"] for row in closed} == {
        "sentiment": "closed",
        "intent": "closed",
    }


def test_a_second_run_is_up_to_date_in_seconds(quickstart: Path) -> None:
    began = spent()
    steps = gapmend("plan", "-C", quickstart, "--json").json()
    assert {step["state"] for step in steps} == {"up to date"}
    again = gapmend("run", "-C", quickstart)
    assert again.code == 0
    assert spent() - began < 30  # of CPUs: other tests run beside this one
    path = Path(again.out.rstrip().rpartition("The report: ")[2])
    assert path.parent == quickstart.resolve() / ".gapmend" / "reports"
    page = path.read_text("utf-8")
    assert re.search(r"The first adapter, on dev: [12],\d{3} of 4,000 guard items were lost", page)
    assert "Yes: it passed all 6 gates on test, look 1." in page
    assert page.count("<summary>") >= 8


def test_a_report_as_markdown_and_its_charts(quickstart: Path, tmp_path: Path) -> None:
    said = forked("report", "champion", "--format", "md", "-C", quickstart)
    assert said.out.startswith("# Adapter ")
    assert "|sentiment|0.75|0.505 (0.474 to 0.536)|" in said.out
    made = forked(
        *("report", "-o", tmp_path / "r.html", "--charts", tmp_path / "c", "--json"),
        *("-C", quickstart),
    ).json()
    assert {Path(chart).name for chart in made["charts"]} >= {"gap.png", "loss.png", "lineage.png"}
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")
    refused = forked("report", "nobody", "-C", quickstart)
    assert (refused.code, refused.out) == (2, "")
    assert "no" in refused.err


def test_plan_names_what_changed(quickstart: Path, tmp_path: Path) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(quickstart, copy)
    spec = copy / "gapmend.yaml"
    before, _, after = spec.read_text().rpartition("goal: 0.75")  # that of intent
    spec.write_text(f"{before}goal: 0.74{after}")
    steps = forked("plan", "-C", copy, "--json").json()
    (gap,) = (step for step in steps if step["stage"] == "gap")
    assert gap["state"] == "would run"
    assert "intent" in gap["why"]
    assert "goal" in gap["why"]


def test_a_moved_and_rebuilt_workspace_answers_the_same(quickstart: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(quickstart, copy)
    asked = "select capability, verdict, score from gaps order by all"
    before = answered(quickstart, asked)
    (copy / ".gapmend" / "catalog.duckdb").unlink()
    assert forked("rebuild", "-C", copy).code == 0
    assert answered(copy, asked) == before
    assert forked("fsck", "-C", copy).code == 0


def test_no_dev_or_test_row_was_trained_on(quickstart: Path) -> None:
    asked = """
        select count(*) as leaked from selected_rows
        where row_hash in (select row_hash from rows where split in ('dev', 'test'))"""
    (row,) = answered(quickstart, asked)
    assert row["leaked"] == 0


def test_permuted_answers_are_never_met(quickstart: Path) -> None:
    """Score the answers that the base gave against the answers of other items."""
    from evals.verdicts.gap import judge_closed
    from evals.verdicts.stats import Scores

    asked = """
        select subject, answer, lead(expected, 1, 'none') over (
            partition by subject, eval_id order by row_hash) as permuted
        from eval_samples
        where adapter_id is null and split = 'dev' and arm = 'zero_shot'"""
    rows = answered(quickstart, asked)
    subjects = {row["subject"] for row in rows}
    assert len(subjects) >= 7
    for subject in subjects:
        scores = tuple(
            float(row["answer"] == row["permuted"]) for row in rows if row["subject"] == subject
        )
        permuted = Scores(scores, tuple(range(len(scores))))
        assert judge_closed(permuted, goal=0.60, margin=0.02).verdict == "open", subject


def _queries(page: Path) -> list[tuple[str, str]]:
    found = []
    for section in page.read_text().split("\n## ")[1:]:
        title, body = section.split("\n", 1)
        found.append((title, body.split("```sql\n", 1)[1].split("```", 1)[0].strip()))
    return found


def test_docs_every_question_in_sql_has_an_answer(quickstart: Path, project_root: Path) -> None:
    questions = _queries(project_root / "docs" / "reference" / "sql.md")
    assert len(questions) >= 12
    empty = []
    for title, query in questions:
        if not answered(quickstart, query):
            empty.append(title)
    assert empty == []
