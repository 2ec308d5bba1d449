"""Erasing rows that a real loop has measured, chosen and trained on: nothing of them is left.

Every object, database, journal and leftover is decoded; the text is found in each kind of place
before, so that not finding it after means something.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from evals.engine.journal import FOLDER, Journal
from pipeline.forget import forget
from pipeline.gap import gap
from pipeline.ingest import ingest, resolve
from pipeline.measure.measure import TunedModel
from pipeline.merge import merge
from pipeline.select import select
from pipeline.selection.selection import read_selection, training_rows
from pipeline.train import train
from pipeline.verbs.erase import EraseReport, erase
from pipeline.verbs.gc import GcReport, gc
from pipeline.verbs.push import _dataset_parcel
from pipeline.verbs.reproduce import reproduce
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.catalog.open import open_catalog
from registry.errors import UserError
from registry.lineage.adapter_facts import describe
from registry.lineage.graph import lineage
from registry.store.kinds import VersionMeta
from registry.store.objects import Parent
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild
from tests.integration.pipeline.test_select_to_merge import BAD, GOOD
from tests.integration.pipeline.test_select_to_merge import SPEC as WORKSPACE
from tests.support import tiny_models
from tests.support.decode import find
from tests.support.plain_rows import load_rows

pytestmark = pytest.mark.slow

CANARY = "Zyzzyvarius"
WHERE = f"messages::VARCHAR LIKE '%{CANARY}%' OR meta::VARCHAR LIKE '%{CANARY}%'"
SPEC = WORKSPACE.replace("budget_rows: 60", "budget_rows: 40")
THINGS = ("film", "book", "play", "song", "meal", "story", "trip", "game")


def mood(rng: random.Random, name: str) -> dict[str, str]:
    words = rng.choice((GOOD, BAD))
    text = (
        f"{name} says number {rng.randrange(9999)}: the {rng.choice(THINGS)} was "
        f"{rng.choice(words)} and {rng.choice(words)} with {rng.choice(THINGS)}."
    )
    return {"text": text, "label": "positive" if words is GOOD else "negative", "who": name}


def colour(rng: random.Random, name: str) -> dict[str, str]:
    shade = rng.choice(("red", "blue"))
    text = f"{name} has {rng.randrange(9999)} {shade} {rng.choice(THINGS)}s in {rng.random()}."
    return {"text": text, "label": shade, "who": name}


def make_workspace(root: Path) -> OpenWorkspace:
    tiny_models.save(root / "base", "llama")
    rng = random.Random(0)
    for dataset, make in (("mood", mood), ("colour", colour)):
        for split, count in (("train", 120), ("dev", 60), ("test", 30)):
            rows = [make(rng, f"{CANARY} {n}" if n % 3 == 0 else f"Ann {n}") for n in range(count)]
            if (dataset, split) == ("colour", "train"):
                # A label that only an erased row has is in the list of labels, and so in the
                # identity of every evaluation.
                rows[0]["label"] = f"{CANARY} shade"
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (root / f"{dataset}-{split}.jsonl").write_text(lines)
    (root / "gapmend.yaml").write_text(SPEC)
    return OpenWorkspace.open(root)


@dataclass
class Erased:
    ws: OpenWorkspace
    before: set[str]
    looked: EraseReport
    done: EraseReport
    between: set[str]
    seen: GcReport
    collected: GcReport
    after: set[str]
    versions: dict[str, int]
    versions_of: dict[str, int]
    newest_of: dict[str, str]
    adapter: str
    selection: str
    files: set[str]


def leave_what_kills_leave(ws: OpenWorkspace) -> None:
    """Leave what processes leave that are killed while they evaluate, write, select and train."""
    Journal(ws.state / FOLDER / f"{'0' * 64}.jsonl").path.parent.mkdir(exist_ok=True)
    journal = Journal(ws.state / FOLDER / f"{'0' * 64}.jsonl")
    journal.add("key", f"I know {CANARY}")
    journal.flush()
    work = ws.state / "work" / "train-0123456789abcdef"
    work.mkdir(parents=True)
    (work / "rows.json").write_text(json.dumps([CANARY]))
    cache = ws.state / "cache" / "texts"
    cache.mkdir(parents=True)
    (cache / "one.json").write_text(json.dumps({"text": CANARY}))
    (ws.state / "fault.log").write_text(f"ValueError: {CANARY}\n")
    # An evaluation that was put and never committed.
    version = ws.catalog.committed("eval")[0]
    with ws.store.draft() as folder:
        source = ws.store.get("eval", version.id).path
        (folder / "samples.parquet").write_bytes((source / "samples.parquet").read_bytes())
        ref = ws.store.put("eval", folder, identity={"orphan": 1}, meta={"subject": "mood"})
    os.utime(ref.path, (1, 1))
    # A failed run says what it stumbled over.
    said = {"error": f"ValueError: can't read {CANARY} 0 says number"}
    run = ws.store.put(
        "run", None, identity={"stage": "gap", "key": "k", "attempt": "1"},
        meta={"stage": "gap", "status": "failed", "key": "k", "inputs": {}, "result": said,
              "started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:00:01+00:00",
              "seconds": 1.0, "code_version": 1},
    )  # fmt: skip
    ws.catalog.commit([run])


def leave_a_draft(ws: OpenWorkspace) -> None:
    """Leave a draft of a killed process; the next that writes an object sweeps it away."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    host, _, rest = ws.store.scratch_path().name.partition(".")
    draft = ws.store.drafts / f"{host}.{gone.stdout.strip()}.{rest.rpartition('.')[2]}"
    draft.mkdir(parents=True)
    (draft / "rows.jsonl").write_text(f'{{"text": "{CANARY}"}}\n')


