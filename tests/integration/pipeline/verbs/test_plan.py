"""`plan` and `run` say what won't do and what it will take, before anything is done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.table import Table

from pipeline import Workspace
from pipeline.report.plan import cost_text, plan_table, taken_tables
from registry.errors import SpecError, StoreRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.outlook.cost import StageCost


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / "my-model")


def test_what_would_run_is_planned_with_its_cost_and_nothing_else(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ws.plan()
    assert [(step.stage, step.state) for step in steps[:2]] == [
        ("ingest", "would run"),
        ("gap", "after the above"),
    ]
    assert not (ws.folder / ".gapmend" / "objects").exists()
    costs = {step.stage: step.cost for step in steps}
    # 720 tickets: 180 are dev and 180 test, of about 40 tokens with the labels, without those that
    # all prompts begin with; few_shot [5], whose examples all items share, is asked on half of dev,
    # and once more on the other half.
    asked = costs["promote"].scored / (2 * 180)
    assert 20 < asked < 80
    assert costs["gap"].scored == pytest.approx(180 * asked * 2, rel=0.01)
    # the adapter answers, and base and adapter are compared along the answers to 100, from the
    # first token on
    compared = costs["forget"].scored - 180 * asked
    assert asked < compared / (2 * 100) < asked + 20
    assert 300 * 4 * 20 < costs["train"].trained < 300 * 4 * 80  # rows, epochs, tokens of a row
    assert costs["mend"].trained == 3 * costs["train"].trained
    assert costs["merge"].disk == 4 * 2_607_168  # nano's parameters in fp32
    assert all(cost.seconds > 0 for stage, cost in costs.items() if cost.scored)
    assert 10_428_672 < costs["train"].memory < 200_000_000
    said = capsys.readouterr().err.splitlines()
    # on a busy machine the look ahead says that it takes long
    (line,) = (one for one in said if not one.startswith("look ahead: "))
    assert line.startswith("it will take about ")
    assert "(at rates measured on this machine for 0.2 s)" in line
    assert "memory free, and" in line
    assert f"{plan_table(steps).columns[4].header}" == "takes about"
    assert cost_text(costs["train"]).endswith((" s", " min"))  # by how busy the machine is
    with pytest.raises(StoreRequestError, match=r"ingest is not up to date \(has not run yet\)"):
        ws.run(start="gap")


def test_what_would_stop_a_run_stops_it_before_anything_is_written(ws: Workspace) -> None:
    spec = ws.folder / "gapmend.yaml"
    spec.write_text(f"{spec.read_text('utf-8').rstrip()}\n  objective: dpo\n", "utf-8")
    for call in (ws.plan, ws.run):
        with pytest.raises(SpecError, match=r"gapmend\.yaml:\d+: train\.objective: no row of"):
            call()
    assert not (ws.folder / ".gapmend" / "objects").exists()


def test_examples_of_its_own_are_paid_for_each_item(ws: Workspace) -> None:
    before = {step.stage: step.cost for step in ws.plan()}
    spec = ws.folder / "gapmend.yaml"
    text = spec.read_text("utf-8")
    spec.write_text(text.replace("examples: [random] ", "examples: [similar]"), "utf-8")
    after = {step.stage: step.cost for step in ws.plan()}
    assert after["gap"].scored > 3 * before["gap"].scored  # five shown with one label each
    assert after["promote"] == replace(before["promote"], seconds=after["promote"].seconds)


def test_own_answers_own_text_and_kl_are_paid_for(ws: Workspace) -> None:
    spec = ws.folder / "gapmend.yaml"
    text = spec.read_text("utf-8").rstrip()

    def planned(more: str, answer: str = "choice") -> dict[str, StageCost]:
        spec.write_text(f"{text.replace('answer: choice', f'answer: {answer}')}\n{more}", "utf-8")
        return {step.stage: step.cost for step in ws.plan() if step.cost is not None}

    plain, drawn = planned(""), planned("  own_answers: 4\n")
    assert drawn["select"].scored == plain["select"].scored  # one of a choice is not written
    plain, drawn = planned("", "exact"), planned("  own_answers: 4\n", "exact")
    asked = plain["promote"].scored / (2 * 180)
    more = drawn["select"].scored - plain["select"].scored
    assert more == pytest.approx(4 * 300 * (1 - 0.2) * asked, rel=0.1)
    assert drawn["mend"].scored > plain["mend"].scored + 2 * more
    kept = planned("  kl: 0.5\n  general: 0.1\n", "exact")
    assert kept["select"].scored > plain["select"].scored + 48 * 20  # texts for 30 rows
    assert plain["train"].scored == 0
    assert kept["train"].trained > kept["train"].scored > plain["train"].trained * 0.2
    assert kept["train"].seconds > 0


def test_what_a_run_took_is_shown_beside_what_was_foreseen_and_kept(
    ws: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.outlook.training._ENOUGH", 0.0)
    spec = ws.folder / "gapmend.yaml"
    spec.write_text(
        spec.read_text("utf-8").replace("    goal: 0.90", "    goal: 0.90\n    limit: 40")
    )
    report = ws.run(until="gap")
    said = capsys.readouterr().err
    assert said.index("it will take about ") < said.index("ingest · tickets …")
    assert report.cost is not None
    ingest, gap = report.cost.stages
    assert (ingest.stage, gap.stage) == ("ingest", "gap")
    assert gap.foreseen.scored > 0
    assert gap.foreseen.scored / 3 < gap.taken.scored < 3 * gap.foreseen.scored
    assert 0 < gap.taken.seconds <= report.cost.total.taken.seconds
    assert ingest.taken.disk > 0
    assert [one.stage for one in report.as_json()] == ["ingest", "gap", "cost"]
    shown = taken_tables(report.cost)[0]
    assert isinstance(shown, Table)
    cells = [column._cells for column in shown.columns]
    assert [str(column[-1]) for column in cells][:2] == ["all", f"{gap.taken.scored:,}"]

    asked = "select run_id, result->'total'->'taken'->>'scored' from runs where stage = 'run'"
    assert ws.sql(asked).rows() == [(report.cost.run_id, str(gap.taken.scored))]
    assert ws.run(until="gap").cost is None  # nothing was run
    assert ws.query("select count(*) from runs where stage = 'run'").rows == [(1,)]
    ws.plan()
    assert "(scoring at the rates of earlier runs here, the rest " in capsys.readouterr().err
