"""A few rows are those that one gets who reads all of a version and chooses in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings

from registry.datasets.versions.few import count, positions_in, rows_by_uid, rows_placed
from registry.datasets.versions.query import version_files
from registry.datasets.versions.read import VersionReader
from registry.errors import StoreError
from tests.integration.registry.datasets.versions.test_read import ALL, stored, versions
from tests.support.made_versions import Made, Versions, sft

if TYPE_CHECKING:
    from collections.abc import Mapping

_FEW = settings(max_examples=7, deadline=None, phases=[Phase.explicit, Phase.generate])
ROWS = 20


def said(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a page shows of a row, of either reader."""
    stands = (line["row_uid"], line["split"], line["source_file"], line["source_line"])
    turns = [
        [(turn["role"], turn["content"]) for turn in line.get(name) or ()]
        for name in ("messages", "chosen", "rejected")
    ]
    return (*stands, turns, line.get("label"), line.get("tools"))


@_FEW
@given(versions())
def test_rows_are_found_by_place_uid_and_split(made: Any) -> None:
    with stored(*made) as (store, version):
        files = version_files(store, version)
        lines = [one for some in VersionReader(store, version).lines(ALL) for one in some]
        assert count(files) == len(lines)
        every = rows_placed(files, range(len(lines)))
        assert [said(row) for row in every.values()] == [said(line) for line in lines]
        assert [*every] == [*range(len(lines))]
        some = [*range(0, len(lines), 4)]
        assert [*rows_placed(files, some)] == some
        uids = {line["row_uid"] for line in lines[1::3]}
        by_uid = rows_by_uid(files, [*uids, 10**9])
        assert {uid: said(row) for uid, row in by_uid.items()} == {
            line["row_uid"]: said(line) for line in lines[1::3]
        }
        for split in ALL:
            there = [at for at, line in enumerate(lines) if line["split"] == split]
            for offset in (0, 1, 3, 50):
                found = positions_in(files, split, limit=2, offset=offset)
                assert found == there[offset : offset + 2]


def put(root: Path) -> tuple[Versions, str]:
    kept = Versions(root / ".gapmend")
    rows = [Made(sft(f"question {n}", f"answer {n}"), line=n + 1) for n in range(ROWS)]
    return kept, kept.put(rows)


def test_content_is_unpacked_as_far_as_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, version = put(tmp_path)
    files = version_files(kept.store, version)
    read: list[tuple[str, int]] = []
    batches, group = pq.ParquetFile.iter_batches, pq.ParquetFile.read_row_group

    def iter_batches(self: Any, *given: Any, **named: Any) -> Any:
        read.append(("rows", named["row_groups"][0]))
        return batches(self, *given, **named)

    def read_row_group(self: Any, number: int, *given: Any, **named: Any) -> Any:
        read.append(("refs", number))
        return group(self, number, *given, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    # Groups of three rows, whose uids are from 1: 8 and 9 are in the third one, 14 in the fifth.
    assert [*rows_by_uid(files, [8, 9, 14])] == [8, 9, 14]
    assert sorted(read) == [("refs", 2), ("refs", 4), ("rows", 2), ("rows", 4)]


def test_rows_of_another_dataset_stand_where_that_one_has_them(tmp_path: Path) -> None:
    kept, version = put(tmp_path)
    files = version_files(kept.store, version)
    uids = [row["row_uid"] for row in rows_placed(files, range(ROWS)).values()]
    lines = [{"row_uid": uid, "source_file": "b.jsonl", "source_line": 90 - uid} for uid in uids]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "places.parquet", row_group_size=3)
    other = rows_placed(replace(files, places=tmp_path / "places.parquet"), [4, 11])
    assert [(row["source_file"], row["source_line"]) for row in other.values()] == [
        ("b.jsonl", 90 - uids[4]),
        ("b.jsonl", 90 - uids[11]),
    ]
    assert [row["messages"][0]["content"] for row in other.values()] == [
        "question 4",
        "question 11",
    ]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    kept, version = put(tmp_path)
    files = version_files(kept.store, version)
    files.rows[0].write_bytes(files.rows[0].read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"rows\.parquet"):
        rows_by_uid(files, [3])
