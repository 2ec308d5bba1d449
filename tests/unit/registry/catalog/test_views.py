"""The views: there on an empty store, and saying what manifests and Parquet files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from registry.catalog.catalog import Catalog
from registry.catalog.views import PARQUET, all_names
from registry.lineage.bitmaps import write_bitmaps
from registry.store.objects import ObjectRef, Parent, Store

MACROS = {
    "adapters_that_saw": "adapters_that_saw(1)",
    "files_of": "files_of('')",
    "rows_of": "rows_of('')",
    "rows_that_taught": "rows_that_taught('')",
}


def put(
    store: Store,
    kind: str,
    key: str,
    *parents: Parent,
    tables: dict[str, list[dict]] | None = None,
    **meta: object,
) -> ObjectRef:
    with store.draft() as draft:
        for file, lines in (tables or {}).items():
            parquet.write_table(pa.Table.from_pylist(lines), draft / file)
        return store.put(kind, draft, identity={"name": key}, parents=parents, meta=meta)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store with one of everything; `ids` by name are in its root's parent."""
    store = Store(tmp_path_factory.mktemp("workspace") / ".gapmend")
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    content = [
        {"row_uid": uid, "row_hash": f"h{uid}", "kind": "sft", "messages": said, "tools": None}
        for uid in (1, 2, 70_000)
    ]
    rows = put(store, "rows", "content", tables={"rows.parquet": content})
    refs = [
        {
            "row_uid": uid,
            "row_hash": f"h{uid}",
            "split": split,
            "tags": ["t"],
            "cluster": uid,
            "source": "banking",
            "source_file": "train.csv",
            "source_line": uid,
            "license": "CC-BY-4.0",
            "meta": '{"extra": 1}',
        }
        for uid, split in ((1, "train"), (2, "dev"), (70_000, "train"))
    ]
    rejects = [{"stage": "ingest", "source": "banking", "reason": "empty answer"}]
    version = put(
        store,
        "dataset_version",
        "v1",
        Parent(rows.id, "rows"),
        tables={"refs.parquet": refs, "rejects.parquet": rejects},
        name="banking",
        rows=3,
        rejects=1,
        splits={"train": 2, "dev": 1},
        license="CC-BY-4.0",
    )
    samples = [{"row_uid": 2, "row_hash": "h2", "answer": "x", "score": 0.0, "prompt_tokens": 9}]
    scored = put(
        store,
        "eval",
        "e1",
        tables={"samples.parquet": samples},
        subject="intent",
        split="dev",
        arm="zero_shot",
        n=1,
        mean=0.0,
        low=0.0,
        high=0.3,
        base="nano",
        adapter_id=None,
        scale=1.0,
    )
    finding = {
        "capability": "intent",
        "goal": 0.8,
        "margin": 0.02,
        "base": {"mean": 0.1, "low": 0.05, "high": 0.15, "n": 500},
        "gap": 0.7,
        "best_prompt": None,
        "best_prompt_interval": None,
        "verdict": "tune",
        "items_to_settle": None,
    }
    gap = put(store, "gap", "g1", Parent(scored.id, "eval"), base="nano", findings=[finding])
    picks = [
        {
            "row_uid": uid,
            "row_hash": f"h{uid}",
            "capability": "intent",
            "reason": reason,
            "score": 0.5,
            "rank": rank,
        }
        for rank, (uid, reason) in enumerate([(70_000, "gap"), (1, "replay")])
    ]
    with store.draft() as draft:
        parquet.write_table(pa.Table.from_pylist(picks), draft / "rows.parquet")
        write_bitmaps([1, 70_000], draft / "bitmaps.parquet")
        selection = store.put(
            "selection", draft, identity={"name": "s1"}, parents=[Parent(gap.id, "gap")], meta={}
        )
    run = put(store, "run", "r1", Parent(selection.id, "selection"), stage="train", status="done")
    tuned = put(store, "adapter", "a1", Parent(run.id, "run"), base="nano", rank=16)
    other = put(store, "adapter", "a2", base="nano", rank=8)
    part = put(store, "adapter", "a3", Parent(tuned.id, "part"), Parent(other.id, "part"))
    guard = {"guard": "sums", "n": 100, "before": 0.9, "after": 0.8, "lost": 12, "gained": 2}
    guard |= {"difference": {"mean": -0.1, "low": -0.15, "high": -0.05, "n": 100}}
    guard |= {"verdict": "forgotten", "accepted": False}
    closed = {"intent": {"goal": 0.8, "score": {"mean": 0.85, "n": 500}, "verdict": "closed"}}
    forgotten = put(
        store, "forgetting", "f1", adapter=tuned.id, scale=0.85, kept=[guard], closed=closed
    )
    refs_made = [rows, version, scored, gap, selection, run, tuned, other, part, forgotten]
    Catalog(store.root).commit(refs_made)
    names = ["rows", "version", "eval", "gap", "selection", "run", "tuned", "other", "part"]
    ids = {name: ref.id for name, ref in zip(names, refs_made, strict=False)}
    (store.root.parent / "ids.json").write_text(json.dumps(ids))
    return store


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store.root, wait_s=30)


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    return json.loads((store.root.parent / "ids.json").read_text())


