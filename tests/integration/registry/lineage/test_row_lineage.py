"""Which rows an adapter was taught, and which adapters saw a row: through merges, by few files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from registry.catalog.catalog import Catalog
from registry.errors import StoreError
from registry.lineage.bitmaps import write_bitmaps
from registry.store.objects import Parent, Store

if TYPE_CHECKING:
    from registry.store.objects import ObjectRef


@dataclass
class Kept:
    store: Store
    catalog: Catalog

    def put(
        self, kind: str, key: str, *parents: tuple[ObjectRef, str], changed: bool = False, **meta
    ) -> ObjectRef:
        identity = {"key": key, **({"changed": True} if changed else {})}
        made = self.store.put(
            kind,
            None,
            identity=identity,
            parents=[Parent(ref.id, role) for ref, role in parents],
            meta=meta,
        )
        self.catalog.commit([made])
        return made

    def version(self, name: str, uids: list[int], split: str = "train") -> ObjectRef:
        refs = [
            {
                "row_uid": uid,
                "row_hash": f"h{uid}",
                "split": split,
                "source_file": f"{name}.csv",
                "source_line": uid + 2,
            }
            for uid in uids
        ]
        with self.store.draft() as draft:
            parquet.write_table(pa.Table.from_pylist(refs), draft / "refs.parquet")
            identity = {"version": name}
            made = self.store.put(
                "dataset_version", draft, identity=identity, meta={"name": name, "rows": len(uids)}
            )
        self.catalog.commit([made])
        return made

    def selection(self, key: str, uids: list[int], *versions: ObjectRef) -> ObjectRef:
        picks = [
            {
                "row_uid": uid,
                "row_hash": f"h{uid}",
                "capability": key,
                "reason": "gap",
                "score": 0.5,
                "rank": rank,
            }
            for rank, uid in enumerate(uids)
        ]
        with self.store.draft() as draft:
            parquet.write_table(pa.Table.from_pylist(picks), draft / "rows.parquet")
            write_bitmaps(uids, draft / "bitmaps.parquet")
            parents = [Parent(version.id, "dataset") for version in versions]
            made = self.store.put("selection", draft, identity={"key": key}, parents=parents)
        self.catalog.commit([made])
        return made

    def trained(self, key: str, selection: ObjectRef, kind: str = "adapter") -> ObjectRef:
        run = self.put("run", key, (selection, "selection"), stage="train", status="done")
        parents = ((run, "run"), (selection, "selection"))
        return self.put(kind, key, *parents, changed=kind == "model")

    def taught(self, thing: ObjectRef) -> list[tuple[object, ...]]:
        asked = (
            "SELECT row_uid, dataset, capability, reason, source_file, source_line FROM rows_of(?)"
            " ORDER BY capability, rank"
        )
        return self.catalog.sql(asked, [thing.id]).rows

    def saw(self, uid: int) -> set[str]:
        return {row[0] for row in self.catalog.sql("FROM adapters_that_saw(?)", [uid]).rows}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(Store(tmp_path), Catalog(tmp_path))


def test_rows_come_with_version_reason_and_place_in_the_order_of_training(kept: Kept) -> None:
    version = kept.version("bank", [3, 70_000, 8])
    adapter = kept.trained("a", kept.selection("intent", [70_000, 3], version))
    kept.trained("b", kept.selection("days", [8], version))
    assert kept.taught(adapter) == [
        (70_000, "bank", "intent", "gap", "bank.csv", 70_002),
        (3, "bank", "intent", "gap", "bank.csv", 5),
    ]
    found = kept.catalog.sql(f"SELECT DISTINCT version_id FROM rows_of('{adapter.id[:9]}')").rows
    assert found == [(version.id,)]


def test_a_row_of_two_versions_is_one_line_and_train_is_preferred(kept: Kept) -> None:
    one, two = kept.version("held", [1], split="test"), kept.version("free", [1, 2])
    adapter = kept.trained("a", kept.selection("intent", [1, 2, 9], one, two))
    assert kept.taught(adapter) == [
        (1, "free", "intent", "gap", "free.csv", 3),
        (2, "free", "intent", "gap", "free.csv", 4),
        (9, None, "intent", "gap", None, None),  # of no version that the selection drew on
    ]


def test_what_an_adapter_is_started_from_or_put_together_from_is_its_own(kept: Kept) -> None:
    version = kept.version("bank", list(range(10)))
    first = kept.trained("a", kept.selection("s1", [1], version))
    second = kept.trained("b", kept.selection("s2", [2], version))
    alone = kept.trained("c", kept.selection("s3", [3], version))
    run = kept.put("run", "m", (first, "adapter"), (second, "adapter"), stage="merge")
    merged = kept.put("adapter", "m", (run, "run"), (first, "part"), (second, "part"))
    again = kept.put("adapter", "n", (merged, "start"))
    assert [row[0] for row in kept.taught(again)] == [1, 2]
    assert kept.saw(1) == {first.id, merged.id, again.id}
    assert kept.saw(2) == {second.id, merged.id, again.id}
    assert kept.saw(3) == {alone.id}
    assert kept.saw(4) == set()


def test_models_count_changed_ones_as_adapters_and_merged_ones_by_their_rows(kept: Kept) -> None:
    version = kept.version("bank", [1, 2])
    whole = kept.trained("w", kept.selection("s1", [1], version), kind="model")
    merge_run = kept.put("run", "merge", (whole, "adapter"), stage="merge")
    merged = kept.put("model", "merged", (merge_run, "run"), (whole, "adapter"))
    assert kept.saw(1) == {whole.id}
    assert [row[0] for row in kept.taught(whole)] == [row[0] for row in kept.taught(merged)] == [1]


def test_a_run_that_measured_with_a_selection_is_not_training(kept: Kept) -> None:
    selection = kept.selection("s1", [1], kept.version("bank", [1]))
    run = kept.put("run", "looked", (selection, "selection"), stage="mend")
    other = kept.put("adapter", "other", (run, "run"))
    assert kept.saw(1) == set()
    assert kept.taught(other) == []


def test_files_of_other_selections_and_versions_are_not_read(kept: Kept) -> None:
    many = list(range(5000, 30_000))  # of fewer rows than this, DuckDB rather reads the files
    version, other = kept.version("bank", [1, *many]), kept.version("else", many)
    adapter = kept.trained("a", kept.selection("s1", [1], version))
    elsewhere = kept.trained("b", kept.selection("s2", many, other))
    for ref, name in ((other, "refs.parquet"), (_selection_of(kept, elsewhere), "rows.parquet")):
        _spoil_data(ref.path / name)
    assert [row[0] for row in kept.taught(adapter)] == [1]
    named = f"(select id from objects where id = '{adapter.id}')"
    assert len(kept.catalog.sql(f"from rows_of({named})").rows) == 1
    with pytest.raises(StoreError, match="SHA-256 is another"):
        kept.taught(elsewhere)
    kept.catalog.sql("select ? from rows_of(?)", ["?", adapter.id])
    with pytest.raises(StoreError, match="SHA-256 is another"):  # of every adapter
        kept.catalog.sql("from rows_of('') union all from rows_of(?)", [adapter.id])


def _selection_of(kept: Kept, adapter: ObjectRef) -> ObjectRef:
    (parent,) = (p for p in kept.store.manifest(adapter)["parents"] if p["role"] == "selection")
    return kept.store.get("selection", parent["id"])


def _spoil_data(path: Path) -> None:
    """Break a file's pages; its footer, which says what columns there are, stays."""
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.chmod(0o644)
    path.write_bytes(bytes(data))
