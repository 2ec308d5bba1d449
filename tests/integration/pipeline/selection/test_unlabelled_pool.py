"""A pool in which nobody says what a row is for: what is chosen, replayed, left out, and said."""

from __future__ import annotations

import io
import json
import random
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from evals.scoring.own_answers import OwnAnswer
from pipeline import Workspace
from pipeline.gap import gap
from pipeline.ingest import resolve
from pipeline.report.stages import select_table
from pipeline.select import MendChange, SelectReport, select
from pipeline.selection.assemble import Assembly
from pipeline.selection.budget import Budget
from pipeline.selection.judge.readings import Readings
from pipeline.selection.selection import read_selection, training_rows
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import ModelError
from registry.store.kinds import SelectionMeta

if TYPE_CHECKING:
    from pipeline.training.examples.encode import TrainingRow

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[4] / "examples" / "quickstart" / "data"
MOST_LABELS = 6
ASKED = "Which intent? "
SPEC = """
bases: {nano: {model: nano}}
datasets:
  intent:
    path: {train: few.jsonl, dev: dev.jsonl, test: test.jsonl}
    columns: {input: input, output: output}
  mixed: {path: {train: mixed.jsonl}}
  texts: {path: {train: texts.jsonl}}
capabilities:
  intent:
    {data: intent, answer: choice, goal: 0.9, prompts: {zero_shot: "Which intent? {input}"}}
train: {base: nano, pool: [mixed, texts], budget_rows: 200, replay: 0.2}
"""


