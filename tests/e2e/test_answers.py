"""What the command line says: for programs, for a wrong call, and when something is damaged."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from tests.support.called import forked

STARTER = Path(__file__).resolve().parents[2] / "pipeline" / "workspace" / "starter"


@pytest.fixture(scope="module")
def ingested_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("answers") / "workspace"
    shutil.copytree(STARTER, workspace)
    assert forked("ingest", "-C", workspace).code == 0
    return workspace


@pytest.fixture
def ingested(ingested_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ingested_once, tmp_path / "workspace"))


def test_csv_has_a_line_a_row_however_long(ingested: Path) -> None:
    asked = "select repeat('x', 300) as long, 'a,b' as both"
    answer = forked("sql", asked, "-f", "csv", "-C", ingested)
    assert list(csv.reader(io.StringIO(answer.out))) == [["long", "both"], ["x" * 300, "a,b"]]


def test_json_has_every_column_and_no_nan(ingested: Path) -> None:
    asked = "select 1 as a, 2 as a, 'nan'::double as b, [1.0, 'inf'::double] as c"
    assert forked("sql", asked, "--json", "-C", ingested).json() == [
        {"a": 1, "a_1": 2, "b": None, "c": [1.0, None]}
    ]


@pytest.mark.parametrize("call", [("sql",), ("forget", "--show", "x"), ("check", "--nope")])
def test_a_wrong_call_is_json_for_programs(call: tuple[str, ...]) -> None:
    answer = forked(*call, "--json")
    assert answer.code == 2
    assert answer.json()["kind"] == "usage"
    assert answer.err.count("\n") == 1


def test_a_damaged_file_is_named_and_fsck_advised(ingested: Path) -> None:
    (stored,) = (ingested / ".gapmend" / "objects" / "rows").glob("*/rows.parquet")
    data = bytearray(stored.read_bytes())
    data[-3] ^= 0xFF
    stored.chmod(0o644)
    stored.write_bytes(data)
    assert forked("status", "-C", ingested).code == 0  # it reads no rows
    for call in (("sql", "from rows limit 1"), ("gap",)):
        answer = forked(*call, "-C", ingested)
        assert answer.code in {2, 3}
        assert "rows.parquet" in answer.err
        assert "Traceback" not in answer.err
        assert "a fault of ours" not in answer.err
    assert forked("fsck", "-C", ingested).code == 1


def test_an_empty_name_is_no_adapter(ingested: Path) -> None:
    for verb in ("promote", "merge", "forget"):
        answer = forked(verb, "--adapter", "", "-C", ingested)
        assert answer.code == 2, (verb, answer.err)


def test_without_a_champion_it_says_how_to_get_one(ingested: Path) -> None:
    for call in (("merge",), ("forget", "--adapter", "champion")):
        answer = forked(*call, "-C", ingested)
        assert answer.code == 2
        assert "no adapter is champion yet" in answer.err
        assert "gapmend promote" in answer.err
