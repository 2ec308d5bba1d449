from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.lineage.bitmaps import write_bitmaps
from registry.lineage.graph import dot, lineage, mermaid
from registry.lineage.rows import RowSource, row_lineage, sources_of
from registry.store.objects import ObjectRef, Parent, Store


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
        ("adapter", "nano"),
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
    assert down.direction == "down"


def test_dot_draws_every_node_and_edge(catalog: Catalog) -> None:
    data = add(catalog, "dataset_version", name='with "quotes" and \\')
    picked = add(catalog, "selection", Parent(data.id, "dataset"))
    drawn = dot(lineage(catalog, picked.id))
    assert f'"{data.id[:12]}" -> "{picked.id[:12]}" [label="dataset"];' in drawn
    assert 'with \\"quotes\\" and \\\\' in drawn
    assert drawn.startswith("digraph lineage {")
    assert drawn.rstrip().endswith("}")


def test_mermaid_draws_every_node_and_edge(catalog: Catalog) -> None:
    data = add(catalog, "dataset_version", name='a "b" <i>c</i>; [d] ü')
    picked = add(catalog, "selection", Parent(data.id, "dataset|x"))
    name = "a #34;b#34; #60;i#62;c#60;/i#62;#59; #91;d#93; #252;"
    lines = mermaid(lineage(catalog, picked.id)).splitlines()
    assert lines == [
        "flowchart LR",
        f'  n{data.id[:12]}["dataset_version<br>{name}<br>{data.id[:12]}"]',
        f'  n{picked.id[:12]}["selection<br>selection<br>{picked.id[:12]}"]',
        f'  n{data.id[:12]} -->|"dataset#124;x"| n{picked.id[:12]}',
    ]


def test_kinds_have_names_for_people(catalog: Catalog) -> None:
    def named(kind: str, identity: dict, **meta: object) -> str:
        ref = Store(catalog.root).put(kind, None, identity=identity, meta=meta)
        catalog.commit([ref])
        return lineage(catalog, ref.id).nodes[0].label

    assert named("run", {"n": 1}, stage="ingest", status="done", inputs={"name": "days"}) == (
        "ingest days"
    )
    assert named("run", {"n": 2}, stage="train", status="failed", inputs={}) == "train failed"
    assert named("adapter", {"n": 1}, base="nano", method="lora", round=2) == "nano lora round 2"
    assert named("eval", {"n": 1}, subject="sums", split="dev", arm="cot") == "sums dev cot"
    assert named("push", {"n": 1}, repo="me/it", revision="ab" * 20) == "me/it@abababababab"
    assert named("rows", {"n": 1}, rows=7) == "7 rows"
    assert named("uids", {"first": 3, "count": 9}) == "9 uids from 3"
    assert named("selection", {"n": 1}, rows=7, base="nano") == "7 rows for nano"
    assert named("promotion", {"n": 1}, promoted=False) == "refused"
    assert named("merge", {"method": "ties"}) == "ties"
    assert named("forgetting", {"n": 1}, split="test", scale=0.85) == "test scale 0.85"
    assert named("other", {"n": 1}) == ""


def test_aliases_and_commits_on_the_hub_are_found(catalog: Catalog) -> None:
    tuned = add(catalog, "adapter", base="nano")
    store = Store(catalog.root)
    catalog.move_alias(store, "champion", tuned.id)
    assert lineage(catalog, "champion").root == tuned.id
    commits = ["0123456" + "d" * 33, "0123456" + "e" * 33]
    pushes = [
        store.put(
            "push", None, identity={"commit": commit}, parents=[Parent(tuned.id, "adapter")],
            meta={"revision": commit, "repo": "me/it"},
        )
        for commit in commits
    ]  # fmt: skip
    catalog.commit(pushes)
    for commit, push in zip(commits, pushes, strict=True):
        assert lineage(catalog, commit).root == push.id
        assert lineage(catalog, commit[:8]).root == push.id
        assert [node.kind for node in lineage(catalog, commit).nodes] == ["adapter", "push"]
    assert {node.kind for node in lineage(catalog, "champion", down=True).nodes} == {
        *("adapter", "alias", "push")
    }
    with pytest.raises(UserError, match="nothing in the store"):
        lineage(catalog, "fffffff")


def test_large_lineages_are_read_in_another_way(catalog: Catalog, monkeypatch) -> None:
    data = add(catalog, "dataset_version", name="banking")
    for number in range(4):
        add(catalog, "selection", Parent(data.id, "dataset"), name=f"s{number}")
    few = lineage(catalog, data.id, down=True)
    monkeypatch.setattr("registry.lineage.graph._FEW", 3)
    assert lineage(catalog, data.id, down=True) == few
    assert len(few.nodes) == 5