def view_names() -> list[str]:
    """Names of all views and macros that people may query."""
    return [name for name in all_names() if name not in PARQUET]


def test_every_view_works_on_an_empty_store(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for name in view_names():
        result = catalog.sql(f"SELECT * FROM {MACROS.get(name, name)}")
        assert result.rows == []
        assert len(result.columns) >= 2, name


def test_the_views_of_the_design_are_there() -> None:
    promised = (
        "datasets dataset_versions rows rejects gaps eval_results eval_samples selections"
        " selected_rows runs adapters aliases lineage merges pushes"
    )
    assert set(promised.split(" ")) <= set(view_names())


def test_rows_join_content_with_what_a_version_says(catalog: Catalog, ids) -> None:
    rows = catalog.sql(
        "SELECT row_uid, kind, messages[2].content, split, source_line, license, tags,"
        " meta->>'extra', dataset, version_id FROM rows ORDER BY row_uid"
    ).rows
    assert rows[0] == (
        1, "sft", "a", "train", 1, "CC-BY-4.0", ["t"], "1", "banking", ids["version"],
    )  # fmt: skip
    assert [row[0] for row in rows] == [1, 2, 70_000]
    counted = catalog.sql("SELECT name, versions, rows, rejects, train, dev, test FROM datasets")
    assert counted.rows == [("banking", 1, 3, 1, 2, 1, 0)]


def test_a_column_that_a_writer_left_out_is_null(catalog: Catalog) -> None:
    assert catalog.sql("SELECT DISTINCT label, chosen FROM rows").rows == [(None, None)]
    rejects = catalog.sql("SELECT stage, subject, base, reason, source_line FROM rejects").rows
    assert rejects == [("ingest", "banking", None, "empty answer", None)]


def test_verdicts_are_one_line_each(catalog: Catalog, ids) -> None:
    gaps = catalog.sql(
        "SELECT capability, base, goal, score, low, high, gap, best_prompt, verdict, gap_id"
        " FROM gaps"
    )
    assert gaps.rows == [("intent", "nano", 0.8, 0.1, 0.05, 0.15, 0.7, None, "tune", ids["gap"])]
    lost = catalog.sql("SELECT guard, adapter_id, scale, lost, difference, verdict FROM forgetting")
    assert lost.rows == [("sums", ids["tuned"], 0.85, 12, -0.1, "forgotten")]
    closed = catalog.sql("SELECT capability, adapter_id, score, verdict FROM closed")
    assert closed.rows == [("intent", ids["tuned"], 0.85, "closed")]


def test_samples_know_what_they_are_of(catalog: Catalog, ids) -> None:
    samples = catalog.sql(
        "SELECT subject, split, arm, base, adapter_id, row_uid, answer, eval_id FROM eval_samples"
    )
    assert samples.rows == [("intent", "dev", "zero_shot", "nano", None, 2, "x", ids["eval"])]


def test_which_adapters_saw_a_row(catalog: Catalog, ids) -> None:
    saw = "SELECT adapter_id FROM adapters_that_saw(?) ORDER BY adapter_id"
    both = sorted([ids["tuned"], ids["part"]])
    assert [row[0] for row in catalog.sql(saw, [70_000]).rows] == both
    assert [row[0] for row in catalog.sql(saw, [1]).rows] == both
    assert catalog.sql(saw, [2]).rows == []
    assert catalog.sql(saw, [10**9]).rows == []


def test_which_rows_taught_an_adapter(catalog: Catalog, ids) -> None:
    taught = catalog.sql(
        "SELECT row_uid, reason, source_file FROM rows_that_taught(?) ORDER BY rank",
        [ids["tuned"][:10]],
    )
    assert taught.rows == [(70_000, "gap", "train.csv"), (1, "replay", "train.csv")]
    of_other = catalog.sql(f"SELECT * FROM rows_that_taught('{ids['other']}')")
    assert of_other.rows == []
    listed = catalog.sql("SELECT selection_id FROM adapters WHERE run_id IS NOT NULL").rows
    assert listed == [(ids["selection"],)]


def test_what_was_never_committed_is_not_seen(store: Store, catalog: Catalog) -> None:
    before = catalog.sql("SELECT count(*) FROM rows").rows
    refs = [{"row_uid": 1, "row_hash": "h1", "split": "test"}]
    ref = put(store, "dataset_version", "orphan", tables={"refs.parquet": refs}, name="orphan")
    damaged = ref.path / "refs.parquet"
    damaged.chmod(0o644)
    damaged.write_bytes(b"not parquet")
    assert catalog.sql("SELECT count(*) FROM rows").rows == before
    shutil.rmtree(ref.path)


def test_a_moved_workspace_still_answers(store: Store, tmp_path: Path) -> None:
    moved = tmp_path / "it's moved"
    shutil.copytree(store.root, moved)
    assert Catalog(moved).sql("SELECT count(*) FROM rows").rows == [(3,)]
