"""From a gap to a merged model on a tiny random base: each stage's promises, on real files.

The base answers by chance, so a choice between two is right about half the time: there is a gap,
and a guard has answers to keep.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.text import Text

from pipeline import Workspace
from pipeline.forget import forget, judge
from pipeline.gap import GapReport, gap
from pipeline.ingest import resolve
from pipeline.measure.gates import SCALES
from pipeline.measure.measure import TunedModel, items_of, measure
from pipeline.mend import MendReport, _look, _State, mend
from pipeline.merge import MergeReport, merge
from pipeline.promote import PromoteReport, promote
from pipeline.report.stages import mend_tables, promote_tables
from pipeline.run import plan, run
from pipeline.select import SelectReport, select
from pipeline.selection.budget import LABEL_FLOOR
from pipeline.selection.selection import read_selection, training_rows
from pipeline.spec.subjects import subject
from pipeline.train import TrainReport, train
from pipeline.verbs.push import push
from pipeline.verbs.reproduce import reproduce
from pipeline.verbs.sign import sign
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.catalog import open as catalog_open
from registry.datasets.sources import resolve as datasets
from registry.errors import GateRefusedError, StoreError, StoreRequestError, UserError
from registry.lineage.adapter_facts import describe
from registry.publish.card import Publication, adapter_card
from registry.publish.signing import make_key
from registry.store.kinds import AdapterMeta, PromotionMeta, RunMeta
from tests.support import tiny_models
from tests.support.plain_rows import load_rows
from tests.support.used import usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

GOOD, BAD = ("warm", "funny", "wonderful", "lovely"), ("dull", "boring", "awful", "flat")
THINGS = ("film", "book", "play", "song", "meal", "story", "trip", "game")
NAMES = ("Ann", "Bob", "Cem", "Dora", "Eva", "Finn", "Gus", "Hao", "Ida", "Jan")
SPEC = """
bases: {tiny: {model: base}}
datasets:
  mood:
    path: {train: mood-train.jsonl, dev: mood-dev.jsonl, test: mood-test.jsonl}
    columns: {input: text, output: label}
  colour:
    path: {train: colour-train.jsonl, dev: colour-dev.jsonl, test: colour-test.jsonl}
    columns: {input: text, output: label}
capabilities:
  mood: {data: mood, answer: choice, goal: 0.95, prompts: {zero_shot: "Mood? {input}"}}
guards:
  colour: {data: colour, answer: choice, max_drop: 0.01, prompts: {zero_shot: "Colour? {input}"}}
train:
  {base: tiny, rank: 4, learning_rate: 0.003, epochs: 1, batch_tokens: 1024, batch_rows: 99,
   min_steps: 1, pool: [mood], budget_rows: 60, replay: 0.2}
