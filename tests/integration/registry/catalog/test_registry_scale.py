"""The registry with many adapters: right at 400, and at 100,000 within a third of a second."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.lists import adapters
from registry.lineage.graph import lineage
from registry.store.objects import ManifestJson, Store

WITHIN_S = 0.3
START = (
    "import sys; from pathlib import Path; from registry.catalog.catalog import Catalog; "
    "root = Path(sys.argv[1]); catalog = Catalog(root); "
)
OPERATIONS = {
    "ls": "from registry.catalog.lists import adapters; adapters(catalog)",
    "ls of a base": "from registry.catalog.lists import adapters; adapters(catalog, base='base-3')",
    "alias": "from registry.store.objects import Store; now = catalog.alias('best'); "
    "catalog.move_alias(Store(root), 'best', sys.argv[2], expect=now, reason=str(now))",
    "up": "from registry.lineage.graph import lineage; lineage(catalog, sys.argv[2])",
    "down": "from registry.lineage.graph import lineage; lineage(catalog, sys.argv[3], down=True)",
}


def registered(project_root: Path) -> ModuleType:
    """The benchmark's generator, which is no package."""
    file = project_root / "benchmarks" / "_registered.py"
    spec = importlib.util.spec_from_file_location("registered", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reached(manifests: list[ManifestJson], root: str, *, down: bool) -> set[str]:
    """What a plain walk over the manifests finds."""
    steps: dict[str, list[str]] = defaultdict(list)
    for manifest in manifests:
        for parent in manifest["parents"]:
            at, to = manifest["id"], parent["id"]
            steps[to if down else at].append(at if down else to)
    seen: set[str] = set()
    left = [root]
    while left:
        at = left.pop()
        if at not in seen:
            seen.add(at)
            left += steps[at]
    return seen


def test_what_the_narrow_tables_answer_is_what_manifests_say(
    tmp_path: Path, project_root: Path
) -> None:
    made = registered(project_root)
    manifests = list(made.Registered().manifests(20, 20))
    made.make(tmp_path, 20, 20)
    catalog = Catalog(tmp_path)
    of_kind: dict[str, list[ManifestJson]] = defaultdict(list)
    for manifest in manifests:
        of_kind[manifest["kind"]].append(manifest)

    newest = [one["id"] for one in reversed(of_kind["adapter"])]
    page = adapters(catalog, limit=30)
    assert (page.total, [row["adapter_id"] for row in page.rows]) == (400, newest[:30])
    wanted = [one for one in of_kind["adapter"] if one["meta"]["base"] == "base-3"]
    assert adapters(catalog, base="base-3").total == len(wanted)

    for one in (
        newest[0],
        newest[199],
        of_kind["run"][5]["id"],
        of_kind["dataset_version"][1]["id"],
    ):
        for down in (False, True):
            found = lineage(catalog, one, down=down)
            ids = reached(manifests, one, down=down)
            assert {node.id for node in found.nodes} == ids
            inside = sum(
                manifest["id"] in ids and parent["id"] in ids
                for manifest in manifests
                for parent in manifest["parents"]
                if (parent["id"] if down else manifest["id"]) in ids
            )
            assert len(found.edges) == inside
    everything = lineage(catalog, of_kind["base"][0]["id"], down=True)
    assert len(everything.nodes) == 801

    catalog.move_alias(Store(tmp_path), "best", newest[7])
    assert adapters(catalog, alias="best").rows[0]["adapter_id"] == newest[7]
    assert catalog.query("SELECT count(*) FROM adapters").rows == [(400,)]


@pytest.mark.soak
def test_a_hundred_thousand_adapters_and_runs_answer_within_a_third_of_a_second(
    tmp_path: Path, project_root: Path
) -> None:
    registered(project_root).make(tmp_path, 1000, 100)
    catalog = Catalog(tmp_path)
    page = adapters(catalog)
    assert page.total == 100_000
    newest = page.rows[0]["adapter_id"]
    up = lineage(catalog, newest)
    version = next(node.id for node in up.nodes if node.kind == "dataset_version")
    assert (len(up.nodes), len(lineage(catalog, version, down=True).nodes)) == (213, 2101)
    took: dict[str, float] = {}
    for name, code in OPERATIONS.items():
        targets = [row["adapter_id"] for row in page.rows]
        times = []
        for target in targets[:5]:
            began = time.perf_counter()
            command = [sys.executable, "-c", START + code, str(tmp_path), target, version]
            subprocess.run(command, check=True)
            times.append(time.perf_counter() - began)
        took[name] = round(statistics.median(times), 3)
    print(took)
    assert {name: seconds for name, seconds in took.items() if seconds > WITHIN_S} == {}
