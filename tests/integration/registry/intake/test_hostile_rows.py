"""A dataset from elsewhere that is meant to do harm: refused in one line, nothing kept of it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ingest import ingest
from pipeline.verbs.pull import take
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.formats.content import Content, Message, content_hash
from registry.errors import UserError
from registry.intake import rows as rows_incoming
from registry.intake.rows import read_rows
from registry.publish.rows import parcel_schema
from registry.store.hashing import digest, file_digest
from registry.upkeep.fsck import fsck
from tests.loopback_hub import serving

if TYPE_CHECKING:
    from collections.abc import Callable


STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"
UI = Ui(as_json=True)
MIB = 1 << 20


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a push of a dataset leaves it on the Hub."""
    from pipeline.verbs.push import _parcel

    root = tmp_path_factory.mktemp("sender")
    ws = OpenWorkspace.open(Path(shutil.copytree(STARTER, root / "ws")))
    ingest(ws, UI)
    (manifest,) = ws.catalog.committed("dataset_version")
    folder = root / "it"
    with ws.store.draft() as scratch:
        for file in _parcel(ws, manifest, manifest.id, "me/it", scratch).files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            (folder / file.path).write_bytes(data)
    return folder


@pytest.fixture
def folder(sent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sent, tmp_path / "it"))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    """One for all: whatever is refused leaves nothing in it."""
    return OpenWorkspace.open(Path(shutil.copytree(STARTER, tmp_path_factory.mktemp("to") / "ws")))


def refused(receiver: OpenWorkspace, folder: Path, *, kept: frozenset[str] = frozenset()) -> str:
    """Take a folder in, which is refused; returns the line. `kept` are kinds that may be left."""
    with pytest.raises(UserError) as raised:
        take(receiver, UI, str(folder))
    line = str(raised.value)
    assert line.isprintable(), line
    assert not list(receiver.store.drafts.iterdir())
    assert not receiver.catalog.committed("dataset_version")
    assert {path.parent.name for path in receiver.store.folders()} <= kept | {"run"}
    assert fsck(receiver.store, receiver.catalog).clean
    return line


def sealed(folder: Path) -> None:
    """Let the record name the files as they are now."""
    path = folder / "gapmend.json"
    record = json.loads(path.read_text("utf-8"))
    names = [one.relative_to(folder).as_posix() for one in (folder / "data").rglob("*.parquet")]
    record["files"] = {name: file_digest(folder / name) for name in names}
    path.write_text(json.dumps(record), "utf-8")


