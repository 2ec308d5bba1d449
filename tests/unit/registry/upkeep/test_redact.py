"""Taking rows and words out of one object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.errors import StoreError
from registry.store.hashing import file_digest
from registry.store.objects import ManifestJson, SealedJson
from registry.upkeep.phrases import Phrases
from registry.upkeep.redact import ErasedContents, redact
from tests.support.care_store import CANARY
from tests.support.decode import find


def sealed(folder: Path, *names: str) -> dict[str, SealedJson]:
    return {name: {"sha256": file_digest(folder / name), "bytes": 1} for name in names}


def test_a_dictionary_does_not_keep_the_text(tmp_path: Path) -> None:
    column = pa.array(["one", CANARY, "two"]).dictionary_encode()
    table = pa.table({"row_uid": pa.array([1, 2, 3], pa.int64()), "text": column})
    pq.write_table(table, tmp_path / "new.parquet")
    files = sealed(tmp_path, "new.parquet")
    manifest: ManifestJson = {
        "format": 1, "id": "", "parents": [], "kind": "new", "identity": {}, "meta": {},
        "files": files,
    }  # fmt: skip
    (tmp_path / "out").mkdir()
    gone = ErasedContents(frozenset({2}), frozenset(), {}, Phrases(()))
    done = redact(tmp_path, manifest, gone, tmp_path / "out", "e" * 64)
    assert done is not None
    assert done.rows == 1
    assert pq.read_table(tmp_path / "out" / "new.parquet")["text"].to_pylist() == ["one", "two"]
    assert not find(tmp_path / "out", CANARY)


def test_an_object_counts_the_most_lines_of_any_of_its_files(tmp_path: Path) -> None:
    """Of rows 2, 4 and 6 the files hold one, three (in two row groups) and none."""
    (tmp_path / "out").mkdir()
    for name, uids in (("a", [1, 2]), ("b", [2, 3, 4, 5, 6]), ("c", [7])):
        table = pa.table({"row_uid": pa.array(uids, pa.int64())})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    files = sealed(tmp_path, *(f"{name}.parquet" for name in "abc"))
    manifest: Any = {"kind": "rows", "identity": {}, "meta": {"rows": 5}, "files": files}
    gone = ErasedContents(frozenset({2, 4, 6}), frozenset(), {}, Phrases(()))
    done = redact(tmp_path, manifest, gone, tmp_path / "out", "e" * 64)
    assert done is not None
    assert done.rows == 3
    assert done.manifest["meta"] == {"rows": 2}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.parquet", "b.parquet"]
    assert done.manifest["files"]["c.parquet"] == files["c.parquet"]


def test_damage_is_not_sealed_as_what_is_right(tmp_path: Path) -> None:
    table = pa.table({"row_uid": pa.array([1, 2], pa.int64()), "n": pa.array([5, 6], pa.int64())})
    pq.write_table(table, tmp_path / "new.parquet", compression="none", use_dictionary=False)
    manifest: Any = {
        "kind": "rows", "identity": {}, "meta": {"rows": 2},
        "files": sealed(tmp_path, "new.parquet"),
    }  # fmt: skip
    data = (tmp_path / "new.parquet").read_bytes()
    six = (6).to_bytes(8, "little")
    (tmp_path / "new.parquet").write_bytes(data.replace(six, (7).to_bytes(8, "little"), 1))
    (tmp_path / "out").mkdir()
    gone = ErasedContents(frozenset({1}), frozenset(), {}, Phrases(()))
    with pytest.raises(StoreError, match=r"new\.parquet.*SHA-256"):
        redact(tmp_path, manifest, gone, tmp_path / "out", "e" * 64)


def test_phrases() -> None:
    phrases = Phrases(["Zyzzyvarius lives here", "short", " "])
    assert phrases.inside('so: "Zyzzyvarius lives here."')
    assert not phrases.inside("so: Zyzzyvarius lives there, in short")
    assert phrases.cut("x Zyzzyvarius lives here y") == "x [erased] y"
    assert phrases.touches("of Zyzzyvarius li…")
    assert phrases.touches("'short'")
    assert not phrases.touches("shortly before")
    assert not phrases.touches("nothing of it at all")
    assert not Phrases(())


def test_row_groups_that_have_no_such_row_stay_as_they_were(tmp_path: Path) -> None:
    table = pa.table({"row_uid": pa.array(range(10), pa.int64()), "text": ["x"] * 10})
    pq.write_table(table, tmp_path / "new.parquet", row_group_size=3)
    files = sealed(tmp_path, "new.parquet")
    manifest: ManifestJson = {
        "format": 1, "id": "", "parents": [], "kind": "new", "identity": {}, "meta": {},
        "files": files,
    }  # fmt: skip
    (tmp_path / "out").mkdir()
    none = ErasedContents(
        frozenset({77}), frozenset({"ab"}), {5: 6}, Phrases(["nothing of the kind"])
    )
    assert redact(tmp_path, manifest, none, tmp_path / "out", "e" * 64) is None
    assert list((tmp_path / "out").iterdir()) == []
    gone = ErasedContents(frozenset({3, 4, 5, 9}), frozenset(), {}, Phrases(()))
    done = redact(tmp_path, manifest, gone, tmp_path / "out", "e" * 64)
    assert done is not None
    assert done.rows == 4
    with pq.ParquetFile(tmp_path / "out" / "new.parquet") as file:
        groups = [file.read_row_group(n)["row_uid"].to_pylist() for n in range(2)]
        assert file.num_row_groups == 2
    assert groups == [[0, 1, 2], [6, 7, 8]]
    assert done.manifest["redacted"] == {"by": ["e" * 64], "identity": False}
    again = redact(tmp_path / "out", done.manifest, gone, tmp_path, "f" * 64)
    assert again is None


def test_what_a_manifest_calls_its_parts_is_left_alone(tmp_path: Path) -> None:
    words = Phrases(["dataset_version", "a text of a row", "purple"])
    (tmp_path / "out").mkdir()
    manifest: ManifestJson = {
        "format": 1,
        "id": "",
        "parents": [],
        "kind": "run",
        "identity": {"stage": "gap", "labels": ["red", "purple"]},
        "meta": {
            "inputs": {"dataset_version": "purple", "sql": "where text = 'a text of a row'"},
            "outputs": [{"kind": "dataset_version"}],
            "result": {"error": "no place for 'a text of a r", "refused": [{"row_uid": 3}]},
        },
        "files": {},
    }
    done = redact(
        tmp_path,
        manifest,
        ErasedContents(frozenset(), frozenset(), {}, words),
        tmp_path / "out",
        "e" * 64,
    )
    assert done is not None
    assert done.manifest["identity"] == {"stage": "gap", "labels": ["red", "[erased]"]}
    assert done.manifest["redacted"]["identity"]
    assert done.manifest["meta"] == {
        "inputs": {"dataset_version": "purple", "sql": "where text = '[erased]'"},
        "outputs": [{"kind": "dataset_version"}],
        "result": {"error": "[erased]", "refused": [{"row_uid": 3}]},
    }
