"""Runs as OpenLineage events: complete, valid against the package's model, nothing private."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import registry.lineage.openlineage
from registry.catalog.catalog import Catalog
from registry.lineage.openlineage import openlineage
from registry.store.objects import Parent, Store

TOKEN = "hf_" + "abcdefghijklmnopqrst"
AT = "2026-01-01T00:00:0{}+00:00"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Catalog:
    """A run that was done, reading a version and writing an adapter, and one that failed."""
    catalog = Catalog(tmp_path_factory.mktemp("store"))
    store = Store(catalog.root)
    version = store.put("dataset_version", None, identity={"v": 1}, meta={"name": "days"})
    with store.draft() as draft:
        (draft / "adapter_model.safetensors").write_bytes(b"12345")
        adapter = store.put("adapter", draft, identity={"a": 1}, meta={"rows": 7})
    shared = {
        "stage": "train",
        "started_at": AT.format(1),
        "ended_at": AT.format(2),
        "key": "k",
        "seconds": 1.5,
        "code_version": 1,
        "inputs": {},
        "seed": 3,
        "config": {
            "pool": ["/home/ann/data.csv", "data/days.csv", "yes/no", "https://hub.example/a/b"],
            "hub_token": TOKEN,
            "tokens": 12,
            "prompt": f"key {TOKEN}, in C:\\Users\\ann\\x and (~/secret/y)",
        },
        "environment": {"python": "3.11"},
    }
    runs = [
        store.put(
            "run", None, identity={"n": status}, parents=[Parent(version.id, "dataset")],
            meta=shared | {"status": status, "result": result, "outputs": outputs},
        )
        for status, result, outputs in (
            ("done", {"loss": 0.5}, [{"role": "adapter", "kind": "adapter", "id": adapter.id}]),
            ("failed", {"error": "OSError: no '/home/ann/x.txt' at https://u:pw@h.example"}, []),
        )
    ]  # fmt: skip
    catalog.commit([version, adapter, *runs])
    return catalog


@pytest.fixture(scope="module")
def events(catalog: Catalog) -> list[dict[str, Any]]:
    return list(openlineage(catalog))


def test_a_run_starts_and_ends(events) -> None:
    assert [(one["eventType"], one["eventTime"]) for one in events] == [
        ("START", AT.format(1)), ("COMPLETE", AT.format(2)),
        ("START", AT.format(1)), ("FAIL", AT.format(2)),
    ]  # fmt: skip
    ids = [one["run"]["runId"] for one in events]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert {one["job"]["name"] for one in events} == {"train"}


def test_datasets_have_version_and_schema(events) -> None:
    _, done, _, failed = events
    (read,), (written,) = done["inputs"], done["outputs"]
    assert (read["namespace"], read["name"]) == ("gapmend", "dataset/days")
    assert re.fullmatch("[0-9a-f]{64}", read["facets"]["version"]["datasetVersion"])
    fields = {one["name"]: one["type"] for one in read["facets"]["schema"]["fields"]}
    assert fields["row_uid"] == "BIGINT"
    assert "object_id" not in fields
    assert written["name"].startswith("adapter/")
    assert "schema" not in written["facets"]
    statistics = written["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (7, 5, 1)
    assert (events[0]["outputs"], failed["outputs"]) == ([], [])


def test_facets_say_how_it_ran(events) -> None:
    facet = events[1]["run"]["facets"]["gapmend"]
    assert (facet["seed"], facet["result"], facet["config"]["tokens"]) == (3, {"loss": 0.5}, 12)
    assert "errorMessage" not in events[1]["run"]["facets"]
    error = events[3]["run"]["facets"]["errorMessage"]
    assert error["message"] == "OSError: no '(path)' at https://(token)h.example"


def test_no_path_and_no_token_leaves(events) -> None:
    text = json.dumps(events)
    assert TOKEN not in text
    assert "ann" not in text
    assert "pw@" not in text
    config = events[1]["run"]["facets"]["gapmend"]["config"]
    assert config["pool"] == ["(path)", "data/days.csv", "yes/no", "https://hub.example/a/b"]
    assert config["hub_token"] == "(left out)"
    assert config["prompt"] == "key (token), in (path) and ((path))"


def test_events_are_valid_in_the_packages_model(events) -> None:
    from openlineage.client import event_v2 as model  # loads a web client

    for one in events:
        rebuilt = model.RunEvent(
            eventTime=one["eventTime"],
            eventType=model.RunState[one["eventType"]],
            run=model.Run(**one["run"]),
            job=model.Job(**one["job"]),
            inputs=[model.InputDataset(**data) for data in one["inputs"]],
            outputs=[model.OutputDataset(**data) for data in one["outputs"]],
            producer=one["producer"],
        )
        assert rebuilt.schemaURL == one["schemaURL"]
        datasets = [*one["inputs"], *one["outputs"]]
        groups = [one["run"], one["job"], *datasets]
        facets = [facet for group in groups for facet in group["facets"].values()]
        facets += [facet for data in one["outputs"] for facet in data["outputFacets"].values()]
        assert all(facet["_producer"] and facet["_schemaURL"] for facet in facets)
        assert "\n" not in json.dumps(one)


def test_many_runs_come_in_parts_and_a_namespace_is_kept(
    catalog: Catalog, events, monkeypatch
) -> None:
    monkeypatch.setattr(registry.lineage.openlineage, "_AT_ONCE", 1)
    again = list(openlineage(catalog, namespace="mine"))
    assert json.loads(json.dumps(again).replace('"mine"', '"gapmend"')) == events


def test_an_empty_store_has_no_events(tmp_path: Path) -> None:
    assert list(openlineage(Catalog(tmp_path))) == []
