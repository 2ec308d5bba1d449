"""A capability that no row of the pool can teach takes itself out, and stops nothing else."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from pipeline.forget import forget, other_base
from pipeline.gap import GapReport, gap
from pipeline.ingest import ingest, resolve
from pipeline.outlook.training import BaseOutline
from pipeline.report.stages import forget_tables, gap_notes, select_table
from pipeline.run import run
from pipeline.select import _inputs, select
from pipeline.verbs.check import check
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.store.kinds import EvalMeta, RunMeta
from tests.support import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPEC = """
bases: {tiny: {model: base}, other: {model: base, dtype: bf16}}
datasets:
  mood: {path: {train: mood-train.jsonl, dev: mood-dev.jsonl, test: mood-test.jsonl}}
  sums: {path: {dev: sums-dev.jsonl, test: sums-test.jsonl}}
  word: {path: {dev: word-dev.jsonl, test: word-test.jsonl}}
capabilities:
  mood: {data: mood, answer: choice, goal: 0.95, prompts: {zero_shot: "Mood? {input}"}}
  sums: {data: sums, answer: number, goal: 0.5, max_new_tokens: 2}
guards:
  word: {data: word, answer: choice, max_drop: 0.5}
train:
  {base: tiny, rank: 4, learning_rate: 0.003, epochs: 1, batch_tokens: 1024, pool: [mood, sums],
   budget_rows: 24, replay: 0}