@pytest.fixture(scope="module")
def erased(tmp_path_factory) -> Erased:
    ws, ui = make_workspace(tmp_path_factory.mktemp("erased")), Ui()
    gap(ws, ui)
    selected = select(ws, ui)
    trained = train(ws, ui, selected.selection_id)
    forget(ws, ui, TunedModel(trained.adapter_id))
    merge(ws, ui, trained.adapter_id)
    leave_what_kills_leave(ws)
    push = ws.store.put(
        "push", None, identity={"object": trained.adapter_id},
        parents=[Parent(trained.adapter_id, "adapter")],
        meta={"object_id": trained.adapter_id, "kind": "adapter", "repo": "me/it",
              "adapter_id": trained.adapter_id, "revision": "a" * 40, "private": True,
              "request": None, "url": "https://hub.invalid/me/it", "files": {}},
    )  # fmt: skip
    ws.catalog.commit([push])
    versions = {
        one.id: len(load_rows(ws.store, one.id)) for one in ws.catalog.committed("dataset_version")
    }
    leave_a_draft(ws)
    newest_of = {one.meta.name: one.id for one in ws.catalog.committed(VersionMeta)}
    before = find(ws.state, CANARY)
    looked = erase(ws, ui, WHERE, [], reason="asked to", do=False)
    assert find(ws.state, CANARY) == before  # looking changes nothing
    done = erase(ws, ui, WHERE, [], reason="asked to", do=True)
    between = find(ws.state, CANARY)
    seen = gc(ws, Ui(as_json=True), remove=False)
    files = {path.relative_to(ws.state).as_posix() for path in ws.state.rglob("*")}
    collected = gc(ws, Ui(as_json=True), remove=True)
    return Erased(
        ws=ws,
        before=before,
        looked=looked,
        done=done,
        between=between,
        seen=seen,
        collected=collected,
        after=find(ws.state, CANARY),
        versions=versions,
        versions_of={name: versions[one] for name, one in newest_of.items()},
        newest_of=newest_of,
        adapter=trained.adapter_id,
        selection=selected.selection_id,
        files=files,
    )


def places(found: set[str]) -> set[str]:
    return {place.split("/")[0 if not place.startswith("objects/") else 1] for place in found}


def test_the_text_was_everywhere_and_is_nowhere(erased) -> None:
    expected = {"rows", "dataset_version", "eval", "run", "catalog.duckdb: duckdb objects"}
    assert places(erased.before) >= expected | {"partial", "tmp", "work", "cache"}
    kinds = {place.rpartition(": ")[2] for place in erased.before}
    assert kinds >= {"parquet messages", "parquet meta", "parquet prompt", "json"}
    assert any(p.startswith("objects/eval") and "manifest.json" in p for p in erased.before)
    assert not any(place.startswith("objects/") for place in erased.between)
    assert erased.after == set()


def test_it_was_told_what_saw_the_rows(erased) -> None:
    reach = erased.looked.reach
    kinds = {one.kind for one in reach.objects}
    assert kinds >= {"dataset_version", "eval", "selection", "adapter", "merge", "model", "push"}
    assert [one.id for one in reach.of("adapter")] == [erased.adapter]
    assert [one.name for one in reach.of("push")] == [f"me/it@{'a' * 12}"]
    assert {place.file for place in reach.places} >= {"mood-train.jsonl", "colour-dev.jsonl"}
    assert erased.looked.erasure_id is None
    assert erased.done.reach == reach


