"""What is read lazily is what one gets who loads all of a version and filters in Python."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from evals.tasks.capability import CapabilitySpec, items_from_rows, labels_of
from evals.tasks.prompts import Arm, choose_shots, shot_order, usable_shots
from evals.tasks.version_items import (
    first_shots,
    shot_pool,
    version_items,
    version_labels,
    version_shots,
)
from registry.datasets.formats.content import HELD, SPLITS, Content, Message, user_text
from registry.datasets.versions import query as dataset_files
from registry.datasets.versions import read
from registry.datasets.versions.read import RowText, VersionReader
from registry.datasets.versions.row import Row
from registry.errors import StoreError, UserError
from registry.store.objects import Store, write_manifest
from registry.upkeep.phrases import Phrases
from registry.upkeep.redact import ErasedContents, redact
from tests.support.any_rows import contents
from tests.support.made_versions import Made, Versions, rows_of, sft
from tests.support.plain_rows import load_rows

ALL = (*SPLITS, HELD)
# A store and a dozen of DuckDBs for each: few examples, of many rows.
_FEW = settings(max_examples=7, deadline=None, phases=[Phase.explicit, Phase.generate])


@st.composite
def versions(draw: st.DrawFn) -> tuple[list[list[Made]], int, frozenset[int]]:
    """Rows of some versions that share contents, the last one's files of refs, what is erased."""
    pool = draw(st.lists(contents(), min_size=6, max_size=18, unique=True))
    made = st.builds(
        Made,
        st.sampled_from(pool),
        st.sampled_from(draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=4))),
        file=st.sampled_from(["a.jsonl", "b 'c'.jsonl"]),
        line=st.integers(1, 2**40),
        meta=st.sampled_from(["{}", '{"hint": "é"}']),
        tags=st.lists(st.sampled_from("xy"), max_size=2).map(tuple),
    )
    least = draw(st.sampled_from([6, 6, 6, 0]))
    each = st.lists(made, min_size=least, max_size=18, unique_by=lambda one: one.content)
    rows = draw(st.lists(each, min_size=1, max_size=3))
    return rows, draw(st.integers(1, 3)), draw(st.frozensets(st.integers(1, 12), max_size=2))


@contextmanager
def stored(
    rows: list[list[Made]], parts: int, erased: frozenset[int]
) -> Iterator[tuple[Store, str]]:
    """The last of the versions, in a store; what is erased has gone from all of them."""
    with tempfile.TemporaryDirectory() as folder:
        versions = Versions(Path(folder) / ".gapmend")
        ids = [versions.put(one, commit=False) for one in rows[:-1]]
        ids.append(versions.put(rows[-1], commit=False, parts=parts))
        by_uid = {uid: row_hash for row_hash, (uid, _) in versions.known.items()}
        hashes = frozenset(by_uid[uid] for uid in erased if uid in by_uid)
        if hashes:
            take_out(versions.store, ErasedContents(erased, hashes, {}, Phrases(())))
        yield versions.store, ids[-1]


def take_out(store: Store, gone: ErasedContents) -> None:
    """What an erasure does to versions and contents."""
    for folder in [*store.folders()]:
        if folder.parent.name not in ("rows", "dataset_version"):
            continue
        manifest = store.manifest(store.get(folder.parent.name, folder.name))
        with store.draft() as draft:
            if done := redact(folder, manifest, gone, draft, "e"):
                write_manifest(draft, done.manifest)
            for path in draft.iterdir():
                path.replace(folder / path.name)