class Taught:
    """Rows 0 to 5 in two files; selections of 0, 1 and 4, 5; adapters: b starts from a, c alone."""

    def __init__(self, catalog: Catalog) -> None:
        store = Store(catalog.root)
        self.catalog = catalog
        said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        content = [
            {"row_uid": uid, "row_hash": f"h{uid}", "kind": "sft", "messages": said}
            for uid in range(6)
        ]
        self.rows = self.put(store, "rows", "rows", {"rows.parquet": content})
        refs = [
            {
                "row_uid": uid, "row_hash": f"h{uid}", "split": "train", "source": "banking",
                "source_file": f"data/{uid // 3}.csv", "source_line": uid % 3 + 1,
            }
            for uid in range(6)
        ]  # fmt: skip
        parent = Parent(self.rows.id, "rows")
        self.version = self.put(
            store, "dataset_version", "v", {"refs.parquet": refs}, parent, name="banking"
        )
        picked = (("s1", [0, 1]), ("s2", [4, 5]))
        self.selections = [self.selection(store, name, uids) for name, uids in picked]
        runs = [
            self.put(store, "run", f"r{n}", {}, Parent(one.id, "selection"), stage="train")
            for n, one in enumerate(self.selections)
        ]
        self.a = self.put(store, "adapter", "a", {}, Parent(runs[0].id, "run"), base="nano")
        start = Parent(self.a.id, "start")
        self.b = self.put(store, "adapter", "b", {}, Parent(runs[1].id, "run"), start)
        self.c = self.put(store, "adapter", "c", {}, Parent(runs[1].id, "run"))
        # A score of a decided what c was trained on, but a's rows did not teach c.
        score = self.put(store, "forgetting", "f", {}, Parent(self.a.id, "adapter"))
        self.d = self.put(
            store, "adapter", "d", {}, Parent(self.selections[1].id, "selection"),
            Parent(score.id, "forgetting"),
        )  # fmt: skip
        self.model = self.put(store, "model", "m", {}, Parent(self.b.id, "adapter"))
        self.push = self.put(store, "push", "p", {}, Parent(self.model.id, "model"))
        catalog.move_alias(store, "champion", self.c.id)

    def put(
        self, store: Store, kind: str, key: str, tables: dict[str, list[dict]], *parents: Parent,
        **meta: object,
    ) -> ObjectRef:  # fmt: skip
        with store.draft() as draft:
            for file, lines in tables.items():
                parquet.write_table(pa.Table.from_pylist(lines), draft / file)
                if kind == "selection":
                    write_bitmaps([line["row_uid"] for line in lines], draft / "bitmaps.parquet")
            ref = store.put(kind, draft, identity={"name": key}, parents=parents, meta=meta)
        self.catalog.commit([ref])
        return ref

    def selection(self, store: Store, name: str, uids: list[int]) -> ObjectRef:
        why = {"capability": "intent", "reason": "gap"}
        picks = [
            {"row_uid": uid, "row_hash": f"h{uid}", "rank": n} | why for n, uid in enumerate(uids)
        ]
        parent = Parent(self.version.id, "dataset")
        return self.put(store, "selection", name, {"rows.parquet": picks}, parent)


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Taught:
    return Taught(Catalog(tmp_path_factory.mktemp("taught")))


@pytest.mark.parametrize(
    ("thing", "counts"),
    [
        ("a", (2, 0)), ("b", (2, 2)), ("c", (0, 2)), ("d", (0, 2)), ("model", (2, 2)),
        ("push", (2, 2)), ("champion", (0, 2)), ("version", (0, 0)), ("selection", (2, 0)),
    ],
)  # fmt: skip
def test_sources_with_how_many_rows_of_each_taught(taught: Taught, thing: str, counts) -> None:
    things = {"champion": "champion", "selection": taught.selections[0].id}
    named = things.get(thing) or getattr(taught, thing).id
    assert sources_of(taught.catalog, named) == tuple(
        RowSource("banking", taught.version.id, "banking", f"data/{n}.csv", 3, count)
        for n, count in enumerate(counts)
    )


def test_what_has_no_rows_has_no_sources(taught: Taught) -> None:
    assert sources_of(taught.catalog, taught.rows.id) == ()


def test_a_row_up_to_every_push(taught: Taught) -> None:
    found = row_lineage(taught.catalog, 0)
    assert [(one.file, one.line, one.dataset) for one in found.places] == [
        ("data/0.csv", 1, "banking")
    ]
    assert [(one.selection_id, one.reason) for one in found.picks] == [
        (taught.selections[0].id, "gap")
    ]
    refs = (taught.a, taught.b, taught.model, taught.push)
    assert [node.id for node in found.made] == [ref.id for ref in refs]
    assert found.made[0].label == "nano"
    kinds = [node.kind for node in row_lineage(taught.catalog, 4).made]
    assert kinds == ["adapter", "adapter", "adapter", "model", "push", "alias"]
    unused = row_lineage(taught.catalog, 2)
    assert (unused.picks, unused.made) == ((), ())
    with pytest.raises(UserError, match="no dataset version has a row 99"):
        row_lineage(taught.catalog, 99)


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
