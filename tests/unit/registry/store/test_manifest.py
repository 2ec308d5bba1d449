"""Manifests as typed values: read as they were written, or refused in one line with the path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.catalog import Catalog
from registry.errors import StoreError
from registry.store.filenames import MANIFEST
from registry.store.kinds import KINDS, AdapterMeta, MetricsMeta, RunMeta, VersionMeta
from registry.store.manifest import Meta, manifest_in, manifest_of
from registry.store.objects import Parent, Sealed, Store, manifest_text, read_manifest

OBJECTS = Path("/store/objects")


def text(**given: Any) -> str:
    said = {
        "format": 1,
        "kind": "dataset_version",
        "id": "ab",
        "identity": {"license": None},
        "files": {"refs.parquet": {"sha256": "cd", "bytes": 3}},
        "parents": [{"id": "ef", "role": "rows"}],
        "meta": {"created_at": "2026-01-02T03:04:05+00:00", "name": "days", "rows": 3},
    }
    return json.dumps(said | given)


def test_the_parts_are_typed() -> None:
    found = manifest_of(text(), OBJECTS, VersionMeta)
    assert found.files == {"refs.parquet": Sealed("cd", 3)}
    assert found.parents == (Parent("ef", "rows"),)
    assert (found.meta.name, found.meta.rows, found.meta.splits) == ("days", 3, {})
    assert found.redacted is None


def test_what_a_later_version_says_beside_is_kept_and_means_nothing() -> None:
    said = text(mood={"of": [1, 1.0, None]}, meta={"name": "d", "rows": 3, "weather": "fine"})
    found = manifest_of(said, OBJECTS, VersionMeta)
    assert found.meta.rows == 3
    assert manifest_text(found.as_json()) == manifest_text(json.loads(said))


def test_numbers_stay_as_they_were_written() -> None:
    said = text(kind="adapter", meta={"rank": 8, "alpha": 8.0, "loss": 1e-30, "seconds": 3})
    found = manifest_of(said, OBJECTS, AdapterMeta)
    assert manifest_text(found.as_json()) == manifest_text(json.loads(said))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"meta": {"rows": 3}}, "meta.name: field required"),
        (
            {"meta": {"name": "d", "rows": "3"}},
            'meta.rows: input should be a valid integer, found "3"',
        ),
        ({"meta": {"name": "d", "rows": 3.5}}, "meta.rows: "),
        ({"meta": {"name": "d", "rows": True}}, "meta.rows: "),
        ({"meta": {"name": 1, "rows": []}}, "(and 1 more)"),
        ({"meta": {"name": "d", "rows": 3, "splits": {"train": "x"}}}, "meta.splits.train: "),
        ({"meta": {"name": "d", "rows": 3, "leaks": {"exact": 1}}}, "meta.leaks.near: "),
        ({"meta": []}, "meta: "),
        ({"parents": [{"id": "ef"}]}, "parents.0.role: "),
    ],
)
def test_one_that_does_not_fit_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError) as caught:
        manifest_of(text(**given), OBJECTS, VersionMeta)
    line = str(caught.value)
    assert line.startswith(f"{OBJECTS}/dataset_version/ab/{MANIFEST}: this manifest doesn't fit: ")
    assert message in line
    assert "\n" not in line


def test_another_kind_and_a_missing_part_of_the_identity_are_said() -> None:
    found = manifest_of(text(), OBJECTS, VersionMeta)
    assert found.of(VersionMeta) is found
    with pytest.raises(StoreError, match=r"ab/manifest.json: .*a dataset_version, where a run"):
        found.of(RunMeta)
    with pytest.raises(StoreError, match=r"ab/manifest.json: .*identity.license: .* found null"):
        found.decided_by("license")


def test_what_is_put_is_what_is_read(tmp_path: Path) -> None:
    store, catalog = Store(tmp_path), Catalog(tmp_path)
    ref = store.put("metrics", None, identity={"n": 1}, meta=MetricsMeta(rows=3, steps=2))
    other = store.put("metrics", None, identity={"n": 2}, meta={"rows": 3, "steps": 2})
    said, same = read_manifest(ref.path)["meta"], read_manifest(other.path)["meta"]
    assert said | {"created_at": ""} == {"created_at": "", "rows": 3, "steps": 2}
    assert said.keys() == same.keys()
    catalog.commit([ref])
    found = catalog.manifest(ref.id, MetricsMeta)
    assert found == catalog.committed(MetricsMeta)[0] == manifest_in(ref.path, MetricsMeta)
    assert found.as_json() == read_manifest(ref.path)
    assert catalog.committed(MetricsMeta, steps=2, rows=3) == [found]
    assert catalog.committed(MetricsMeta, steps=3) == []
    with pytest.raises(StoreError, match="a metrics, where a run is meant"):
        catalog.manifest(ref.id, RunMeta)


def test_a_number_that_json_has_not_is_never_written(tmp_path: Path) -> None:
    meta = AdapterMeta(loss=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).put("adapter", None, identity={"n": 1}, meta=meta)


def test_a_format_of_a_later_version_is_said(tmp_path: Path) -> None:
    ref = Store(tmp_path).put("made", None, identity={"n": 1})
    path = ref.path / MANIFEST
    said = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps(said | {"format": 2}))
    with pytest.raises(StoreError, match=r"manifest.json: has format 2, .* Update gapmend"):
        read_manifest(ref.path)


def test_every_kind_has_a_model_of_its_own() -> None:
    assert all(model.of_kind == kind for kind, model in KINDS.items())
    assert len({*KINDS.values(), Meta}) == len(KINDS) + 1