mend: {rounds: 1}
"""


def mood(rng: random.Random) -> dict[str, str]:
    words = rng.choice((GOOD, BAD))
    text = (
        f"{rng.choice(NAMES)} says number {rng.randrange(9999)}: the {rng.choice(THINGS)} was "
        f"{rng.choice(words)} and {rng.choice(words)} with {rng.choice(THINGS)}."
    )
    return {"text": text, "label": "positive" if words is GOOD else "negative"}


def colour(rng: random.Random) -> dict[str, str]:
    name = rng.choice(("red", "blue"))
    text = (
        f"{rng.choice(NAMES)} has {rng.randrange(9999)} {name} {rng.choice(THINGS)}s in "
        f"{rng.choice(THINGS)} box {rng.randrange(999)}."
    )
    return {"text": text, "label": name}


def make_workspace(root: Path, spec: str = SPEC, *, rows: int = 200) -> OpenWorkspace:
    tiny_models.save(root / "base", "llama")
    rng = random.Random(0)
    for name, make in (("mood", mood), ("colour", colour)):
        for split, count in (("train", rows), ("dev", rows // 2), ("test", rows // 2)):
            lines = "".join(json.dumps(make(rng)) + "\n" for _ in range(count))
            (root / f"{name}-{split}.jsonl").write_text(lines)
    (root / "gapmend.yaml").write_text(spec)
    return OpenWorkspace.open(root)


@dataclass
class Loop:
    ws: OpenWorkspace
    found: GapReport
    selected: SelectReport
    trained: TrainReport
    mended: MendReport
    promoted: PromoteReport
    merged: MergeReport
    asked: Counter[str]


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count how often the catalog is opened, and how often a dataset's files are looked at."""
    asked: Counter[str] = Counter()

    def counting(name: str, real: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            asked[name] += 1
            return real(*given, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_open, "_attached", counting("opened", catalog_open._attached))
        patch.setattr(datasets, "source_files", counting("resolved", datasets.source_files))
        yield asked


@pytest.fixture(scope="module")
def loop(tmp_path_factory) -> Loop:
    ws, ui = make_workspace(tmp_path_factory.mktemp("loop")), Ui(as_json=True)
    with counted() as asked:
        report = run(ws, ui)
    done = {one.stage: one.report for one in report.done}
    return Loop(
        ws,
        done["gap"],
        done["select"],
        done["train"],
        done["mend"],
        done["promote"],
        merge(ws, ui, done["mend"].adapter_id),
        asked,
    )


def test_versions_are_found_once_and_the_catalog_is_opened_for_what_is_new(loop) -> None:
    runs = [run for run in loop.ws.catalog.committed(RunMeta) if run.meta.stage != "merge"]
    evals = len(loop.ws.catalog.committed("eval"))
    assert len(loop.ws.spec.datasets) == 2
    # To look ahead, and for the plan; to know whether there is a version, and to make it.
    assert loop.asked["resolved"] == 2 * 4
    # A transaction for each run; an ingest also reads what is there, and takes its uids.
    fewest = len(runs) + 2 * 2
    # Erasures and the champion are asked for; one is made champion, and SQL tells the end of it.
    more = 11 if loop.promoted.promoted else 3
    assert more < evals + 3  # each in a transaction of its own would be noticed
    # The look ahead asks for each dataset, and why it isn't there; for erasures, and for the runs
    # of ingest, gap and train.
    ahead = 2 * 2 + 4
    # The report asks for what it is about, for the facts of it, for what was erased, quantised or
    # not ended, and for each training's curves.
    told = 18 + 3 * len([run for run in runs if run.meta.stage == "train"])
    # What it took is gathered from its runs.
    taken = 4
    assert fewest < loop.asked["opened"] <= fewest + ahead + more + told + taken


def test_a_plan_asks_for_each_run_once(loop) -> None:
    ws = OpenWorkspace.open(loop.ws.root)
    with counted() as asked:
        steps = plan(ws, Ui())
    runs = len(ws.catalog.committed("run"))
    assert {step.state for step in steps} == {"up to date"}
    assert asked["resolved"] == 2
    assert 0 < asked["opened"] <= runs + 8


def runs_of(ws: OpenWorkspace) -> Counter[str]:
    return Counter(run.meta.stage for run in ws.catalog.committed(RunMeta))


def test_a_part_of_the_loop_runs_that_part_alone(tmp_path: Path) -> None:
    ws, ui = make_workspace(tmp_path, rows=80), Ui(as_json=True)
    with pytest.raises(StoreRequestError, match=r"ingest is not up to date \(has not run yet\)"):
        run(ws, ui, start="gap")
    assert runs_of(ws) == {}
    first = run(ws, ui, until="gap")
    assert [one.stage for one in first.done] == ["ingest", "gap"]
    assert runs_of(ws) == {"ingest": 2, "gap": 1, "run": 1}
    with pytest.raises(StoreRequestError, match="Run what is missing: gapmend run --until select"):
        run(ws, ui, start="train")
    then = run(ws, ui, start="select", until="select")
    assert [one.stage for one in then.done] == ["ingest", "gap", "select"]
    assert then.done[1].report.cached
    assert runs_of(ws) == {"ingest": 2, "gap": 1, "select": 1, "run": 2}


def test_what_is_before_the_first_stage_is_looked_up_by_the_spec_of_now(loop) -> None:
    before, ui = runs_of(loop.ws), Ui(as_json=True)
    mood_spec = loop.ws.spec.capabilities["mood"].model_copy(update={"goal": 0.96})
    other = loop.ws.spec.model_copy(update={"capabilities": {"mood": mood_spec}})
    with pytest.raises(StoreRequestError, match=r"--from: gap is not up to date \(changed: .*goal"):
        run(loop.ws.with_spec(other), ui, start="train")
    again = run(loop.ws, ui, start="promote", until="promote")
    assert again.done[-1].stage == "promote"
    assert again.code == (0 if loop.promoted.promoted else 1)
    assert runs_of(loop.ws) == before


def test_the_python_api_finds_what_the_loop_made(loop) -> None:
    ws, before = Workspace.open(loop.ws.root), runs_of(loop.ws)
    assert {step.state for step in ws.plan()} == {"up to date"}
    assert ws.gap() == replace(loop.found, cached=True, seconds=ws.gap().seconds)
    trained = ws.train(ws.select().selection_id)
    assert trained.adapter_id == loop.trained.adapter_id
    lost = ws.changed_items(ws.forget(trained.adapter_id), "lost")
    assert {item.guard for item in lost} <= {"mood", "colour"}
    assert ws.promote().promoted == loop.promoted.promoted
    assert ws.merge(loop.mended.adapter_id).model_id == loop.merged.model_id
    assert runs_of(loop.ws) == before
    ids = ws.sql("select adapter_id from adapters")["adapter_id"].to_list()
    assert {row["adapter_id"] for row in ws.adapters().rows} == set(ids)
    assert ws.adapter.show(trained.adapter_id[:10]).adapter_id == trained.adapter_id
    made = {node.id for node in ws.lineage(trained.adapter_id).nodes}
    assert loop.selected.selection_id in made
    assert {source.file for source in ws.source_files(trained.adapter_id)} >= {"mood-train.jsonl"}
    assert ws.row_lineage(read_selection(loop.ws.store, loop.selected.selection_id)[0].row_uid).made
    assert {one.name for one in ws.datasets()} == {"mood", "colour"}


def test_the_selection_is_what_the_budget_says(loop) -> None:
    assert loop.found.verdict("mood") == "tune"
    rows = read_selection(loop.ws.store, loop.selected.selection_id)
    reasons = Counter((row.capability, row.reason) for row in rows)
    assert reasons == {("mood", "gap"): 48, ("colour", "replay"): 12}
    assert [row.rank for row in rows] == list(range(60))
    spread = [row.rank for row in rows if row.reason == "replay"]
    assert max(b - a for a, b in itertools.pairwise(spread)) <= 6  # not appended
    examples = training_rows(resolve(loop.ws, Ui()), loop.selected.selection_id)
    said = Counter(example.messages[-1]["content"] for example in examples)
    assert min(said["positive"], said["negative"]) >= int(48 * LABEL_FLOOR / 2)
    for example in examples:
        prompt = "Mood? " if example.capability == "mood" else "Colour? "
        assert example.messages[0]["content"].startswith(prompt)


def test_nothing_of_dev_or_test_is_selected(loop) -> None:
    ws = loop.ws
    rows = read_selection(ws.store, loop.selected.selection_id)
    held: set[str] = set()
    for manifest in ws.catalog.committed("dataset_version"):
        held |= {r.row_hash for r in load_rows(ws.store, manifest.id, splits={"dev", "test"})}
    assert len(held) > 300
    assert not held & {row.row_hash for row in rows}


def test_only_what_the_base_gets_right_is_replayed(loop) -> None:
    ui = Ui()
    ws = resolve(loop.ws, ui)
    what = subject(ws.spec, "colour")
    uids = {r.row_uid for r in read_selection(ws.store, loop.selected.selection_id)}
    items = [item for item in items_of(ws, what, "train") if item.uid in uids]
    assert len(items) == 12
    result = measure(ws, ui, what, base="tiny", items=items, split="train")
    assert [sample.score for sample in result.samples] == [1.0] * 12
    everything = items_of(ws, what, "train")
    assert measure(ws, ui, what, base="tiny", items=everything, split="train").mean < 0.9


def test_what_was_left_to_the_machine_is_recorded(loop) -> None:
    trained = loop.trained
    assert (trained.learning_rate, trained.dtype, trained.recomputed) == (0.003, "fp32", False)
    run = loop.ws.catalog.manifest(trained.run_id, RunMeta).meta
    assert run.config["learning_rate"] == run.inputs["train"]["learning_rate"] == 0.003
    assert "activation_checkpointing" not in run.inputs["train"]


def test_the_catalog_tells_which_rows_taught_which_adapter(loop) -> None:
    sql = loop.ws.catalog.query
    taught = sql("SELECT count(*) FROM rows_that_taught(?)", [loop.trained.adapter_id])
    assert taught.rows == [(60,)]
    row = read_selection(loop.ws.store, loop.selected.selection_id)[0].row_uid
    saw = sql("SELECT count(*) FROM adapters_that_saw(?)", [row])
    assert saw.rows[0][0] >= 1


def test_each_round_is_recorded_with_what_it_lost_and_changed(loop) -> None:
    rounds = loop.mended.rounds
    assert rounds[0].adapter_id == loop.trained.adapter_id
    assert (rounds[0].rows, rounds[0].replay_rows) == (60, 12)
    assert set(rounds[0].kept) == {"colour"}
    assert set(rounds[0].closed) == {"mood"}
    if not loop.mended.mended:
        assert len(rounds) == 2
        assert rounds[1].added
        assert rounds[1].rows > rounds[0].rows
        assert rounds[1].adapter_id != rounds[0].adapter_id
        assert loop.mended.advice
        second = read_selection(loop.ws.store, rounds[1].selection_id)
        first = read_selection(loop.ws.store, rounds[0].selection_id)
        replayed = {r.row_uid for r in first if r.reason == "replay"}
        assert replayed <= {r.row_uid for r in second if r.reason == "replay"}


def test_mending_is_explained_from_the_catalog_alone(loop) -> None:
    told, rounds = Workspace.open(loop.ws.root).explain(), loop.mended.rounds
    assert told.rounds == rounds
    assert len(told.paragraphs) == len(rounds) + 1
    first = told.paragraphs[0]
    assert first.startswith(
        f"Round 0. Adapter {loop.trained.adapter_id[:8]} was trained on 60 rows: "
    )
    assert "48 drawn for mood" in first
    assert "12 with the base's own answers of colour" in first
    scores = [
        f"{one.closed['mood'].score.mean:.3f}"
        for one in (forget(loop.ws, Ui(), TunedModel(r.adapter_id)) for r in rounds)
    ]
    for one, said, score in zip(rounds, told.paragraphs, scores, strict=False):
        word = {"closed": "its gap is closed", "open": "still below its goal"}
        assert word.get(one.closed["mood"], "too few") in said
        assert f"to {score}" in said
        if one.kept["colour"] == "kept":
            assert "It kept colour." in said
        else:
            assert f"Of colour, {one.lost['colour']} items are lost" in said
    for one, said in zip(rounds[1:], told.paragraphs[1:], strict=False):
        for name, rows in one.added.items():
            assert f"{rows} more for {name}" in said
    assert told.paragraphs[-1].startswith(f"So it is {'' if loop.mended.mended else 'not '}mended")


def test_there_is_nothing_to_explain_where_nothing_was_mended(tmp_path) -> None:
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    with pytest.raises(StoreRequestError, match="nothing has been mended here yet"):
        Workspace.open(tmp_path).explain()


def test_forget_tells_what_changed_beyond_the_score(loop) -> None:
    ws, ui = loop.ws, Ui()
    report = forget(ws, ui, TunedModel(loop.trained.adapter_id))
    assert set(report.changes) == {"mood", "colour"}
    for change in report.changes.values():
        assert change.chance == 0.5
        assert change.normalised_drop == pytest.approx(2 * (change.before - change.after))
        assert change.kl is not None
        assert change.kl > 0
    (guard,) = report.kept
    again = report.changes["colour"].reprompt
    assert report.changes["mood"].reprompt is None  # it is to change
    assert (again is None) == (guard.passes or not guard.lost)
    if again is not None:
        assert (again.arm, again.asked) == ("few_shot_3", guard.lost)
        assert set(again.came_back_uids) <= set(guard.lost_uids)
    shown = ws.catalog.query(
        "SELECT chance, kl, asked_again, came_back FROM forgetting WHERE adapter_id = ?",
        [report.adapter_id],
    )
    back = None if again is None else len(again.came_back_uids)
    asked = None if again is None else again.asked
    assert shown.rows[0] == (0.5, report.changes["colour"].kl, asked, back)
    closed = ws.catalog.query("SELECT lost, gained FROM closed WHERE capability = 'mood'").rows
    assert (report.changes["mood"].lost, report.changes["mood"].gained) in closed


def test_two_adapters_are_compared_like_base_and_adapter(loop) -> None:
    ws, ui, adapter = loop.ws, Ui(), loop.trained.adapter_id
    same = forget(ws, ui, TunedModel(adapter), TunedModel(adapter))
    assert same.against == adapter
    assert [(f.lost, f.gained) for f in same.kept] == [(0, 0)]
    assert {change.kl for change in same.changes.values()} == {0.0}
    other = forget(ws, ui, TunedModel(adapter, 0.5), TunedModel(adapter))
    assert other.changes["mood"].before == same.changes["mood"].after
    assert other.changes["colour"].kl != 0
    assert forget(ws, ui, TunedModel(adapter), TunedModel(adapter)).cached
    assert not forget(ws, ui, TunedModel(adapter)).against


def test_promote_keeps_its_figures_and_moves_the_alias_only_when_all_gates_pass(loop) -> None:
    promoted, ws = loop.promoted, loop.ws
    passed = all(gate.passed for gate in promoted.gates)
    assert promoted.promoted == passed == (not promoted.reasons)
    assert ws.catalog.alias("champion") == (promoted.adapter_id if passed else None)
    figures = ws.catalog.query("SELECT adapter_id, promoted, looks FROM promotions").rows
    assert figures == [(promoted.adapter_id, passed, promoted.looks)]
    assert promoted.looks == (1 if promoted.split == "test" else 0)


def test_a_goal_that_is_moved_after_test_was_seen_is_another_look_and_is_named(
    loop, tmp_path, monkeypatch
) -> None:
    """Refused at the goal; the goal is lowered below what test showed, and all scores are there."""
    ws, ui = OpenWorkspace.open(shutil.copytree(loop.ws.root, tmp_path / "ws")), Ui(as_json=True)
    adapter = loop.trained.adapter_id
    forgot = forget(ws, ui, TunedModel(adapter))
    fine = {"mood": replace(forgot.closed["mood"], verdict="closed")}
    kept = tuple(replace(one, verdict="kept") for one in forgot.kept)
    dev = replace(forgot, closed=fine, kept=kept)  # dev lets it through
    monkeypatch.setattr("pipeline.promote.forget", lambda *_: dev)
    monkeypatch.setattr("pipeline.promote.gap", lambda *_: loop.found)

    def with_goal(goal: float, max_drop: float) -> OpenWorkspace:
        mood_spec = ws.spec.capabilities["mood"].model_copy(update={"goal": goal})
        guard = ws.spec.guards["colour"].model_copy(update={"max_drop": max_drop})
        parts = {"capabilities": {"mood": mood_spec}, "guards": {"colour": guard}}
        return ws.with_spec(ws.spec.model_copy(update=parts))

    begun = len(ws.catalog.committed(PromotionMeta, split="test"))
    first = promote(with_goal(0.99, 0.5), ui, adapter)
    assert (first.promoted, first.split, first.looks) == (False, "test", begun + 1)
    assert first.goals["mood"] == {"goal": 0.99, "margin": 0.02}
    then = promote(with_goal(0.1, 0.9), ui, adapter)
    assert (then.promoted, then.looks, then.alpha) == (True, begun + 2, 0.05 / 2 ** (begun + 1))
    assert then.earlier[-1].reasons == first.reasons
    moved = {str(one) for one in then.moved}
    assert f"mood: goal was 0.99 at look {begun + 1} and is 0.1" in moved or begun
    assert then.closed["mood"].score.low < first.closed["mood"].score.low  # of the same answers
    words = " ".join(
        "".join(str(one) for one in promote_tables(then) if isinstance(one, Text)).split()
    )
    assert f"refused: {first.reasons[0]}" in words
    assert "moved after test was looked at" in words
    again = promote(with_goal(0.99, 0.5), ui, adapter)
    assert (again.cached, again.looks, again.promoted) == (True, begun + 1, False)
    facts = describe(ws.store, ws.catalog, adapter)
    assert facts.decision is not None
    assert facts.decision.looks == begun + 2
    card = adapter_card(facts, Publication("me/it", adapter, "mit", {}, {}, usage()))
    assert f"let through at look {begun + 2} at these test items" in card
    assert "Goals that were moved after test had been looked at:" in card
    assert "Refused before on these test items:" in card
    assert f"{facts.interval} interval" in card


def test_every_setting_that_decided_an_adapter_is_shown(loop) -> None:
    facts = describe(loop.ws.store, loop.ws.catalog, loop.trained.adapter_id)
    chosen = {"dtype": "fp32", "activation_checkpointing": False}  # left out, and told then
    for key, value in (loop.ws.spec.train.model_dump(mode="json") | chosen).items():
        if not isinstance(value, dict):
            assert facts.settings[f"train.{key}"] == value
    assert facts.settings["selection"] == loop.selected.selection_id
    assert facts.settings["rows.mood"] == 48
    assert facts.settings["replay.colour"] == 12
    assert "made by torch" in facts.settings


def test_the_merge_is_proven_and_stored_as_a_model(loop) -> None:
    merged = loop.merged
    assert max(merged.merged, merged.reloaded) <= merged.bound
    assert (loop.ws.root / merged.path / "model.safetensors").is_file()
    found = loop.ws.catalog.query("SELECT adapter_id, max_difference, bound FROM merges").rows
    assert found[0][0] == merged.adapter_id
    assert found[0][1] <= found[0][2]


def test_everything_is_found_again(loop) -> None:
    ws, ui = OpenWorkspace.open(loop.ws.root), Ui()
    again = select(ws, ui)
    assert again.cached
    assert again.selection_id == loop.selected.selection_id
    mended = mend(ws, ui, loop.trained.adapter_id, again.selection_id)
    assert mended == loop.mended
    assert promote(ws, ui, mended.adapter_id).cached
    assert merge(ws, ui, mended.adapter_id).cached
    assert not ws.models._loaded  # no model was needed


def test_a_smaller_scale_that_keeps_everything_is_published_as_an_adapter(loop) -> None:
    ui, adapter = Ui(), loop.trained.adapter_id
    ws = resolve(loop.ws, ui)

    def worst(scale: float) -> float:
        judged = judge(ws, ui, loop.found, TunedModel(adapter, scale), "dev", only={"colour"})
        return judged.kept[0].difference.low

    # A drop between those at full and at half scale is allowed, and any score closes the gap.
    allowed = -(worst(1.0) + worst(0.5)) / 2
    assert worst(1.0) < -allowed < worst(0.5) < 0
    guard = ws.spec.guards["colour"].model_copy(update={"max_drop": allowed})
    easy = ws.spec.capabilities["mood"].model_copy(update={"goal": 0.1})
    spec = ws.spec.model_copy(update={"guards": {"colour": guard}, "capabilities": {"mood": easy}})
    changed = replace(ws, spec=spec)
    judged = judge(changed, ui, loop.found, TunedModel(adapter), "dev")
    report = replace(forget(ws, ui, TunedModel(adapter)), kept=judged.kept, closed=judged.closed)
    selection = loop.selected.selection_id
    another = 7  # a number of its own, for round 0 is on record with the spec's max_drop
    looked = _look(changed, ui, _State(another, adapter, selection, loop.found, report, {}))

    scale = looked.round.scale
    assert scale in SCALES[1:]
    assert looked.adapter_id not in {None, adapter}
    assert ws.catalog.manifest(looked.adapter_id, AdapterMeta).meta.scale == scale
    what = subject(ws.spec, "colour")
    items = items_of(ws, what, "dev")
    same = [
        measure(ws, ui, what, base="tiny", items=items, split="dev", tuned=tuned)
        for tuned in (TunedModel(adapter, scale), TunedModel(looked.adapter_id))
    ]
    assert [s.answer for s in same[0].samples] == [s.answer for s in same[1].samples]
    taught = ws.catalog.query("SELECT count(*) FROM rows_that_taught(?)", [looked.adapter_id])
    assert taught.rows == [(60,)]


@pytest.mark.parametrize("use", ["measure", "forget", "merge", "sign", "push", "reproduce"])
def test_weights_with_a_flipped_bit_are_used_for_nothing(loop, tmp_path, use: str) -> None:
    root = shutil.copytree(loop.ws.root, tmp_path / "ws")
    spec = root / "gapmend.yaml"
    spec.write_text(spec.read_text().replace("model: base}", "model: base, license: mit}"))
    ws, ui, adapter = OpenWorkspace.open(root), Ui(as_json=True), loop.trained.adapter_id
    tuned = TunedModel(adapter, 0.3)  # which nobody has asked yet
    file = ws.state / "objects" / "adapter" / adapter / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(data))
    count = "SELECT count(*) FROM objects WHERE kind <> 'run'"  # one that failed is on record
    before = ws.catalog.query(count).rows
    what = subject(ws.spec, "colour")
    calls: dict[str, Callable[[], object]] = {
        "measure": lambda: measure(
            resolve(ws, ui), ui, what, base="tiny", items=items_of(resolve(ws, ui), what, "dev"),
            split="dev", tuned=tuned,
        ),
        "forget": lambda: forget(ws, ui, tuned),
        "merge": lambda: merge(ws, ui, adapter),
        "sign": lambda: sign(ws, ui, adapter, make_key(tmp_path).private),
        "push": lambda: push(ws, ui, adapter, repo="me/it", dry=True),
        "reproduce": lambda: reproduce(ws, ui, adapter),
    }  # fmt: skip
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors.*SHA-256"):
        calls[use]()
    assert ws.catalog.query(count).rows == before


