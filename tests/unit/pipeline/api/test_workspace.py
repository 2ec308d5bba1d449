"""The Python API where nothing has to be measured: names, the spec, questions, mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.main import get_command

import pipeline
from pipeline import Workspace
from pipeline.cli.main import app
from registry.errors import SpecError, StoreRequestError, UserError

if TYPE_CHECKING:
    from pathlib import Path

# They act without a workspace, or hand over to another program.
NO_METHOD = {"schema", "lm-eval", "ui"}
OTHER_NAMES = {
    "adapter ls": "adapters",
    "adapter rm": "adapter.remove",
    "adapter import": "pull",
    "adapter export": "export",
    "dataset ls": "datasets",
}


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / "my-model")


def verbs() -> list[str]:
    found: list[str] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        within = getattr(command, "commands", None)
        found += [name] if within is None else [f"{name} {one}" for one in within]
    return found


@pytest.mark.parametrize("verb", [one for one in verbs() if one not in NO_METHOD])
def test_every_verb_is_a_method(ws: Workspace, verb: str) -> None:
    found: object = ws
    for name in OTHER_NAMES.get(verb, verb.replace(" ", ".")).split("."):
        found = getattr(found, name)
    assert callable(found)
    assert found.__doc__


def test_the_package_gives_one_name_and_no_other() -> None:
    assert pipeline.__all__ == ["Workspace"]
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'Workspaces'"):
        _ = pipeline.Workspaces


def test_it_says_folder_and_champion_in_one_line(ws: Workspace, tmp_path: Path) -> None:
    assert repr(ws) == f"Workspace('{tmp_path / 'my-model'}', no champion yet)"
    assert not (ws.folder / ".gapmend").exists()  # nothing is made by looking
    (ws.folder / ".gapmend").mkdir()
    (ws.folder / ".gapmend" / "catalog.duckdb").write_bytes(b"no catalog" * 1000)
    assert repr(ws) == f"Workspace('{tmp_path / 'my-model'}', its catalog can't be read)"


def test_a_folder_without_a_spec_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no gapmend\.yaml here"):
        Workspace.open(str(tmp_path))


def test_the_spec_is_read_again_at_each_call(ws: Workspace) -> None:
    assert ws.spec.capabilities["routing"].goal == 0.9
    spec = ws.folder / "gapmend.yaml"
    spec.write_text(spec.read_text("utf-8").replace("goal: 0.90", "goal: 0.80"), "utf-8")
    assert ws.spec.capabilities["routing"].goal == 0.8
    spec.write_text("bases: {}\n", "utf-8")
    with pytest.raises(SpecError, match=r"gapmend\.yaml"):
        ws.plan()
    assert ws.sql("select * from adapters").is_empty()  # what needs no spec still answers


def test_an_answer_in_sql_is_a_frame_with_types_even_when_it_is_empty(ws: Workspace) -> None:
    import polars as pl

    empty = ws.sql("select name, rows from dataset_versions")
    assert empty.is_empty()
    assert [str(kind) for kind in empty.dtypes] == ["String", "Int64"]
    frame = ws.sql(
        "select sum(x) as whole, sum(x)::hugeint * 1e20::hugeint as wide, sum(x * 0.5) as half, "
        "? as given, null as x from range(4) as t(x)",
        ["it's"],
    )
    assert frame.row(0) == (6, 6 * 10**20, 3, "it's", None)
    assert frame.schema["whole"] == pl.Int64
    assert frame.schema["wide"] == pl.Decimal(38, 0)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nothing from adapters", "sql: Binder Error"),
        ("drop table objects", "only reads, and this is DROP"),
        ("select * from '/etc/passwd'", "sql: .*Error"),
    ],
)
def test_a_question_that_is_none_is_one_line(ws: Workspace, query: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        ws.sql(query)
    assert "\n" not in str(caught.value)


def test_names_that_nothing_has(ws: Workspace) -> None:
    with pytest.raises(StoreRequestError, match="no adapter is champion yet"):
        ws.adapter.show()
    with pytest.raises(UserError, match="tickets"):
        ws.dataset.log("tickets")
    assert (ws.adapters().rows, ws.datasets()) == ((), ())