mend: {rounds: 0}
"""


def _write(root: Path, name: str, rows: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"input": asked, "output": answer}) for asked, answer in rows)
    (root / f"{name}.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    root, rng = tmp_path_factory.mktemp("untaught"), random.Random(0)
    tiny_models.save(root / "base", "llama")
    words = [f"w{number}" for number in range(2000)]
    for split in ("train", "dev", "test"):
        said = [(" ".join(rng.sample(words, 6)), rng.choice(("up", "down"))) for _ in range(24)]
        _write(root, f"mood-{split}", said)
        _write(root, f"word-{split}", [(f"a {a}", rng.choice(("b", "c"))) for a, _ in said])
        sums = [tuple(rng.sample(range(1000, 9999), 2)) for _ in range(24)]
        _write(root, f"sums-{split}", [(f"{a} and {b} make?", f"{a + b}") for a, b in sums])
    (root / "gapmend.yaml").write_text(SPEC)
    return OpenWorkspace.open(root)


def test_it_is_measured_and_stops_nothing_else(
    ws: OpenWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    done = {one.stage: one.report for one in run(ws, Ui(), until="select").done}
    found: GapReport = done["gap"]
    why = "none of the 48 rows of dataset 'sums' is for training (24 in dev and 24 in test)"
    assert [one.verdict for one in found.findings] == ["tune", "tune"]
    assert (found.untaught, set(found.gaps())) == ({"sums": why}, {"mood"})
    assert done["select"].budget == {"mood": 24}
    forgot = forget(ws, Ui(as_json=True), other_base(ws, "other"))
    assert (set(forgot.closed), [one.guard for one in forgot.kept]) == ({"mood"}, ["word"])
    assert forgot.changes["sums"].n == 24
    said = capsys.readouterr()
    assert f"sums: {why}; it is measured, not trained for" in " ".join(said.out.split())
    assert "left out: sums" in f"{select_table(done['select']).caption}"
    (line,) = forget_tables(forgot)[2:]
    assert f"{line}".startswith("sums (dev): 0.000 before, 0.000 after; not judged")


def test_what_was_scored_here_says_how_long_more_will_take(
    ws: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.outlook.training._ENOUGH", 0.0)
    evals = [one.meta for one in ws.catalog.committed(EvalMeta, split="dev")]
    read = [one for one in evals if one.base == "tiny" and one.read_tokens]
    outline = BaseOutline.of(ws)
    learnt = outline.learnt(ws)
    rate = sum(one.read_tokens or 0 for one in read) / sum(one.read_seconds or 0 for one in read)
    assert learnt.scored == pytest.approx(rate)
    assert learnt.trained is None
    assert outline.scoring_seconds(1000, learnt) == pytest.approx(1000 / rate)


def test_a_guard_at_chance_is_one_line(ws: OpenWorkspace) -> None:
    found = gap(ws, Ui(as_json=True))
    assert found.chance == {"word": 0.5}
    (said,) = [f"{line}" for line in gap_notes(found) if "guard" in f"{line}"]
    assert said.startswith("guard word: the base scores 0.")
    assert "and guessing 0.500: what it can't do it can't be seen to lose" in said


def test_a_pool_without_a_row_for_training_is_one_line(ws: OpenWorkspace) -> None:
    train = ws.spec.train.model_copy(update={"pool": ("sums", "word")})
    other = ws.with_spec(ws.spec.model_copy(update={"train": train}))
    runs = len(ws.catalog.committed(RunMeta))
    with pytest.raises(UserError) as raised:
        select(other, Ui(as_json=True))
    assert str(raised.value).startswith("train.pool: no row of the pool can be trained on (mood: ")
    assert "\n" not in str(raised.value)
    assert len(ws.catalog.committed(RunMeta)) == runs


@pytest.mark.parametrize(
    ("objective", "reason"),
    [("dpo", "dpo learns from preference pairs"), ("kto", "kto learns from answers with feedback")],
)
def test_an_objective_that_no_row_fits_is_one_line(
    ws: OpenWorkspace, objective: str, reason: str
) -> None:
    train = ws.spec.train.model_copy(update={"objective": objective})
    other = ws.with_spec(ws.spec.model_copy(update={"train": train}))
    with pytest.raises(UserError, match=reason) as raised:
        select(other, Ui(as_json=True))
    assert "has 24 instructions with an answer for training" in str(raised.value)
    # Before, a selection for another objective was found again, whatever rows it has.
    resolved = resolve(other, Ui(as_json=True))
    found = gap(ws, Ui(as_json=True))
    assert _inputs(resolved, found, None)[0]["objective"] == objective
    resolved = resolve(ws, Ui(as_json=True))
    assert "objective" not in _inputs(resolved, found, None)[0]


def test_a_capability_whose_rows_all_leak_is_found_first_and_takes_itself_out(
    ws: OpenWorkspace, tmp_path: Path
) -> None:
    for file in ws.root.glob("*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tiny_models.save(tmp_path / "base", "llama")
    seen = [json.loads(line) for line in (ws.root / "word-test.jsonl").read_text().splitlines()]
    rows = [(one["input"] + ".", "z") for one in seen[:20]]  # ask what a guard asks
    _write(tmp_path, "leak-train", [*rows, (seen[20]["input"], seen[20]["output"])])  # and the same
    for split in ("dev", "test"):
        _write(tmp_path, f"leak-{split}", [(f"{split} {n} of {n * n}", "b") for n in range(24)])
    spec = SPEC.replace(
        "  sums: {path",
        "  leak: {path: {train: leak-train.jsonl, dev: leak-dev.jsonl, test: "
        "leak-test.jsonl}}\n  sums: {path",
    ).replace("  sums: {data", "  leak: {data: leak, answer: exact, goal: 0.9}\n  sums: {data")
    (tmp_path / "gapmend.yaml").write_text(spec.replace("[mood, sums]", "[mood, leak]"))
    mine, ui = OpenWorkspace.open(tmp_path), Ui(as_json=True)
    why = (
        "each of the 21 rows of dataset 'leak' for training is in a dev or test set too "
        "(1 exact and 20 near-duplicate)"
    )
    for _ in range(2):  # by the files, and then by the versions
        (one,) = [f for f in check(mine, ui).findings if f.key == "capabilities.leak"][:1]
        assert why in one.message
        ingest(mine, ui)
    found = gap(mine, ui)
    assert found.untaught["leak"] == why
    assert set(select(mine, ui).budget) == {"mood"}