def test_nothing_is_selected_where_nothing_is_lacking(tmp_path) -> None:
    ws = make_workspace(tmp_path, SPEC.replace("goal: 0.95", "goal: 0.3"))
    assert gap(ws, Ui()).verdict("mood") == "met"
    with pytest.raises(GateRefusedError, match=r"nothing to train.*mood: met"):
        select(ws, Ui())
    assert not ws.catalog.committed("selection")


def test_items_that_are_too_long_are_rejects_where_the_spec_allows_them(tmp_path) -> None:
    allowed = SPEC.replace(
        "    columns: {input: text, output: label}\ncapabilities",
        "    columns: {input: text, output: label}\n    allow_rejects: 0.1\ncapabilities",
    )
    make_workspace(tmp_path, rows=80)
    with (tmp_path / "colour-dev.jsonl").open("a") as lines:
        for text in ("red box " * 400, "a red song and a red play " * 100):
            lines.write(json.dumps({"text": text, "label": "red"}) + "\n")
    with pytest.raises(UserError, match=r"colour: 2 of 42 items can't be scored") as refused:
        gap(OpenWorkspace.open(tmp_path), Ui())
    assert "colour-dev.jsonl:41" in str(refused.value)
    (tmp_path / "gapmend.yaml").write_text(allowed.replace("0.1", "0.001"))
    with pytest.raises(UserError):
        gap(OpenWorkspace.open(tmp_path), Ui())
    (tmp_path / "gapmend.yaml").write_text(allowed)
    ws = OpenWorkspace.open(tmp_path)
    assert gap(ws, Ui()).guards["colour"].n == 40
    listed = ws.catalog.query("SELECT source_file, source_line, reason FROM rejects").rows
    assert {row[:2] for row in listed} == {("colour-dev.jsonl", line) for line in (41, 42)}


