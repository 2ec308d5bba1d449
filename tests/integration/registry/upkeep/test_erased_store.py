"""Erased rows are gone from every kind of object, under the old ids, and known when they return."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.recovery import PENDING
from registry.datasets.formats.content import content_hash
from registry.datasets.versions.erased import (
    KIND,
    erased_by_dataset,
    erased_rows,
    why_not_reproducible,
)
from registry.errors import StoreError, UserError
from registry.intake.rows import take_rows
from registry.lineage.reach import reach
from registry.lineage.rows import row_lineage
from registry.publish.rows import write_rows
from registry.store.kinds import ErasureMeta, VersionMeta
from registry.store.objects import Store, read_manifest
from registry.upkeep.erase import erase, erase_again, erasing
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild
from tests.support.care_store import CANARY, ERASED_UID, ROWS, content, make
from tests.support.decode import find
from tests.support.plain_rows import load_rows


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made") / ".gapmend"
    make(root)
    return root


@pytest.fixture
def made(tmp_path: Path, original: Path) -> tuple[Store, Catalog]:
    root = Path(shutil.copytree(original, tmp_path / ".gapmend"))
    return Store(root), Catalog(root, wait_s=5)


def erase_one(store: Store, catalog: Catalog, uid: int = ERASED_UID):
    with erasing(store.root):
        return erase(store, catalog, [uid], reason="asked to", advance=lambda _: None)


def test_no_object_and_no_table_has_the_text_afterwards(made) -> None:
    store, catalog = made
    before = find(store.root, CANARY)
    kinds = {place.split("/")[1] for place in before if place.startswith("objects/")}
    assert kinds == {"rows", "dataset_version", "eval", "run", "selection"}
    assert any("duckdb" in place for place in before)
    ids = {folder.name for folder in store.folders()}
    done = erase_one(store, catalog)
    assert find(store.root, CANARY) == set()
    assert not any(find(store.root, part) for part in ("Zyzzyvarius", "Kalamazoo"))
    assert {folder.name for folder in store.folders()} == ids | {done.id}
    assert done.rows == 1
    assert done.objects == {"rows": 1, "dataset_version": 2, "eval": 2, "run": 1, "selection": 1}
    assert fsck(store, catalog).findings == ()
    assert not (store.root / PENDING).exists()


def test_the_hash_of_the_row_is_gone_too(made) -> None:
    store, catalog = made
    row_hash = content_hash(content(ERASED_UID))
    cluster = str(int(row_hash[:15], 16))
    assert find(store.root, row_hash)
    erase_one(store, catalog)
    assert not find(store.root, row_hash)
    numbers = catalog.query("SELECT DISTINCT cluster FROM parquet.stored_samples").rows
    assert (int(cluster),) not in numbers
    assert len(numbers) == 6


def test_versions_answer_under_their_ids_without_the_row(made) -> None:
    store, catalog = made
    versions = catalog.committed("dataset_version")
    before = {one.id: load_rows(store, one.id) for one in versions}
    erase_one(store, catalog)
    for version, rows in before.items():
        left = load_rows(store, version)
        assert left == [row for row in rows if row.uid != ERASED_UID]
    counts = catalog.sql("SELECT rows, train, test FROM dataset_versions").rows
    assert counts == [(7, 6, 1), (ROWS - 1, ROWS - 2, 1)]


def test_what_stays_of_a_line_is_its_number_and_score(made) -> None:
    store, catalog = made
    erase_one(store, catalog)
    lines = catalog.sql(
        "SELECT row_uid, row_hash, prompt, answer, score FROM eval_samples"
        " WHERE adapter_id IS NULL ORDER BY row_uid"
    ).rows
    assert len(lines) == 6
    assert lines[2] == (ERASED_UID, "", "", "", 0.0)
    assert lines[4][3] == "I know: [erased]"  # a model had said the row
    assert lines[0][2] == content(1).messages[0].content
    picks = catalog.query("SELECT row_uid, row_hash, answer FROM parquet.stored_picks").rows
    assert [(uid, hash_ == "") for uid, hash_, _ in picks] == [(7, False), (3, True), (8, False)]
    reasons = {row[0] for row in catalog.sql("SELECT reason FROM rejects").rows}
    assert reasons == {"label not in the label set", "[erased]"}


def test_what_saw_the_row_is_told_before_and_after(made) -> None:
    store, catalog = made
    before = reach(catalog, [ERASED_UID])
    kinds = [one.kind for one in before.objects]
    assert sorted(set(kinds)) == [
        *("adapter", "dataset_version", "eval", "export", "merge", "model", "push", "selection"),
    ]
    assert [(place.file, place.line) for place in before.places] == [("talk.jsonl", 4)]
    [selection] = before.of("selection")
    assert why_not_reproducible(catalog, selection.id) is None
    done = erase_one(store, catalog)
    why = why_not_reproducible(catalog, selection.id)
    assert why is not None
    assert why.startswith("a row that it was trained on was erased on 20")
    [adapter] = before.of("adapter")
    assert catalog.sql("FROM unreproducible").rows[0][:4] == (adapter.id, selection.id, done.id, 1)
    assert catalog.sql(f"FROM adapters_that_saw({ERASED_UID})").rows == [(adapter.id, selection.id)]
    assert erased_by_dataset(catalog) == {"talk": [done.id]}
    traced = row_lineage(catalog, ERASED_UID)
    assert traced.places == ()
    assert [pick.selection_id for pick in traced.picks] == [selection.id]
    assert {"adapter", "merge", "push"} <= {one.kind for one in traced.made}


def test_how_many_rows_each_object_lost_is_on_record(made) -> None:
    """Rows 3, 7 and 9: the first version ends at 7, the evals ask 1 to 6, 7, 3 and 8 are chosen."""
    store, catalog = made
    by_size = {one.id: one.meta.rows for one in catalog.committed(VersionMeta)}
    with erasing(store.root):
        done = erase(store, catalog, [ERASED_UID, 7, 9], reason="", advance=lambda _: None)
    lost = catalog.manifest(done.id, ErasureMeta).meta.redacted
    kinds = {one: catalog.manifest(one).kind for one in lost}
    assert {by_size[one]: rows for one, rows in lost.items() if one in by_size} == {8: 2, ROWS: 3}
    assert sorted((kinds[one], rows) for one, rows in lost.items() if one not in by_size) == [
        *(("eval", 1), ("eval", 1), ("rows", 3), ("selection", 2)),
    ]
    assert catalog.sql("SELECT rows FROM unreproducible").rows == [(2,)]
    [selection] = [one for one, kind in kinds.items() if kind == "selection"]
    why = why_not_reproducible(catalog, selection)
    assert str(why).startswith("2 rows that it was trained on were erased on 20")
    again = erase_one(store, catalog, 8)
    lost = catalog.manifest(again.id, ErasureMeta).meta.redacted
    assert {kinds[one]: n for one, n in lost.items()} == {
        "rows": 1, "dataset_version": 1, "selection": 1,
    }  # fmt: skip
    assert str(why_not_reproducible(catalog, selection)).startswith("3 rows")


def test_the_row_is_known_when_it_comes_again(made, original) -> None:
    store, catalog = made
    assert len(erased_rows(store, catalog.committed(KIND))) == 0
    erase_one(store, catalog)
    erase_one(store, catalog, 5)
    known = erased_rows(store, catalog.committed(KIND))
    assert known.uids == {ERASED_UID, 5}
    assert [content_hash(content(uid)) in known for uid in (2, 3, 4, 5)] == [
        *(False, True, False, True),
    ]
    keys = {one.identity["key"] for one in catalog.committed("erasure")}
    assert len(keys) == 1
    root = Path(shutil.copytree(original, store.root.parent / "other"))
    other, elsewhere = Store(root), Catalog(root, wait_s=5)
    erase_one(other, elsewhere)
    assert elsewhere.committed("erasure")[0].identity["key"] not in keys


def test_erasing_again_is_refused_and_changes_nothing(made) -> None:
    store, catalog = made
    erase_one(store, catalog)
    with pytest.raises(UserError, match="none of these rows"):
        erase_one(store, catalog)
    assert len(catalog.committed("erasure")) == 1


def test_every_row_of_an_object_can_be_erased(made) -> None:
    store, catalog = made
    with erasing(store.root):
        erase(store, catalog, range(ROWS), reason="", advance=lambda _: None)
    for version in catalog.committed("dataset_version"):
        assert load_rows(store, version.id) == []
    assert catalog.sql("SELECT count(*) FROM rows").rows == [(0,)]
    assert fsck(store, catalog).findings == ()


def test_what_a_running_stage_wrote_later_is_found(made, original) -> None:
    store, catalog = made
    erase_one(store, catalog)
    assert erase_again(store, catalog) == 0
    source = next(path for path in Store(original).folders() if path.parent.name == "eval")
    with store.draft() as draft:
        (draft / "samples.parquet").write_bytes((source / "samples.parquet").read_bytes())
        meta = read_manifest(source)["meta"]
        meta.pop("created_at")
        ref = store.put("eval", draft, identity={"late": 1}, meta=meta)
    catalog.commit([ref])
    assert find(store.root, CANARY)
    assert erase_again(store, catalog) == 1
    assert not find(ref.path, content_hash(content(ERASED_UID)))
    assert fsck(store, catalog).findings == ()
    assert erase_again(store, catalog) == 0


def test_one_at_a_time(made) -> None:
    store, _ = made
    with erasing(store.root):
        other = _in_a_process(store.root)
    assert "another process is erasing" in other


def _in_a_process(root: Path) -> str:
    code = (
        "import sys; from pathlib import Path; from registry.upkeep.erase import erasing\n"
        "with erasing(Path(sys.argv[1])): print('in')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_a_dataset_from_elsewhere_does_not_bring_it_back(made, tmp_path: Path) -> None:
    store, catalog = made
    newest = catalog.committed("dataset_version")[-1]
    (tmp_path / "parcel").mkdir()
    write_rows(store, store.get("dataset_version", newest.id), "talk", tmp_path / "parcel")
    erase_one(store, catalog)
    with pytest.raises(UserError, match="1 of its rows were erased from this store"):
        take_rows(
            store, catalog, tmp_path / "parcel", name="pulled/it", license_=None, where="me/it"
        )
    assert find(store.root, CANARY) == set()


@pytest.mark.parametrize("lost", [False, True], ids=["catalog there", "catalog lost"])
def test_a_rebuild_finishes_an_erasure_that_was_decided(made, monkeypatch, lost: bool) -> None:
    store, catalog = made
    ids = {folder.name for folder in store.folders()}
    with monkeypatch.context() as patch:  # as if killed just after the rename that decides
        patch.setattr("registry.upkeep.erase.finish", lambda *_, **__: None)
        done = erase_one(store, catalog)
    assert (store.root / PENDING).is_dir()
    if lost:
        (store.root / "catalog.duckdb").unlink()
    assert rebuild(store, catalog).unreadable == ()
    assert not (store.root / PENDING).exists()
    assert find(store.root, CANARY) == set()
    assert {row[0] for row in catalog.query("SELECT id FROM objects").rows} == ids | {done.id}
    assert fsck(store, catalog).findings == ()


def test_an_object_that_is_damaged_stops_an_erasure_before_it_is_decided(made) -> None:
    store, catalog = made
    path = next(store.objects.glob("eval/*/samples.parquet"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-20])
    files = {path: path.read_bytes() for path in store.objects.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"samples\.parquet"):
        erase_one(store, catalog)
    now = {path: path.read_bytes() for path in store.objects.rglob("*") if path.is_file()}
    assert now == files
    assert catalog.committed("erasure") == []
    assert not (store.root / PENDING).exists()


HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


def test_another_program_that_has_the_catalog_open_stops_it_in_time(made) -> None:
    store, _ = made
    catalog = Catalog(store.root, wait_s=0.3)
    before = find(store.objects, CANARY)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root / "catalog.duckdb")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(UserError, match="open in another program"):
        erase_one(store, catalog)
    assert find(store.objects, CANARY) == before
    assert not (store.root / PENDING).exists()
    holder.stdin.close()
    holder.stdout.close()
    assert holder.wait(30) == 0
    erase_one(store, catalog)
    assert find(store.root, CANARY) == set()


def test_a_reason_is_kept_and_a_condition_is_not(made) -> None:
    store, catalog = made
    done = erase_one(store, catalog)
    said = json.dumps(catalog.manifest(done.id).as_json())
    assert "asked to" in said
    assert catalog.sql("SELECT reason FROM erasures").rows == [("asked to",)]
