"""What the store says of a run comes back as what it was, or is named in one line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from pipeline.forget import ForgetReport
from pipeline.gap import GapReport
from pipeline.merge import MergeReport
from pipeline.promote import PromoteReport
from pipeline.select import SelectReport
from pipeline.train import TrainReport
from pipeline.verbs.sign import SignReport
from pipeline.workspace.stage import StageOutcome
from registry.errors import StoreError
from registry.store.read_back import _adapter, read_back


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    score: float | None


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    limit: int | None = None


def test_json_comes_back_as_what_was_written() -> None:
    whole = Whole((Part("a", 0.5), Part("b", None)), {"c": Part("c", 1.0)})
    written = json.loads(json.dumps({**asdict(whole), "of a later version": 1}))
    assert read_back(Whole, written, "here") == whole


def test_what_does_not_fit_is_one_line_with_its_place() -> None:
    with pytest.raises(StoreError) as caught:
        read_back(Whole, {"parts": [{"name": "a", "score": "high"}], "by_name": {}}, "run abc")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("run abc: not what gapmend wrote there (parts.0.score: Input should be")


@pytest.mark.parametrize(
    "kind",
    [GapReport, SelectReport, TrainReport, ForgetReport, PromoteReport, MergeReport, SignReport],
)
def test_the_annotations_of_every_report_can_be_resolved(kind: type) -> None:
    assert _adapter(kind).core_schema["type"] in {"dataclass", "definitions"}


def test_an_outcome_is_a_report() -> None:
    findings: dict[str, Any] = {"kept": [], "closed": {}, "changes": {}}
    outcome = StageOutcome("r" * 64, "k", cached=True, seconds=1.5, result=findings)
    known = {"adapter_id": "a", "model": None, "scale": 1, "against": None, "split": "dev"}
    report = outcome.report(ForgetReport, **known, forgetting_id="f")
    assert (report.run_id, report.cached, report.seconds, report.kept) == ("r" * 64, True, 1.5, ())
    with pytest.raises(StoreError, match="run rrrrrrrrrrrr: not what gapmend wrote"):
        outcome.report(TrainReport)