def test_a_prompt_that_is_too_long_for_the_base_stops_no_other(tmp_path) -> None:
    prompts = '"Mood? {input}"}}\nguards'
    spec = SPEC.replace(prompts, '"Mood? {input}", few_shot: [2, 60]}}\nguards')
    assert spec != SPEC
    (found,) = gap(make_workspace(tmp_path, spec, rows=80), Ui()).findings
    assert found.verdict == "tune"
    assert found.best_prompt in {"few_shot_2", "few_shot_2_similar"}
    unfit = "(too long for the base's context: few_shot_60, few_shot_60_similar)"
    assert found.reason.endswith(unfit)


def test_several_bases_are_measured_one_after_another(tmp_path) -> None:
    spec = SPEC.replace("{model: base}}", "{model: base}, other: {model: more}}")
    make_workspace(tmp_path, spec, rows=80)
    tiny_models.save(tmp_path / "more", "qwen3")
    ws = OpenWorkspace.open(tmp_path)
    first, second = gap(ws, Ui(), "tiny"), gap(ws, Ui(), "other")
    assert (first.base, second.base) == ("tiny", "other")
    assert first.gap_id != second.gap_id
    assert [f.capability for f in first.findings] == [f.capability for f in second.findings]
    assert gap(ws, Ui()).gap_id == first.gap_id
    assert list(ws.models._loaded) == ["other"]  # the one before was freed
    with pytest.raises(UserError, match="no base is called 'third'; expected one of tiny, other"):
        gap(ws, Ui(), "third")


