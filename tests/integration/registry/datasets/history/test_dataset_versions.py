"""Versions that ingest makes, as people ask about them: log, show, diff, SQL, polars."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli.verb import json_line
from pipeline.ingest import ingest
from pipeline.report.dataset import brief, diff_tables, facts_tables, list_table, log_table
from pipeline.verbs import dataset
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.choices import Group
from registry.datasets.formats.content import content_hash
from registry.datasets.history.diff import GROUPS, row_changes
from registry.errors import UserError
from registry.store.objects import Parent
from tests.support.made_versions import Made, Versions, sft

UI = Ui(as_json=True)
SPEC = """\
bases: {nano: {model: nano}}
datasets: {rows: {path: rows.jsonl, format: messages, license: MIT, split: {dev: 0, test: 0},
                  allow_rejects: 0.5}}
capabilities: {c: {data: rows, answer: exact, goal: 0.8}}
train: {base: nano}
"""


def line(question: str, answer: str) -> str:
    turns = [("user", question), ("assistant", answer)]
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})


@pytest.fixture
def ws(tmp_path: Path) -> OpenWorkspace:
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    return OpenWorkspace.open(tmp_path)


def version(ws: OpenWorkspace, *lines: str) -> str:
    """Ingest these lines; returns the version's id."""
    (ws.root / "rows.jsonl").write_text("".join(f"{one}\n" for one in lines))
    return ingest(ws, UI).datasets[0].version_id


def kept(ws: OpenWorkspace) -> WorkspaceStore:
    return WorkspaceStore.open(ws.root)


ONE = line("how far is the moon from here", "far")
TWO = line("who wrote the song of the sea", "nobody knows")
TWO_MENDED = line("who wrote the song of the sea", "Ann did")
THREE = line("what do seven apples cost in May", "seven coins")


def test_the_history_of_a_dataset(ws: OpenWorkspace) -> None:
    first = version(ws, ONE, TWO, "{")
    second = version(ws, ONE, TWO_MENDED, THREE)
    dataset.tag(kept(ws), first[:10], "v1", reason="as delivered")
    found = dataset.log(kept(ws), "rows")
    assert [(o.version_id, o.rows, o.added, o.removed, o.rejects, o.tags) for o in found] == [
        (first, 2, 2, 0, 1, ("v1",)),
        (second, 3, 2, 1, 0, ()),
    ]
    (listed,) = dataset.ls(kept(ws))
    assert (listed.version_id, listed.versions, listed.splits) == (second, 2, {"train": 3})
    assert (listed.license, listed.rejects) == ("MIT", 0)
    assert list_table([listed]).row_count == log_table("rows", found).row_count - 1 == 1


def test_all_that_is_known_of_a_version(ws: OpenWorkspace) -> None:
    made = version(ws, ONE, TWO, ONE, "{", "[]")
    found = dataset.show(kept(ws), "rows", rows=1)
    assert (found.version_id, found.splits, found.kinds) == (made, {"train": 2}, {"sft": 2})
    assert found.sources == {"rows.jsonl": 3}  # one of them stands there twice
    assert {reason: count for reason, (count, _) in found.rejects.items()} == {
        "malformed JSON": 1,
        "not a JSON object": 1,
    }
    assert found.rejects["malformed JSON"][1] == "rows.jsonl:4"
    assert [row["source_line"] for row in found.first] == [1]
    assert found.adapters == ()
    assert json.loads(json_line(found))["files"]["rows"]
    assert facts_tables(found)


def test_the_adapters_that_were_trained_on_a_version(ws: OpenWorkspace) -> None:
    """One saw a row of it; one was started from that; one was given the version and saw none."""
    made = version(ws, ONE, TWO)
    uids = [row[0] for row in ws.catalog.query("SELECT row_uid FROM rows ORDER BY row_uid").rows]
    store = ws.store

    def selection(uid: int) -> Any:
        with store.draft() as draft:
            pl.DataFrame({"row_uid": [uid], "row_hash": ["x"], "capability": ["c"]}).write_parquet(
                draft / "rows.parquet"
            )
            parents = [Parent(made, "dataset")]
            return store.put("selection", draft, identity={"uid": uid}, parents=parents)

    chosen, other = selection(uids[0]), selection(12345)
    run = store.put(
        "run", None, identity={"key": "k"}, parents=[Parent(chosen.id, "selection")],
        meta={"stage": "train"},
    )  # fmt: skip
    saw = store.put("adapter", None, identity={"n": 1}, parents=[Parent(run.id, "run")])
    heir = store.put("adapter", None, identity={"n": 2}, parents=[Parent(saw.id, "start")])
    none = store.put("adapter", None, identity={"n": 3}, parents=[Parent(other.id, "selection")])
    ws.catalog.commit([chosen, other, run, saw, heir, none])
    found = dataset.show(kept(ws), "rows", rows=0)
    assert {(one.adapter_id, one.rows) for one in found.adapters} == {(saw.id, 1), (heir.id, 1)}


