from __future__ import annotations

import time
from pathlib import Path

import pytest

from registry.catalog import Catalog
from registry.errors import UserError
from registry.lineage import dot, lineage
from registry.store import ObjectRef, Parent, Store


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path)


def add(catalog: Catalog, kind: str, *parents: Parent, **meta: object) -> ObjectRef:
    identity = {"name": meta.get("name", kind)}
    ref = Store(catalog.root).put(kind, None, identity=identity, parents=parents, meta=meta)
    catalog.commit([ref])
    return ref


def test_up_and_down(catalog: Catalog) -> None:
    data = add(catalog, "dataset_version", name="banking")
    picked = add(catalog, "selection", Parent(data.id, "dataset"))
    run = add(
        catalog, "run", Parent(picked.id, "selection"), Parent(data.id, "pool"), stage="train"
    )
    tuned = add(catalog, "adapter", Parent(run.id, "run"), base="nano")
    add(catalog, "gap", Parent(data.id, "dataset"))

    up = lineage(catalog, tuned.id[:16])
    assert up.root == tuned.id
    assert [(node.kind, node.label) for node in up.nodes] == [
        ("dataset_version", "banking"),
        ("selection", "selection"),
        ("run", "train"),
        ("adapter", "adapter"),
    ]
    assert {(edge.child, edge.parent, edge.role) for edge in up.edges} == {
        (tuned.id, run.id, "run"),
        (run.id, picked.id, "selection"),
        (run.id, data.id, "pool"),
        (picked.id, data.id, "dataset"),
    }
    down = lineage(catalog, data.id, down=True)
    assert [node.kind for node in down.nodes] == [
        "dataset_version",
        "selection",
        "run",
        "adapter",
        "gap",
    ]
    assert lineage(catalog, data.id).edges == ()
    assert down.as_json()["direction"] == "down"


def test_dot_draws_every_node_and_edge(catalog: Catalog) -> None:
    data = add(catalog, "dataset_version", name='with "quotes" and \\')
    picked = add(catalog, "selection", Parent(data.id, "dataset"))
    drawn = dot(lineage(catalog, picked.id))
    assert f'"{data.id[:12]}" -> "{picked.id[:12]}" [label="dataset"];' in drawn
    assert 'with \\"quotes\\" and \\\\' in drawn
    assert drawn.startswith("digraph lineage {")
    assert drawn.rstrip().endswith("}")


def test_an_unknown_id_is_the_users_mistake(catalog: Catalog) -> None:
    with pytest.raises(UserError, match="nothing in the store has the id 'ffff'"):
        lineage(catalog, "ffff")


def test_many_ways_to_one_ancestor_stay_small(catalog: Catalog) -> None:
    # 2 ** 25 paths lead from the last layer to the first.
    store = Store(catalog.root)
    refs: list[ObjectRef] = []
    layer: list[ObjectRef] = []
    for depth in range(26):
        parents = [Parent(ref.id, "part") for ref in layer]
        layer = [
            store.put("made", None, identity={"d": depth, "s": side}, parents=parents)
            for side in range(2)
        ]
        refs += layer
    catalog.commit(refs)
    began = time.perf_counter()
    found = lineage(catalog, layer[0].id)
    assert len(found.nodes) == 51
    assert len(found.edges) == 100 - 2
    assert time.perf_counter() - began < 20