def test_mending_ends_where_the_pool_has_no_more_rows(tmp_path) -> None:
    guards = SPEC[SPEC.index("guards:") : SPEC.index("train:")]
    spec = SPEC.replace(guards, "").replace("budget_rows: 60, replay: 0.2", "budget_rows: 400")
    ws, ui = make_workspace(tmp_path, spec.replace("rounds: 1", "rounds: 3"), rows=80), Ui()
    selected = select(ws, ui)
    trained = train(ws, ui, selected.selection_id)
    mended = mend(ws, ui, trained.adapter_id, selected.selection_id)
    assert not mended.mended
    assert len(mended.rounds) < 4
    assert any("the pool has no more rows for mood" in line for line in mended.advice)


def test_a_round_that_has_no_row_for_what_was_lost_is_not_trained(loop, tmp_path) -> None:
    """Eight rows to train the guard on: all that are right are replayed in the first selection."""
    root, ui = shutil.copytree(loop.ws.root, tmp_path / "ws"), Ui(as_json=True)
    rows = (root / "colour-train.jsonl").read_text().splitlines(keepends=True)
    (root / "colour-train.jsonl").write_text("".join(rows[:8]))
    ws = OpenWorkspace.open(root)
    selected = select(ws, ui)
    assert selected.missing["colour"] > 0
    adapters = len(ws.catalog.committed(AdapterMeta))
    mended = mend(ws, ui, loop.trained.adapter_id, selected.selection_id)
    assert set(mended.rounds[0].closed.values()) != {"closed"}  # for mood there are more rows
    assert len(mended.rounds) == 1
    assert len(ws.catalog.committed(AdapterMeta)) == adapters
    (missing,) = mended.missing
    there = sum(part.rows for part in selected.parts if part.capability == "colour")
    assert missing.startswith(
        f"colour: of 8 rows for training in dataset 'colour' the {there} that the base gets right "
        "are replayed already, "
    )
    assert not any("fill in more for colour" in line for line in mended.advice)
    assert set(mended.rounds[0].curve) == {"1", "0.85", "0.7", "0.5"}
    assert all(set(one) == {"mood", "colour"} for one in mended.rounds[0].curve.values())
    words = "\n".join(str(one) for one in mend_tables(mended) if isinstance(one, Text))
    assert f"it would add no row for what was lost\n- {missing}" in words