def test_a_version_compared_with_the_one_before(ws: OpenWorkspace) -> None:
    first = version(ws, ONE, TWO)
    second = version(ws, THREE, ONE, TWO_MENDED)
    found = dataset.diff(kept(ws), first, second, show="changed")
    assert found.rows.counts == dict.fromkeys(GROUPS, 0) | {"added": 1, "changed": 1}
    data = found.as_json()
    assert (data["same"], data["a"]["version"], data["b"]["license"]) == (1, first, "MIT")
    (change,) = data["shown"]
    assert change["before"]["messages"][-1]["content"] == "nobody knows"
    assert change["after"]["messages"][-1]["content"] == "Ann did"
    assert len(diff_tables(found)) == 3
    same = dataset.diff(kept(ws), first, first[:9])
    assert "are the same version" in str(diff_tables(same)[0])


def test_a_tag_is_expected_somewhere(ws: OpenWorkspace) -> None:
    first = version(ws, ONE)
    second = version(ws, ONE, TWO)
    moved = dataset.tag(kept(ws), first, "best", expect="none")
    assert (moved.version, moved.previous) == (first, None)
    moved = dataset.tag(kept(ws), "rows", "best", expect="best", reason="more of it")
    assert (moved.version, moved.previous) == (second, first)
    with pytest.raises(UserError, match="is called 'worst'"):
        dataset.tag(kept(ws), "rows", "best", expect="worst")


def test_every_version_is_there_for_sql(ws: OpenWorkspace) -> None:
    first, second = version(ws, ONE, TWO), version(ws, ONE, TWO_MENDED)
    ask = "SELECT messages[-1].content FROM rows WHERE version_id = ? ORDER BY source_line"
    answers = {
        one: [row[0] for row in ws.catalog.query(ask, [one]).rows] for one in (first, second)
    }
    assert answers == {first: ["far", "nobody knows"], second: ["far", "Ann did"]}


@pytest.mark.parametrize("language", ["python", "sql"])
def test_what_the_docs_say_works(
    ws: OpenWorkspace, project_root: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    text = (project_root / "docs" / "guide" / "datasets.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    version(ws, ONE, TWO)
    second = version(ws, ONE, TWO_MENDED, THREE)
    dataset.tag(kept(ws), second, "v2")
    monkeypatch.chdir(ws.root)
    for block in blocks:
        if language == "sql":
            assert ws.catalog.sql(block).rows, block
            continue
        names: dict[str, Any] = {"VERSION": second}
        exec(block, names)  # noqa: S102 - the snippet of our own page
        assert names["rows"].height == 3
        assert set(names["rows"]["messages"].list.last().struct.field("content")) == {
            "far",
            "Ann did",
            "seven coins",
        }


def test_rows_of_people_can_not_steer_the_terminal() -> None:
    row = {"messages": [{"role": "user", "content": "\x1b[2J\n\u202eabc", "tool_calls": None}],
           "chosen": None, "rejected": None, "label": None}  # fmt: skip
    text = brief(row).plain
    assert text.isprintable()
    assert "\\x1b[2J\\n\\u202eabc" in text


ROWS = st.lists(
    st.builds(
        Made,
        st.builds(sft, st.sampled_from("abcde"), st.sampled_from("123")),
        st.sampled_from(["train", "dev"]),
        st.sampled_from(["x", "y"]),
        st.integers(1, 4),
        st.sampled_from(["{}", '{"k":1}']),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: content_hash(row.content),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(a=ROWS, b=ROWS, group=st.sampled_from(GROUPS))
def test_every_row_is_in_one_group(
    tmp_path_factory: pytest.TempPathFactory, a: list[Made], b: list[Made], group: Group
) -> None:
    made = Versions(tmp_path_factory.mktemp("diff"))
    ids = [made.put(rows, commit=False) for rows in (a, b)]
    found = row_changes(made.store, *ids, show=group, limit=99)
    counts = found.counts
    assert len(found.shown) == counts[group]
    both = found.same + counts["moved"] + counts["annotated"] + counts["changed"]
    assert both + counts["removed"] == len(a)
    assert both + counts["added"] == len(b)
    contents = [{content_hash(row.content): row for row in rows} for rows in (a, b)]
    shared = contents[0].keys() & contents[1].keys()
    assert counts["moved"] == sum(contents[0][h].split != contents[1][h].split for h in shared)
    assert counts["changed"] == expected_pairs(contents[0], contents[1])
    for change in found.shown if group == "changed" else ():
        assert change.before is not None
        assert change.after is not None
        assert change.before["row_hash"] != change.after["row_hash"]
        asked = [side["messages"][0]["content"] for side in (change.before, change.after)]
        where = [
            (side["source_file"], side["source_line"]) for side in (change.before, change.after)
        ]
        assert asked[0] == asked[1] or where[0] == where[1]


def expected_pairs(a: dict[str, Made], b: dict[str, Made]) -> int:
    """The rule, in plain Python: by question in order, then by place in order."""
    left, right = ([row for h, row in one.items() if h not in other] for one, other in
                   ((a, b), (b, a)))  # fmt: skip
    pairs = 0
    for key in (lambda row: row.content.messages[0].content, lambda row: (row.file, row.line)):
        for before in list(left):
            match = next((after for after in right if key(after) == key(before)), None)
            if match is not None:
                left.remove(before)
                right.remove(match)
                pairs += 1
    return pairs
