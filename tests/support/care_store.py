"""A small store with an object of every kind, as the stages write them, made without a model.

    python care_store.py ROOT      makes it, for tests that work on it as a user

Row 3 says `CANARY`: it is in two versions, measured, chosen, and what an adapter was trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry.catalog.catalog import Catalog
from registry.datasets.formats.content import Content, Message, content_hash, content_schema
from registry.datasets.versions.row import refs_schema
from registry.datasets.versions.splits import cluster_number
from registry.lineage.bitmaps import write_bitmaps
from registry.store.objects import ObjectRef, Parent, Store
from tests.support.made_versions import content_record

CANARY = "Zyzzyvarius of Kalamazoo"
ROWS = 12
ERASED_UID = 3
HEX = "ab" * 32


def content(uid: int) -> Content:
    said = (
        f"{CANARY} lives at number {uid}" if uid == ERASED_UID else f"question number {uid} of all"
    )
    return Content("sft", (Message("user", said), Message("assistant", "yes" if uid % 2 else "no")))


def ref_line(uid: int, split: str = "train") -> dict[str, Any]:
    row_hash = content_hash(content(uid))
    meta = {"who": CANARY if uid == ERASED_UID else "somebody"}
    return {
        "row_uid": uid, "row_hash": row_hash, "split": split, "tags": [],
        "cluster": cluster_number(row_hash), "source": "talk", "source_file": "talk.jsonl",
        "source_line": uid + 1, "license": None, "meta": json.dumps(meta),
        "sources": [{"file": "talk.jsonl", "line": uid + 1, "split": split}],
    }  # fmt: skip


def _table(path: Path, lines: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    pq.write_table(pa.Table.from_pylist(lines, schema), path, compression="zstd", row_group_size=5)


def _version(store: Store, number: int, uids: range, rows: ObjectRef) -> ObjectRef:
    lines = [ref_line(uid, "test" if uid == 1 else "train") for uid in uids]
    reject = {
        "stage": "ingest", "reason": f"label not in the label set: '{CANARY}'",
        "source_file": "talk.jsonl", "source_line": 99,
    }  # fmt: skip
    with store.draft() as draft:
        _table(draft / "refs.parquet", lines, refs_schema())
        _table(draft / "rejects.parquet", [reject])
        return store.put(
            "dataset_version", draft, identity={"number": number},
            parents=[Parent(rows.id, "rows")],
            meta={"name": "talk", "rows": len(lines), "records": len(lines) + 1, "rejects": 1,
                  "splits": {"train": len(lines) - 1, "test": 1}, "clusters": len(lines),
                  "license": None},
        )  # fmt: skip


def _rows(store: Store) -> ObjectRef:
    with store.draft() as draft:
        lines = [content_record(u, content_hash(content(u)), content(u)) for u in range(ROWS)]
        _table(draft / "rows.parquet", lines, content_schema())
        return store.put("rows", draft, identity={"rows": 1}, meta={"rows": ROWS})


def _eval(store: Store, adapter: str | None = None) -> ObjectRef:
    lines = [
        {
            "row_uid": uid, "row_hash": content_hash(content(uid)),
            "cluster": ref_line(uid)["cluster"],
            "prompt": content(uid).messages[0].content, "expected": "yes",
            "answer": f"I know: {content(ERASED_UID).messages[0].content}" if uid == 5 else "no",
            "score": 0.0, "loglikelihoods": [-1.0, -2.0], "prompt_tokens": 9,
        }
        for uid in range(1, 7)
    ]  # fmt: skip
    reject = {"row_uid": ERASED_UID, "row_hash": HEX, "source_file": "talk.jsonl",
              "source_line": 4, "base": "nano", "reason": "too long", "stage": "eval"}  # fmt: skip
    with store.draft() as draft:
        _table(draft / "samples.parquet", lines)
        _table(draft / "rejects.parquet", [reject])
        return store.put(
            "eval", draft,
            identity={"adapter": adapter, "labels": ["yes", "no", f"{CANARY} too"]},
            parents=[Parent(adapter, "adapter")] if adapter else [],
            meta=eval_meta(adapter),
        )  # fmt: skip


def _selection(store: Store, parents: list[Parent]) -> ObjectRef:
    lines = [
        {"row_uid": uid, "row_hash": content_hash(content(uid)), "capability": "talk",
         "reason": "gap", "score": 0.5, "rank": rank,
         "answer": CANARY if uid == ERASED_UID else None}
        for rank, uid in enumerate((7, ERASED_UID, 8))
    ]  # fmt: skip
    reject = {"stage": "select", "base": "nano", "source": "talk", "reason": "too long",
              "row_uid": ERASED_UID, "row_hash": HEX, "source_file": "talk.jsonl",
              "source_line": 4, "excerpt": content(ERASED_UID).messages[0].content}  # fmt: skip
    with store.draft() as draft:
        _table(draft / "rows.parquet", lines)
        write_bitmaps((7, ERASED_UID, 8), draft / "bitmaps.parquet")
        _table(draft / "rejects.parquet", [reject])
        return store.put(
            "selection", draft, identity={"rows": 1}, parents=parents,
            meta={"base": "nano", "rows": 3, "replay_rows": 0, "budget": {"talk": 3}, "round": 0},
        )  # fmt: skip


def _run(store: Store, stage: str, parents: list[Parent], **result: Any) -> ObjectRef:
    meta = {
        "stage": stage, "key": stage, "status": "done", "started_at": "2026-01-02T03:04:05+00:00",
        "ended_at": "2026-01-02T03:04:06+00:00", "seconds": 1.0, "code_version": 1,
        "inputs": {"name": "talk"}, "config": {}, "seed": 0, "result": result, "outputs": [],
        "environment": {}, "hardware": {},
    }  # fmt: skip
    return store.put(
        "run", None, identity={"stage": stage, "key": stage}, parents=parents, meta=meta
    )


def _plain(store: Store, kind: str, parents: list[Parent], /, **meta: Any) -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(kind.encode() * 50)
        identity = {"object": parents[0].id} if kind == "removal" else {"of": kind}
        return store.put(kind, draft, identity=identity, parents=parents, meta=meta)


def eval_meta(adapter: str | None = None) -> dict[str, Any]:
    """Return what an evaluation of this store says."""
    return {
        "subject": "talk", "split": "dev", "arm": "zero_shot", "n": 6, "mean": 0.0, "low": 0.0,
        "high": 0.5, "prompt_tokens_mean": 9.0, "base": "nano", "adapter_id": adapter,
        "scale": 1.0, "rejects": 1,
    }  # fmt: skip


def make(root: Path) -> tuple[Store, Catalog]:
    """Make the store; every id is the same each time."""
    store, catalog = Store(root), Catalog(root, wait_s=5)
    catalog.reserve_uids(ROWS)
    rows = _rows(store)
    versions = [_version(store, 1, range(8), rows), _version(store, 2, range(ROWS), rows)]
    catalog.commit([rows, *versions])
    measured = _eval(store)
    found = _plain(store, "gap", [Parent(measured.id, "eval")], base="nano", findings=[])
    failed = _run(store, "gap", [], error=f"ValueError: no answer in '{CANARY} lives at'")
    catalog.commit([measured, found, failed])
    selection = _selection(store, [Parent(found.id, "gap"), Parent(versions[1].id, "dataset")])
    trained = _run(store, "train", [Parent(selection.id, "selection")], refused=[])
    adapters = [
        _plain(store, "adapter", [Parent(trained.id, "run"), Parent(selection.id, "selection")],
               base="nano", method="lora", round=0, rank=4, rows=3, loss=0.5),
    ]  # fmt: skip
    tuned = adapters[0]
    with store.draft() as draft:
        _table(
            draft / "metrics.parquet", [{"step": 1, "name": "loss", "value": 0.5, "seconds": 1.0}]
        )
        figures = store.put(
            "metrics", draft, identity={"of": 1}, parents=[Parent(trained.id, "run")],
            meta={"rows": 1, "steps": 1},
        )  # fmt: skip
    catalog.commit([selection, trained, tuned, figures])
    after = _eval(store, tuned.id)
    of_it = [Parent(tuned.id, "adapter")]
    model = _plain(store, "model", of_it, base="nano")
    kept: list[dict[str, Any]] = []
    more = [
        after,
        _plain(store, "forgetting", [*of_it, Parent(after.id, "eval")], adapter=tuned.id,
               scale=1.0, split="dev", kept=kept),
        _plain(store, "promotion", of_it, base="nano", adapter_id=tuned.id, promoted=True,
               split="test", tests={}, looks=1, reasons=[]),
        model,
        _plain(store, "merge", [*of_it, Parent(model.id, "model")], base="nano", path="m",
               dtype="float32", bound=1e-4, scale=1.0, max_difference=1e-6),
        _plain(store, "export", [Parent(model.id, "model")], form="safetensors", bytes=1),
        _plain(store, "push", of_it, object_id=tuned.id, kind="adapter", repo="me/it",
               revision="c" * 40, adapter_id=tuned.id, private=True, request=None, url="u",
               files={}),
        _plain(store, "signature", of_it, thing_kind="adapter", files=1, format="OMS"),
        _plain(store, "reproduction", of_it, same=True, changed={}),
        _plain(store, "base", [], name="nano"),
        _plain(store, "removal", [Parent(tuned.id, "removed")], reason="test"),
    ]  # fmt: skip
    catalog.commit(more)
    catalog.move_alias(store, "champion", tuned.id, reason="best")
    catalog.move_alias(store, "champion", model.id, reason="better")
    return store, catalog


if __name__ == "__main__":
    make(Path(sys.argv[1]))