def test_a_witness_is_not_replayed_and_says_so_when_it_is_lost(loop, tmp_path) -> None:
    root, ui, trained = (
        shutil.copytree(loop.ws.root, tmp_path / "ws"),
        Ui(as_json=True),
        loop.trained,
    )
    spec = SPEC.replace("max_drop: 0.01,", "max_drop: 0.01, replay: false,")
    spec = spec.replace("replay: 0.2", "replay: 0.2, general: 0")
    (root / "gapmend.yaml").write_text(spec)
    ws = OpenWorkspace.open(root)
    assert gap(ws, ui).gap_id == loop.found.gap_id  # it decides no score
    selected = select(ws, ui)
    assert (selected.replay, selected.replay_rows) == ({}, 0)
    (finding,) = forget(ws, ui, TunedModel(trained.adapter_id)).kept
    assert finding.witness
    listed = ws.catalog.query("SELECT guard, witness FROM forgetting ORDER BY created_at").rows
    assert (listed[0], listed[-1]) == (("colour", False), ("colour", True))
    mended = mend(ws, ui, trained.adapter_id, selected.selection_id)
    assert mended.missing[0].startswith("colour is a witness, so none of its rows is trained on")
    promoted = promote(ws, ui, trained.adapter_id)
    assert any(reason.startswith("colour, a witness, is ") for reason in promoted.reasons)
    facts = describe(ws.store, ws.catalog, trained.adapter_id)
    card = adapter_card(facts, Publication("me/it", trained.adapter_id, "mit", {}, {}, usage()))
    assert "| colour (witness) | " in card
    assert "A witness is a guard of which no row was trained on" in card