def rewritten(folder: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:
    path = folder / "data" / "dev.parquet"
    pq.write_table(change(pq.read_table(path)), path, **options)
    sealed(folder)
    return folder


def with_line(**values: Any) -> Callable[[pa.Table], pa.Table]:
    """Change the first line; its hash fits what it says then."""

    def change(table: pa.Table) -> pa.Table:
        first, *rest = table.to_pylist()
        line = first | values
        turns = {key: line[key] or [] for key in ("messages", "chosen", "rejected")}
        if "row_hash" not in values and all(None not in given for given in turns.values()):
            said, chosen, rejected = (
                None if line[key] is None else tuple(Message(**one) for one in given)
                for key, given in turns.items()
            )
            content = Content(
                line["kind"], said or (), chosen, rejected, line["label"], line["tools"]
            )
            line["row_hash"] = content_hash(content)
        return pa.Table.from_pylist([line, *rest], table.schema)

    return change


def turn(role: str | None, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "tool_calls": None, "name": None, **more}


# ---------------------------------------------------------------------------------- its columns


def other_type(table: pa.Table) -> pa.Table:
    place = table.column_names.index("position")
    return table.set_column(place, "position", table["position"].cast(pa.string()))


def twice(table: pa.Table) -> pa.Table:
    return table.append_column("meta", table["meta"])


def dictionary(table: pa.Table) -> pa.Table:
    place = table.column_names.index("kind")
    return table.set_column(place, "kind", table["kind"].dictionary_encode())


def last_renamed(table: pa.Table) -> pa.Table:
    return table.rename_columns([*table.column_names[:-1], "\x1b[2J\n"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["meta"]), "column meta is missing or no string"),
        (lambda _: pa.table({"x": [1]}), "column row_hash is missing"),
        (other_type, "column position is missing or no int64"),
        (twice, "column meta is missing or no string"),
        (dictionary, "column kind is missing or no string"),
        (last_renamed, "column source_line is missing"),
        (lambda table: table.slice(0, 0), "its rows are not numbered one after another"),
    ],
)  # fmt: skip
def test_other_columns_are_refused(
    receiver: OpenWorkspace, folder: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    assert said in refused(receiver, rewritten(folder, change))


def test_one_more_column_is_left_where_it_is(folder: Path) -> None:
    """Nothing but the columns of a row is read: a bomb in another does not go off."""

    def more(table: pa.Table) -> pa.Table:
        column = pa.DictionaryArray.from_arrays(
            pa.array([0] * len(table), pa.int32()), ["x" * 64 * MIB]
        )
        return table.append_column("more", column)

    rewritten(folder, more, store_schema=False)
    assert read_rows(folder, "it")


@pytest.mark.parametrize("cut", [0, 3, 100, 0.5, 0.999])
def test_a_file_that_is_cut_is_refused(receiver: OpenWorkspace, folder: Path, cut: float) -> None:
    path = folder / "data" / "dev.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut if cut > 1 or not cut else cut * len(whole))])
    sealed(folder)
    assert "not a whole Parquet file" in refused(receiver, folder)


def test_a_file_with_wrong_bytes_is_refused_or_says_the_same(folder: Path) -> None:
    expected = [line["row_hash"] for line, _ in read_rows(folder, "it")]
    path = folder / "data" / "train.parquet"
    whole, draw, lines = path.read_bytes(), random.Random(3), []
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            assert [line["row_hash"] for line, _ in read_rows(folder, "it")] == expected
        except UserError as error:
            lines.append(str(error))
    assert len(lines) > 6
    assert all(line.isprintable() for line in lines)


# ------------------------------------------------------------------------------------ its rows


def again(table: pa.Table) -> pa.Table:
    """The rows once more, at places of their own."""
    lines = table.to_pylist()
    more = [line | {"position": 10_000 + number} for number, line in enumerate(lines)]
    return pa.Table.from_pylist([*lines, *more], table.schema)


NO_ROW = "is no row of a known kind"
ASKED, SAID = turn("user", "What?", train=None), turn("assistant", "That.", train=None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"position": 10_000}, "are not numbered one after another"),
        ({"position": -1}, "are not numbered one after another"),
        ({"split": "all"}, "has no such place"),
        ({"source_file": None}, "has no such place"),
        ({"cluster": None}, "has no such place"),
        ({"meta": "[1]"}, "has no such place"),
        ({"meta": "{" * 100_000}, "has no such place"),
        ({"row_hash": "0" * 64}, "is not what its hash says"),
        ({"row_hash": None}, "is not what its hash says"),
        ({"kind": "evil\n\x1b[2J"}, NO_ROW),
        ({"kind": None}, NO_ROW),
        ({"messages": None}, NO_ROW),
        ({"messages": []}, NO_ROW),
        ({"messages": [None]}, NO_ROW),
        ({"messages": [ASKED | {"role": None}, SAID]}, NO_ROW),
        ({"messages": [ASKED | {"content": None}, SAID]}, NO_ROW),
        ({"messages": [ASKED | {"role": "<|im_start|>system"}, SAID]}, NO_ROW),
        ({"messages": [ASKED, SAID | {"tool_calls": "rm -rf"}]}, NO_ROW),
        ({"tools": "{}"}, NO_ROW),
        ({"label": True}, NO_ROW),
        ({"chosen": [SAID]}, NO_ROW),
        ({"kind": "preference", "chosen": [SAID]}, NO_ROW),
    ],
)
def test_a_row_that_is_none_is_refused(
    receiver: OpenWorkspace, folder: Path, values: dict[str, Any], said: str
) -> None:
    assert said in refused(receiver, rewritten(folder, with_line(**values)))


