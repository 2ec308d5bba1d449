"""A store that was made before manifests were typed: it opens, and reads back as it was written.

`tests/golden/store-79a9993.tar.gz` is what commit 79a9993 left after run, merge, export, sign,
promote, reproduce, `adapter rm` and erase on 48 rows of two of the quickstart's datasets. To stay
small it is without its caches, tokenizers and weights (`LEFT_OUT`).
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.verbs.adapter import show
from pipeline.workspace.store import WorkspaceStore
from registry.datasets.history.facts import history, listing
from registry.errors import StoreError
from registry.store.filenames import MANIFEST, STATE
from registry.store.kinds import KINDS, RunMeta, SelectionMeta, VersionMeta
from registry.store.manifest import Meta, manifest_in
from registry.store.objects import manifest_text, read_manifest
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild
from tests.support.plain_rows import load_rows

if TYPE_CHECKING:
    from pathlib import Path

VIEWS = (
    *("datasets", "dataset_versions", "rows", "rejects", "gaps", "eval_results", "eval_samples"),
    *("selections", "selected_rows", "runs", "run_metrics", "adapters", "aliases", "lineage"),
    *("merges", "pushes", "promotions", "erasures", "forgetting", "closed", "looks"),
)
LEFT_OUT = {"tokenizer.json": 3, "adapter_model.safetensors": 2, "model.safetensors": 1}
OBJECTS = {
    "adapter": 2, "alias": 2, "dataset_version": 2, "erasure": 1, "eval": 6, "export": 2,
    "forgetting": 2, "gap": 1, "merge": 1, "metrics": 2, "model": 1, "promotion": 1, "removal": 1,
    "reproduction": 1, "rows": 2, "run": 14, "selection": 2, "signature": 1, "uids": 2,
}  # fmt: skip

# Python before 3.11.4 has no filters; the archive is our own.
_SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


@pytest.fixture
def old(tmp_path: Path, project_root: Path) -> WorkspaceStore:
    with tarfile.open(project_root / "tests/golden/store-79a9993.tar.gz") as packed:
        packed.extractall(tmp_path, **_SAFELY)  # noqa: S202 - see above
    return WorkspaceStore.open(tmp_path)


def test_every_manifest_reads_back_as_it_was_written(old: WorkspaceStore) -> None:
    seen: Counter[str] = Counter()
    for folder in old.store.folders():
        raw = read_manifest(folder)
        found = manifest_in(folder, KINDS.get(raw["kind"], Meta))
        seen[found.kind] += 1
        assert found.as_json() == raw
        assert manifest_text(found.as_json()).encode() == (folder / MANIFEST).read_bytes()
        if found.kind != "merge":  # which says more: how far each proof is off
            assert not found.meta.model_extra
    assert seen == OBJECTS
    assert {*KINDS, "uids"} - {*OBJECTS} == {"places", "push"}


def test_its_catalog_opens_and_a_rebuilt_one_says_the_same(old: WorkspaceStore) -> None:
    before = _views(old)
    assert all(rows for name, rows in before.items() if name not in ("pushes", "rejects", "looks"))
    done = rebuild(old.store, old.catalog)
    assert (done.objects, done.unreadable) == (sum(OBJECTS.values()), ())
    assert _views(old) == before


def _views(old: WorkspaceStore) -> dict[str, list[str] | None]:
    """Return the lines of each view as JSON, in order; None where there are none."""
    lines = (
        "(SELECT list(line ORDER BY line) FROM (SELECT to_json(t)::VARCHAR AS line FROM {} AS t))"
    )
    found = old.catalog.sql("SELECT " + ", ".join(lines.format(name) for name in VIEWS))
    return dict(zip(VIEWS, found.rows[0], strict=True))


def test_what_is_there_is_as_recorded(old: WorkspaceStore) -> None:
    missing = Counter(one.path.rpartition("/")[2] for one in fsck(old.store, old.catalog).findings)
    assert missing == LEFT_OUT


def test_lists_rows_and_lineage_are_asked_as_ever(old: WorkspaceStore) -> None:
    assert {one.name: one.rejects for one in listing(old.catalog)} == {"colours": 0, "sentiment": 0}
    (version,) = history(old.store, old.catalog, "sentiment")
    assert version.rows == len(load_rows(old.store, version.version_id)) == 71  # one is erased
    facts = show(old, "champion")
    assert (facts.base, facts.meta["rank"], facts.aliases) == ("nano", 2, ("champion",))
    assert [one.dataset for one in facts.taught] == ["sentiment"]
    for run in old.catalog.committed(RunMeta):
        assert run.meta.done
        for made in run.meta.outputs:
            assert old.catalog.manifest(made.id).kind == made.kind
    (first, _) = old.catalog.committed(SelectionMeta)
    assert sum(part.rows for part in first.meta.parts) == first.meta.rows


def test_one_that_does_not_fit_is_one_line_with_its_path(old: WorkspaceStore) -> None:
    with old.catalog.reading() as connection:
        (text,) = connection.execute(
            "SELECT manifest FROM catalog.objects WHERE kind = 'dataset_version' LIMIT 1"
        ).fetchone() or ("",)
    said = json.loads(text)
    path = old.root / STATE / "objects" / "dataset_version" / said["id"] / MANIFEST
    said["meta"]["rows"] = "many"
    path.chmod(0o644)
    path.write_text(manifest_text(said))
    rebuild(old.store, old.catalog)
    for asked in (lambda: listing(old.catalog), lambda: old.catalog.committed(VersionMeta)):
        with pytest.raises(StoreError) as caught:
            asked()
        line = str(caught.value)
        assert line.startswith(f"{path}: ")
        assert "meta.rows" in line
        assert '"many"' in line
        assert "\n" not in line
    assert [one.problem for one in fsck(old.store, old.catalog).findings].count("manifest") == 1