def read(name: str, split: str) -> list[dict[str, str]]:
    lines = (DATA / name / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def chat(asked: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


@dataclass
class Selected:
    """What was chosen of 6 intents (100 rows, 10 mislabelled; 3 said again), facts and texts."""

    ws: OpenWorkspace
    report: SelectReport
    rows: list[TrainingRow]
    right: dict[str, str]  # question of a fact -> the answer that the base gives


@pytest.fixture(scope="module")
def selected(tmp_path_factory) -> Selected:
    root, rng = tmp_path_factory.mktemp("unlabelled"), random.Random(0)
    labels = [one for one, _ in Counter(r["output"] for r in read("intent", "train")).most_common(
        MOST_LABELS
    )]  # fmt: skip

    def intents(split: str, count: int) -> list[dict[str, str]]:
        return [row for row in read("intent", split) if row["output"] in labels][:count]

    write(root / "few.jsonl", intents("train", 400)[-1:])
    for split in ("dev", "test"):
        write(root / f"{split}.jsonl", intents(split, 60))
    pool = []
    for place, row in enumerate(intents("train", 100)):
        wrong = rng.choice([label for label in labels if label != row["output"]])
        said = wrong if place % 10 == 0 else row["output"]
        pool.append(chat(f"{ASKED}{row['input']}", said))
    pool += [chat(f"{ASKED}{row['input']} ", row["output"]) for row in intents("train", 100)[1:4]]
    facts = [*read("jobs", "train")[:60], *read("days", "train")[:60]]
    pool += [chat(row["input"], f"well, {row['output']}, I think") for row in facts]
    rng.shuffle(pool)
    write(root / "mixed.jsonl", pool)
    write(root / "texts.jsonl", [{"text": f"I wonder: {row['input']}"} for row in facts[:20]])
    (root / "gapmend.yaml").write_text(SPEC, "utf-8")
    ws, ui = OpenWorkspace.open(root), Ui(as_json=True)
    report = select(ws, ui)
    rows: Any = training_rows(resolve(ws, ui), report.selection_id)
    return Selected(ws, report, rows, {row["input"]: row["output"] for row in facts})


def test_no_row_is_chosen_for_a_gap_that_is_not_like_it_and_none_twice(selected) -> None:
    chosen = [row for row in selected.rows if row.capability == "intent"]
    assert all(row.messages[0]["content"].startswith(ASKED) for row in chosen)
    assert len(chosen) >= 60  # of about 100 that are like it
    uids = [row.uid for row in selected.rows]
    assert len(set(uids)) == len(uids)


def test_where_rows_run_out_selection_stops_and_says_what_is_missing(selected) -> None:
    report = selected.report
    chosen = sum(row.capability == "intent" for row in selected.rows)
    assert report.budget == {"intent": 160}
    assert report.missing["intent"] == 160 - chosen
    assert report.short_of["intent"].startswith(
        f"there are {chosen} in free datasets like what it fails (similarity of at least 0."
    )
    assert ", fewest of '" in report.short_of["intent"]


def test_what_is_replayed_was_asked_of_the_base(selected) -> None:
    replayed = [row for row in selected.rows if row.capability == "mixed"]
    assert len(replayed) == 40
    for row in replayed:
        asked, said = row.messages
        assert said["content"] == selected.right[asked["content"]]  # and not the pool's words
        assert "train" not in said


def test_what_is_like_the_gap_is_not_replayed_nor_is_a_plain_text(selected) -> None:
    assert selected.report.set_aside["like a gap"] >= 1
    assert selected.report.replay == {"mixed": 40, "texts": 0}
    assert "no row of it has a question" in selected.report.short_of["texts"]
    assert {row.messages[0]["role"] for row in selected.rows} == {"user"}


def test_it_says_what_it_kept_out_and_the_command_shows_the_rows(selected) -> None:
    out = io.StringIO()
    Console(file=out, width=10_000).print(select_table(selected.report))
    said = " ".join(out.getvalue().split())
    aside = selected.report.set_aside
    assert "set aside: " + ", ".join(f"{count} {kind}" for kind, count in aside.items()) in said
    assert f"missing for intent: {selected.report.missing['intent']} rows; there are " in said
    command = shlex.split(said[said.index('gapmend sql "') :].partition('" ')[0].rstrip('"') + '"')
    found = Workspace.open(selected.ws.root).sql(command[2]).to_dicts()
    assert len(found) == sum(aside.values())
    reasons = {row["reason"] for row in found}
    assert "is like what intent fails: replayed, it would keep that so" in reasons
    assert all(row["source_file"] == "mixed.jsonl" and row["excerpt"] for row in found)


def test_what_deciding_cost_is_on_record(selected) -> None:
    meta = selected.ws.catalog.manifest(selected.report.selection_id, SelectionMeta).meta
    assert meta.deciding_tokens == selected.report.deciding_tokens
    assert set(meta.deciding_tokens) == {"own answers"}
    assert all(count > 1000 for count in meta.deciding_tokens.values())
    assert meta.set_aside == selected.report.set_aside


def test_a_round_of_mending_asks_nothing_again_and_keeps_what_was_replayed(
    selected, monkeypatch
) -> None:
    ws, ui = selected.ws, Ui(as_json=True)
    found = gap(ws, ui)
    asked: list[int] = []
    own = Readings.own_answers

    def counted(self: Readings, questions: Any, label: str) -> Any:
        path = next((ws.state / "cache" / "answers").iterdir())
        before = path.stat().st_size
        given = own(self, questions, label)
        asked.append(path.stat().st_size - before)
        return given

    monkeypatch.setattr(Readings, "own_answers", counted)
    budget = Budget({"intent": 160}, {"mixed": 40})
    no_adapter: Any = None  # so that only the base's failures count
    change = MendChange(1, budget, selected.report.selection_id, no_adapter, {})
    context: Any = SimpleNamespace(run_id=selected.report.run_id, ui=ui)
    made = Assembly(resolve(ws, ui), context, found, change).work([])
    first = read_selection(ws.store, selected.report.selection_id)
    again = read_selection(ws.store, made.outputs[0][1].id)
    assert again == first
    assert asked
    assert set(asked) == {0}


def temperatures(root: Path, count: int) -> None:
    """Three splits of questions that the base answers by chance."""
    rng = random.Random(1)
    for split in ("train", "dev", "test"):
        rows = [
            {"input": f"{rng.random()} {'warm' if i % 2 else 'cold'}?", "output": "yn"[i % 2]}
            for i in range(count)
        ]
        write(root / f"{split}.jsonl", rows)


def test_two_gaps_on_one_dataset_share_its_rows(tmp_path: Path) -> None:
    temperatures(tmp_path, 60)
    spec = SPEC.replace("few", "train").replace("mixed, texts", "intent").replace("200", "100")
    spec = spec.replace("  texts: {path: {train: texts.jsonl}}\n", "")
    spec = spec.replace("  mixed: {path: {train: mixed.jsonl}}\n", "")
    other = (
        "  other: {data: intent, answer: choice, goal: 0.9, prompts: {zero_shot: 'So? {input}'}}"
    )
    (tmp_path / "gapmend.yaml").write_text(spec.replace("\ntrain:", f"\n{other}\ntrain:"), "utf-8")
    ws = OpenWorkspace.open(tmp_path)
    report = select(ws, Ui(as_json=True))
    rows = read_selection(ws.store, report.selection_id)
    assert len({row.row_uid for row in rows}) == len(rows) <= 60
    assert sum(report.budget.values()) == 100
    assert {row.capability for row in rows} == {"intent", "other"}
    assert sum(report.missing.values()) == 100 - len(rows)


def test_an_answer_of_a_guard_that_was_cut_is_trained_without_an_end(tmp_path: Path) -> None:
    """Before, it was trained with an end behind it: to stop in mid-sentence."""
    temperatures(tmp_path, 60)
    for split in ("train", "dev", "test"):
        rows = [{**row, "output": row["output"][:3]} for row in read("days", split)[:60]]
        write(tmp_path / f"days-{split}.jsonl", rows)
    files = ", ".join(f"{split}: days-{split}.jsonl" for split in ("train", "dev", "test"))
    spec = SPEC.replace("few", "train").replace("mixed, texts", "intent").replace("200", "100")
    spec = spec.replace(
        "  texts: {path: {train: texts.jsonl}}\n",
        f"  days: {{path: {{{files}}}, columns: {{input: input, output: output}}}}\n",
    ).replace("  mixed: {path: {train: mixed.jsonl}}\n", "")
    guard = "guards:\n  days: {data: days, answer: contains, max_new_tokens: %d}\ntrain:"
    for most, cut in ((8, False), (1, True)):  # "Friday" is one token, its end another
        asked = spec.replace("\ntrain:", f"\n{guard % most}")
        (tmp_path / "gapmend.yaml").write_text(asked, "utf-8")
        ws = resolve(OpenWorkspace.open(tmp_path), Ui(as_json=True))
        report = select(ws, Ui(as_json=True))
        kept = [row.cut for row in read_selection(ws.store, report.selection_id) if row.answer]
        assert kept == [cut] * 20
        examples = training_rows(ws, report.selection_id)
        assert sum(getattr(one, "cut", False) for one in examples) == (20 if cut else 0)


def test_a_base_that_only_repeats_itself_is_one_line(tmp_path: Path, monkeypatch) -> None:
    temperatures(tmp_path, 60)
    write(tmp_path / "chat.jsonl", [chat(f"Tell me {number}", "no") for number in range(40)])
    spec = (
        SPEC.replace("few", "train")
        .replace("mixed", "chat")
        .replace("pool: [chat, texts]", "pool: [intent, chat]")
    )
    spec = spec.replace("  texts: {path: {train: texts.jsonl}}\n", "").replace("200", "20")
    (tmp_path / "gapmend.yaml").write_text(spec, "utf-8")

    def around_and_around(*given: Any) -> list[OwnAnswer]:
        return [OwnAnswer("no and " * 40, ended=False, tokens=90) for _ in given[1]]

    monkeypatch.setattr(Readings, "own_answers", around_and_around)
    with pytest.raises(ModelError) as error:
        select(OpenWorkspace.open(tmp_path), Ui(as_json=True))
    assert str(error.value) == (
        "bases.nano: none of the 24 answers that the base gives by itself can be replayed: 24 "
        "endless repetition; expected a base that answers, and ends. Take another base, name "
        "guards with data, or set train.replay: 0"
    )
    assert not OpenWorkspace.open(tmp_path).catalog.committed("selection")