def salted(salt: str, row: Row) -> str:
    return hashlib.sha256(f"{salt}:{row.row_hash}".encode()).hexdigest()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and batches of a few rows, so that there are several."""
    monkeypatch.setattr(dataset_files, "_CHUNK", 4)
    monkeypatch.setattr(read, "_BATCH", 3)
    monkeypatch.setattr(read, "AT_ONCE", 3)


SOME = st.lists(st.sampled_from(ALL), max_size=4, unique=True)


@_FEW
@given(versions(), SOME, st.frozensets(st.integers(0, 20)), st.integers(0, 5), st.integers(0, 3))
def test_rows_uids_and_counts(
    drawn: tuple, splits: list[str], uids: frozenset[int], limit: int, skip: int
) -> None:
    with stored(*drawn) as (store, version):
        rows = load_rows(store, version)
        ours = [row for row in rows if row.split in splits]
        reader = VersionReader(store, version)
        assert reader.counts() == Counter(row.split for row in rows)
        assert [*chain(*reader.batches(splits))] == ours
        assert reader.rows(uids) == [row for row in rows if row.uid in uids]
        assert reader.rows(uids, splits) == [row for row in ours if row.uid in uids]
        assert reader.uids(splits) == [row.uid for row in ours]
        ordered = sorted(ours, key=lambda row: salted("it's", row))
        found = reader.uids(splits, salt="it's", limit=limit, skip=skip)
        assert found == [row.uid for row in ordered][skip:][:limit]
        assert [*reader.by_hash(splits, "it's", 2 + limit)] == ordered
        some = {row.row_hash for row in rows if row.uid in uids}
        wanted = [(r.uid, f"{r.source_file}:{r.source_line}") for r in ours if r.uid in uids]
        assert reader.places(splits, some) == wanted


@_FEW
@given(versions(), SOME, st.none() | st.frozensets(st.integers(0, 20)))
def test_texts_and_lines(drawn: tuple, splits: list[str], only: frozenset[int] | None) -> None:
    with stored(*drawn) as (store, version):
        rows = load_rows(store, version)
        reader = VersionReader(store, version)
        ours = [r for r in rows if r.split in splits and (only is None or r.uid in only)]
        texts = [*chain(*reader.texts(splits, only))]
        assert sorted(texts, key=lambda text: text.uid) == [text_of(row) for row in ours]
        wanted = only or frozenset()
        assert reader.user_texts(wanted) == {
            row.uid: user_text(Content("sft", row.messages)) for row in rows if row.uid in wanted
        }
        lines = [*chain(*reader.lines(splits))]
        assert [line["position"] for line in lines] == sorted(line["position"] for line in lines)
        assert {line["row_uid"] for line in lines} == {r.uid for r in rows if r.split in splits}


def text_of(row: Row) -> RowText:
    said = [turn.content for turn in (*row.messages, *(row.chosen or ())) if turn.content]
    asked = [turn.content for turn in row.messages if turn.role in ("user", "text")]
    place = (row.uid, row.row_hash, row.split, row.cluster, row.source_file, row.source_line)
    return RowText(*place, "\n".join(said), "\n".join(asked))


@_FEW
@given(versions(), st.integers(1, 4), st.integers(0, 3), st.sampled_from(SPLITS))
def test_items_labels_and_examples(drawn: tuple, limit: int, shots: int, split: str) -> None:
    spec = CapabilitySpec(data="chat", answer="choice", goal=0.5, limit=limit)
    arm = Arm("few", "{input}", shots, None, "few_shot")
    with stored(*drawn) as (store, version):
        rows = [row for row in load_rows(store, version) if row.split == split]
        every, root = load_rows(store, version), store.root
        reader = VersionReader(store, version)
        items = items_or_error(lambda: items_from_rows(rows, spec))
        if isinstance(items, list):
            assert version_items(reader, spec, split) == items
            assert version_items(reader, spec, split, most=2) == items[:2]
            whole = items_from_rows(rows, spec, whole=True)
            assert version_items(reader, spec, split, whole=True) == whole
        wanted = items_or_error(lambda: labels_of(spec, every, root))
        assert items_or_error(lambda: version_labels(reader, spec, root)) == wanted
        train = items_or_error(
            lambda: items_from_rows([r for r in every if r.split == "train"], spec, whole=True)
        )
        if isinstance(train, list):
            chosen = items_or_error(lambda: choose_shots(train, arm, seed=7))
            assert items_or_error(lambda: version_shots(reader, spec, arm, seed=7)) == chosen
            ordered = sorted(usable_shots(train), key=lambda item: shot_order(item, 0))
            assert shot_pool(reader, spec) == ordered
            clusters = len({item.cluster for item in ordered})
            found = first_shots(reader, spec, 0, shots + 1)
            assert found == [*islice(ordered, len(found))]
            assert len({item.cluster for item in found}) == min(clusters, shots + 1)


def items_or_error(call):
    """What a call gives, or what it says is wrong."""
    try:
        return call()
    except UserError as error:
        return error.what


def test_labels_of_turns_that_end_otherwise_are_read_by_the_rule_of_items(tmp_path: Path) -> None:
    late = (Message("user", "q"), Message("assistant", "called"), Message("tool", "r"))
    pair = (Message("assistant", "better"), Message("user", "and?"), Message("assistant", "so"))
    made = Versions(tmp_path)
    shared = made.put(rows_of([sft("x", "of another version")]), commit=False)
    rows = [
        *rows_of([sft("a", "1"), Content("sft", (*late, Message("assistant", "said")))]),
        Made(Content("preference", (Message("user", "p"),), pair, pair[:1]), HELD),
        *rows_of([Content("text", (Message("text", "plain"),))], "dev"),
    ]
    version = made.put([*rows], commit=False)
    spec = CapabilitySpec(data="chat", answer="choice", goal=0.5)
    reader = VersionReader(made.store, version)
    assert version_labels(reader, spec, tmp_path) == ("1", "called", "plain", "so")
    assert reader.answers().distinct == {"1", "plain"}
    assert VersionReader(made.store, shared).answers().distinct == {"of another version"}


def test_a_split_that_is_none_is_refused(tmp_path: Path) -> None:
    made = Versions(tmp_path)
    reader = VersionReader(made.store, made.put(rows_of([sft("a", "1")]), commit=False))
    with pytest.raises(UserError, match="no split is called 'tets'; expected train, dev"):
        reader.uids({"tets"})


@pytest.mark.parametrize("kind", ["rows", "dataset_version"])
@pytest.mark.parametrize("place", ["footer", "pages", "gone", "empty"])
def test_damaged_files_are_one_line(tmp_path: Path, kind: str, place: str) -> None:
    made = Versions(tmp_path)
    version = made.put(rows_of([sft(f"q {n}", f"a {n}") for n in range(40)]), commit=False)
    reader = VersionReader(made.store, version)
    (path,) = (tmp_path / "objects" / kind).glob(
        "*/re*s.parquet" if kind != "rows" else "*/rows.parquet"
    )
    path.chmod(0o644)
    data = path.read_bytes()
    if place == "footer":
        path.write_bytes(data[:-30] + b"x" * 30)
    elif place == "pages":
        middle = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
        path.write_bytes(data[:4] + b"\xff" * middle + data[4 + middle :])
    elif place == "gone":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="gapmend fsck") as caught:
        reader.rows(range(50))
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="gapmend fsck"):
        reader.answers()
    with pytest.raises(StoreError, match="gapmend fsck"):
        [*reader.texts(SPLITS)]


@pytest.mark.parametrize("kind", ["dataset_version", "rows"])
def test_a_flipped_bit_that_parquet_reads_is_found(tmp_path: Path, kind: str) -> None:
    made = Versions(tmp_path)
    version = made.put(rows_of([sft(f"question {n}", f"a {n}") for n in range(9)]), commit=False)
    (path,) = (tmp_path / "objects" / kind).glob("*/re*s.parquet" if kind != "rows" else "*/rows.*")
    data = path.read_bytes()
    word = b"a.jsonl" if kind != "rows" else b"question 3"
    assert word in data
    path.chmod(0o644)
    path.write_bytes(data.replace(word, bytes([word[0] ^ 2]) + word[1:]))
    assert pq.read_table(path).num_rows == 9
    with pytest.raises(StoreError, match=r"parquet.*SHA-256"):
        VersionReader(made.store, version)


def test_a_row_without_its_content_is_a_damaged_store(tmp_path: Path) -> None:
    made = Versions(tmp_path)
    version = made.put(rows_of([sft("a", "1"), sft("b", "2")]), commit=False)
    gone = ErasedContents(frozenset({2}), frozenset(), {}, Phrases(()))
    (folder,) = (tmp_path / "objects" / "rows").iterdir()
    manifest = made.store.manifest(made.store.get("rows", folder.name))
    with made.store.draft() as draft:
        done = redact(folder, manifest, gone, draft, "e")
        assert done is not None
        write_manifest(draft, done.manifest)
        for path in draft.iterdir():
            path.replace(folder / path.name)
    reader = VersionReader(made.store, version)
    with pytest.raises(StoreError, match=r"1 rows of dataset version [0-9a-f]+ have no content"):
        reader.rows([1, 2])
    assert [row.uid for row in reader.rows([1])] == [1]