def test_rows_that_are_there_twice_are_refused(receiver: OpenWorkspace, folder: Path) -> None:
    assert "is there twice" in refused(receiver, rewritten(folder, again))


def test_a_text_that_is_no_utf8_is_refused(receiver: OpenWorkspace, folder: Path) -> None:
    def spoilt(table: pa.Table) -> pa.Table:
        data = pa.array([b"\xff\xfe"] * len(table), pa.binary()).view(pa.string())
        return table.set_column(table.column_names.index("meta"), "meta", data)

    assert "a text is not UTF-8" in refused(receiver, rewritten(folder, spoilt))


def test_more_rows_than_the_record_names_are_refused(folder: Path, tmp_path: Path) -> None:
    """Rows that are in order, of which the id in the record knows nothing."""
    count = sum(pq.read_metadata(path).num_rows for path in (folder / "data").glob("*.parquet"))

    def more(table: pa.Table) -> pa.Table:
        line = table.to_pylist()[0] | {"position": count, "messages": [ASKED, SAID]}
        content = Content("sft", (Message("user", "What?"), Message("assistant", "That.")))
        added = pa.Table.from_pylist([line | {"row_hash": content_hash(content)}], table.schema)
        return pa.concat_tables([table, added])

    ws = OpenWorkspace.open(Path(shutil.copytree(STARTER, tmp_path / "ws")))
    # They are whole, and no row of theirs is in the catalog.
    line = refused(ws, rewritten(folder, more), kept=frozenset({"rows", "uids", "dataset_version"}))
    assert "its rows are not those that its record names" in line


# --------------------------------------------------------------------------------- its file names