def test_every_old_version_still_answers_without_the_rows(erased) -> None:
    ws = erased.ws
    for version, rows in erased.versions.items():
        left = load_rows(ws.store, version)
        assert len(left) == rows - rows // 3
        assert not any(CANARY in str(row) for row in left)
        found = ws.catalog.sql(
            f"SELECT count(*), count(messages) FROM rows WHERE version_id = '{version}'"
        )
        assert found.rows == [(len(left), len(left))]
    listed = ws.catalog.sql(
        "SELECT sum(rows), sum(train + dev + test + held) FROM dataset_versions"
    )
    assert (
        listed.rows[0][0] == listed.rows[0][1] == sum(v - v // 3 for v in erased.versions.values())
    )


def test_scores_selections_and_lineage_stay(erased) -> None:
    ws = erased.ws
    lines = ws.catalog.sql("SELECT count(*), count(DISTINCT subject) FROM eval_samples").rows
    assert lines[0][0] > 0
    empty = "SELECT count(*) FROM eval_samples WHERE prompt = '' AND row_hash = ''"
    assert ws.catalog.sql(empty).rows[0][0] > 0
    uids = set(erased.done.reach.uids)
    chosen = ws.catalog.sql("SELECT row_uid, row_hash FROM selected_rows").rows
    mine = [row_hash for uid, row_hash in chosen if uid in uids]
    assert mine
    assert set(mine) == {""}
    uid = next(uid for uid, _ in chosen if uid in uids)
    assert ws.catalog.sql(f"FROM adapters_that_saw({uid})").rows == [
        (erased.adapter, erased.selection)
    ]


def test_what_can_no_longer_be_reproduced_is_marked(erased) -> None:
    ws = erased.ws
    found = ws.catalog.sql("SELECT adapter_id, erasure_id, rows FROM unreproducible").rows
    assert [row[:2] for row in found] == [(erased.adapter, erased.done.erasure_id)]
    with pytest.raises(UserError, match=r"can't be trained again as it was: \d+ rows") as caught:
        reproduce(ws, Ui(), erased.adapter)
    assert "\n" not in str(caught.value)


def test_an_adapter_that_saw_the_rows_can_still_be_described_and_traced(erased) -> None:
    ws = erased.ws
    facts = describe(ws.store, ws.catalog, erased.adapter)
    assert facts.adapter_id == erased.adapter
    assert CANARY not in str(facts)
    graph = lineage(ws.catalog, erased.adapter)
    assert {one.kind for one in graph.nodes} >= {"selection", "dataset_version", "rows", "eval"}
    down = lineage(ws.catalog, erased.selection, down=True)
    assert erased.done.erasure_id in {one.id for one in down.nodes}


def test_a_version_that_lost_rows_is_not_pushed_under_its_old_id(erased, tmp_path: Path) -> None:
    manifest = erased.ws.catalog.manifest(erased.newest_of["mood"])
    with pytest.raises(UserError, match=r"rows were erased from version .* of 'mood'"):
        _dataset_parcel(erased.ws, manifest, "mood", "me/it", tmp_path)


def test_the_tombstone_says_when_and_why_and_nothing_else(erased) -> None:
    ws = erased.ws
    found = ws.catalog.sql("SELECT rows, reason, len(version_ids) FROM erasures").rows
    assert found == [(len(erased.done.reach.uids), "asked to", 2)]
    manifest = ws.catalog.manifest(erased.done.erasure_id)
    assert set(manifest.files) == {"erased.parquet"}
    assert set(manifest.meta.as_json()) == {"created_at", "reason", "rows", "began", "redacted"}


def test_gc_took_what_it_had_shown_and_nothing_that_is_committed(erased) -> None:
    ws = erased.ws
    assert {one.what for one in erased.seen.found} == {
        *("orphan", "workdir", "cache", "journal", "log"),
    }
    assert set(erased.collected.found) == set(erased.seen.found)
    gone = erased.files - {path.relative_to(ws.state).as_posix() for path in ws.state.rglob("*")}
    shown = tuple(one.path for one in erased.seen.found)
    assert all(path.startswith(shown) for path in gone)
    assert gc(ws, Ui(as_json=True), remove=False).found == ()


def test_the_store_is_whole_and_the_catalog_can_be_rebuilt(erased) -> None:
    ws = erased.ws
    assert fsck(ws.store, ws.catalog).findings == ()

    def tables() -> dict[str, list[tuple]]:
        with open_catalog(ws.state, wait_s=5, write=False) as connection:
            return {
                name: connection.execute(f"FROM catalog.{name} ORDER BY ALL").fetchall()
                for name in ("objects", "edges", "adapters", "alias_moves", "removals")
            }

    before = tables()
    rebuild(ws.store, ws.catalog)
    assert tables() == before
    assert find(ws.state, CANARY) == set()


def test_the_same_files_do_not_bring_the_rows_back(erased, capsys) -> None:
    ws, ui = erased.ws, Ui()
    reports = ingest(ws, ui).datasets
    said = capsys.readouterr().err
    for report in reports:
        assert not report.cached
        rows = erased.versions_of[report.name]
        assert report.facts["rows"] == rows - rows // 3
        assert report.facts["erased"] == rows // 3
        assert f"{report.name}: {rows // 3} rows were erased on purpose" in said
        left = load_rows(ws.store, report.version_id)
        assert len(left) == rows - rows // 3
        # What was placed before stays where it was, under the number that it had.
        old = load_rows(ws.store, erased.newest_of[report.name])
        assert [(row.uid, row.split) for row in left] == [(row.uid, row.split) for row in old]
        assert report.version_id != erased.newest_of[report.name]
    assert all(report.cached for report in ingest(ws, ui).datasets)
    assert find(ws.state, CANARY) == set()
    # And the loop goes on, with other rows than before.
    selected = select(ws, ui)
    assert selected.selection_id != erased.selection
    uids = set(erased.done.reach.uids)
    with pytest.raises(UserError, match="selected rows are not there any more"):
        training_rows(resolve(ws, ui), erased.selection)
    assert not uids & {row.row_uid for row in read_selection(ws.store, selected.selection_id)}
    assert find(ws.state, CANARY) == set()
    assert fsck(ws.store, ws.catalog).findings == ()