@pytest.mark.soak
def test_a_lost_witness_is_filled_in_by_the_base_s_own_text(loop, tmp_path) -> None:
    root, ui = shutil.copytree(loop.ws.root, tmp_path / "ws"), Ui(as_json=True)
    spec = SPEC.replace("max_drop: 0.01,", "max_drop: 0.01, replay: false,")
    (root / "gapmend.yaml").write_text(spec)
    ws = OpenWorkspace.open(root)
    selected = select(ws, ui)
    assert (selected.replay, selected.replay_rows) == ({"own text": 0}, 0)
    mended = mend(ws, ui, loop.trained.adapter_id, selected.selection_id)
    assert mended.missing == ()
    assert mended.rounds[1].added["own text"] == mended.rounds[1].replay_rows > 0


def test_choices_of_each_row_s_own_go_through_gap_and_select(tmp_path) -> None:
    """Another list in every row, in a column of lists."""
    labels = "answer: choice, labels: '{options}', goal: 0.95"
    ws = make_workspace(tmp_path, SPEC.replace("answer: choice, goal: 0.95", labels))
    rng = random.Random(1)
    for split in ("train", "dev", "test"):
        path = tmp_path / f"mood-{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number, line in enumerate(rows):
            line["options"] = [f"{number} {word}" for word in rng.sample(THINGS, rng.randint(2, 4))]
            line["label"] = rng.choice(line["options"])
        path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    ui = Ui()
    ws = resolve(OpenWorkspace.open(tmp_path), ui)
    found = gap(ws, ui)
    assert found.verdict("mood") == "tune"
    what = subject(ws.spec, "mood")
    items = items_of(ws, what, "dev")
    result = measure(ws, ui, what, base="tiny", items=items, split="dev")
    assert result.cached
    assert {len(sample.loglikelihoods or ()) for sample in result.samples} == {2, 3, 4}
    assert all(s.answer in one.labels for s, one in zip(result.samples, items, strict=True))
    examples = training_rows(ws, select(ws, ui).selection_id)
    assert sum(example.capability == "mood" for example in examples) == 48