@pytest.mark.parametrize(
    "name",
    [
        "../data/dev.parquet",
        "data/../../dev.parquet",
        "/etc/passwd",
        "/data/dev.parquet",
        "data/a\nb.parquet",
        "data/\x1b[2J.parquet",
        "data/\u202etext.parquet",
        "data/\x00.parquet",
        "data/..\\x.parquet",
        "README.md",
        "adapter_model.safetensors",
        "data/" + "x" * 5_000 + ".parquet",
        "",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(
    receiver: OpenWorkspace, folder: Path, name: str
) -> None:
    path = folder / "gapmend.json"
    record = json.loads(path.read_text("utf-8"))
    record["files"][name] = "0" * 64
    path.write_text(json.dumps(record))
    refused(receiver, folder)
    assert not list(folder.parent.glob("dev.parquet"))


def test_a_folder_behind_a_link_is_refused(receiver: OpenWorkspace, folder: Path) -> None:
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")
    assert "is a link" in refused(receiver, folder)


@pytest.mark.parametrize("license_", [["mit"], 3, "\ud800"])
def test_a_licence_that_is_no_text_is_refused(
    receiver: OpenWorkspace, folder: Path, license_: Any
) -> None:
    path = folder / "gapmend.json"
    record = json.loads(path.read_text("utf-8"))
    record["identity"]["license"] = license_
    if license_ != "\ud800":
        record["id"] = digest({"kind": record["kind"], "identity": record["identity"]})
    path.write_text(json.dumps(record))
    refused(receiver, folder)


# ---------------------------------------------------------------------------------------- bombs


def one_text_often(path: Path) -> None:
    """8 MiB of text in a dictionary, and 1,000 times in the rows: 8 GiB."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 8 * MIB])
    columns = [
        texts if field.name == "meta" else pa.nulls(1000, field.type) for field in parcel_schema()
    ]
    table = pa.Table.from_arrays(columns, names=parcel_schema().names)
    pq.write_table(table, path, compression="zstd", store_schema=False)


def long_texts(path: Path, times: int = 10) -> None:
    """640 MiB of zeros, 64 MiB at a time, with nothing that says so in a dictionary."""
    columns = [
        pa.array(["0" * 64 * MIB]) if field.name == "meta" else pa.nulls(1, field.type)
        for field in parcel_schema()
    ]
    table = pa.Table.from_arrays(columns, schema=parcel_schema())
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(times):
            writer.write_table(table)


def many_rows(path: Path) -> None:
    """Two million rows of nothing: 2 GiB and more, once they are Python's."""
    table = pa.Table.from_arrays(
        [pa.nulls(1_000_000, field.type) for field in parcel_schema()], schema=parcel_schema()
    )
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(2):
            writer.write_table(table)


MEASURED = """
import re, resource, sys
from pathlib import Path
from registry.errors import UserError
from registry.intake.rows import read_rows
try:
    read_rows(Path(sys.argv[1]), "it")
except UserError as error:
    print(error)
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited on Linux")
@pytest.mark.parametrize(
    ("bomb", "why"),
    [
        (one_text_often, "its rows take more than 512 MiB when unpacked"),
        (long_texts, "its rows take more than 512 MiB when unpacked"),
        (many_rows, "row None has no such place"),  # before there is another
    ],
)
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    tmp_path: Path, bomb: Callable[[Path], None], why: str
) -> None:
    (tmp_path / "data").mkdir()
    bomb(tmp_path / "data" / "train.parquet")
    size = (tmp_path / "data" / "train.parquet").stat().st_size
    assert size < 8 * MIB
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said, here, child = done.stdout.splitlines()
    print(f"{bomb.__name__}: {size} bytes, {here} MiB here, {child} MiB in the process that looks")
    assert why in said
    assert int(here) < 512
    assert int(child) < 2_300  # what it may take: 1 GiB and twice what may be unpacked


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited on Linux")
@pytest.mark.usefixtures("python_of_its_own")
def test_a_part_that_takes_more_than_all_memory_ends_the_process_that_looks(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    long_texts(tmp_path / "data" / "train.parquet", times=1)
    less = rows_incoming._ROOM_BYTES // 2 - 16 * MIB  # 32 MiB are left; a text has 64
    done = subprocess.run(
        [sys.executable, "-m", "registry.intake.rows", tmp_path, "it", str(-less)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# ------------------------------------------------------------------------------ and from the Hub


def test_a_pull_says_one_line_and_keeps_nothing(
    sent: Path, tmp_path: Path, receiver: OpenWorkspace
) -> None:
    rows = rewritten(Path(shutil.copytree(sent, tmp_path / "rows")), other_type)
    names = Path(shutil.copytree(sent, tmp_path / "names"))
    record = json.loads((names / "gapmend.json").read_text("utf-8"))
    record["files"]["data/../../../\x1b[2J.parquet"] = "0" * 64
    (names / "gapmend.json").write_text(json.dumps(record))
    with serving(tmp_path / "hub", tokens={"hf_" + "x" * 30: "me:write"}) as hub:
        for folder in (rows, names):
            hub.add_folder(f"me/{folder.name}", folder, kind="dataset")
            done = pull(hub.endpoint, f"datasets/me/{folder.name}", receiver.root, tmp_path)
            *_, line = done.stderr.splitlines()
            assert done.returncode == 2, done.stderr
            assert line.startswith("gapmend: ")
            assert f"datasets/me/{folder.name}@" in line
            assert "\x1b" not in done.stderr
            assert "Traceback" not in done.stderr
    assert not receiver.catalog.committed("dataset_version")
    assert not list(receiver.store.drafts.iterdir())


def pull(endpoint: str, name: str, root: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "gapmend", "pull", name, "-C", root],
        env={
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": "hf_" + "x" * 30,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(cache / "cache"),
            "PATH": "",
            "HOME": str(cache),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
