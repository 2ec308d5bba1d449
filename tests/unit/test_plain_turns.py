"""Plain lines read together give what the reader of records gives for each by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry import chunks
from registry.formats import SHAPES, Format
from registry.json_strings import read_strings
from registry.line_blocks import Block, read_blocks
from registry.plain_turns import PlainTurns
from registry.sources import SourceFile

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FORMATS = {name: Format(SHAPES[name]) for name in ("sharegpt", "messages")}
KEYS = {"sharegpt": ("conversations", "from", "value"), "messages": ("messages", "role", "content")}

TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet='ab"\\\n\t/u0d8\x01\u00e9\u3000\U0001f600 }]{[,:', max_size=20),
    st.sampled_from(["", " ", "\u00a0", "\ud800", "x", '"}]}', '"}, {"from": "human"']),
)
ROLES = st.sampled_from(["human", "gpt", "user", "assistant", "system", "tool", "bard"])
REST = st.dictionaries(
    st.sampled_from(["id", "source", "score", "system", "tools", "x"]),
    st.one_of(
        TEXTS,
        st.integers(),
        st.booleans(),
        st.none(),
        st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2),
    ),
    max_size=2,
)


@st.composite
def lines(draw: st.DrawFn, name: str) -> bytes:
    """One line: mostly a plain conversation, in one of the ways of writing it; or nearly one."""
    column, role, text = KEYS[name]
    if draw(st.booleans()):
        said = draw(st.lists(TEXTS, min_size=1, max_size=5))
        roles = [("human", "gpt")[number % 2] for number in range(len(said))]
    else:
        said = draw(st.lists(TEXTS, max_size=4))
        roles = [draw(ROLES) for _ in said]
    turns = [{role: one, text: other} for one, other in zip(roles, said, strict=True)]
    if draw(st.integers(0, 5)) == 0:
        turns = [dict(reversed(turn.items())) for turn in turns]
    if turns and draw(st.integers(0, 7)) == 0:
        turns[-1][draw(st.sampled_from(["weight", "name", text]))] = draw(st.sampled_from([0, "a"]))  # type: ignore[assignment]
    rest = draw(REST) if draw(st.booleans()) else {}
    record: dict[str, Any] = {column: turns, **rest}
    if draw(st.booleans()):
        record = {**rest, column: turns}
    written = json.dumps(
        record,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", ": ")])),
    ).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(written)))
        put = draw(st.sampled_from([b"", b'"', b"\\", b"\t", b"}", b"\xff", b"{", b'"}]']))
        cut = draw(st.integers(0, 2))
        written = written[:at] + put + written[at + cut :]
    return written.replace(b"\n", b" ")


def by_record(path: Path, form: Format, labels: Collection[str] | None) -> list[chunks.Chunk]:
    """The file's chunks, each record read by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainTurns, "of", classmethod(lambda *_: None))
        return list(chunks.read_chunks(SourceFile(path, "d", "train"), form, labels))


def told(found: list[chunks.Chunk]) -> tuple[Any, ...]:
    """All that chunks say, whatever their sizes."""
    tables = [one.table for one in found]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    numbers = [line for one in found for line in one.lines.tolist()]
    rejects = sorted((r.line, r.reason, r.detail) for one in found for r in one.rejects)
    return rows, numbers, rejects, sum(one.records for one in found)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("labels", [None, frozenset({"x", "a"})])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_lines_give_the_same(
    name: str, labels: frozenset[str] | None, data: st.DataObject, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("lines") / "d.jsonl"
    parts = data.draw(st.lists(st.one_of(lines(name), st.sampled_from([b"", b"  ", b"7"]))))
    ending = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    path.write_bytes(ending.join(parts) + data.draw(st.sampled_from([b"", ending])))
    form = FORMATS[name]
    found = list(chunks.read_chunks(SourceFile(path, "d", "train"), form, labels))
    assert told(found) == told(by_record(path, form, labels))
    for one in found:
        assert one.table.schema == chunks.table_of([]).schema


def plain_lines(name: str, text: str, **beside: Any) -> bytes:
    column, role, said = KEYS[name]
    turns = [{role: "user", said: "Ask"}, {role: "assistant", said: text}]
    return json.dumps({**beside, column: turns}, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"conversations": TURNS, "conver\\u0073ations": 0}',
        '{"conver\\u0073ations": 0, "conversations": TURNS}',
        '{"conversations": 0, "conversations": TURNS}',
        '{"x": {"conversations": TURNS}}',
        '{"x": [{"conversations": TURNS}], "conversations": TURNS}',
        '{"id": 1, "id": 2, "conversations": TURNS}',
        '{"id": NaN, "conversations": TURNS}',
        '{"id": 1, "conversations": TURNS,}',
        '{"id": 1, "conversations": TURNS} {}',
        '{"id": "\\ud800", "conversations": TURNS}',
        '{"system": "Be kind.", "conversations": TURNS}',
        '{"conversations": TURNS, "y": [{"a": "b"}]}',
        '{"y": [{"from": "b"}], "conversations": TURNS, "z": "\\"}]"}',
    ],
)
def test_columns_beside_the_turns(line: str, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    path = tmp_path / "d.jsonl"
    path.write_text(line.replace("TURNS", json.dumps(turns)) + "\n")
    form = FORMATS["sharegpt"]
    found = list(chunks.read_chunks(SourceFile(path, "d", "train"), form, None))
    assert told(found) == told(by_record(path, form, None))


@pytest.mark.parametrize("name", FORMATS)
def test_plain_lines_are_never_read_one_by_one(name: str) -> None:
    texts = ["plain", 'a "quote"\n\tand a \\ backslash', "\u4f60\u597d", "\\u00e9", "ends in \\"]
    data = b"".join(plain_lines(name, text) for text in texts)
    data += plain_lines(name, "with columns", id="17", score=0.5)
    reader = PlainTurns.of(FORMATS[name])
    assert reader is not None
    table, numbers = reader.read(Block(1, data), None)
    assert numbers.tolist() == list(range(len(texts) + 1))
    assert [row["messages"][1]["content"] for row in table.to_pylist()][:-1] == texts
    assert table["meta"].to_pylist()[-1] == '{"id": "17", "score": 0.5}'


@pytest.mark.parametrize(
    "separators", [(", ", ": "), (",", ":")], ids=["as Python writes", "as JavaScript writes"]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_ways_in_which_programs_write(separators: tuple[str, str], *, backwards: bool) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    if backwards:
        turns = [dict(reversed(turn.items())) for turn in turns]
    line = json.dumps({"conversations": turns}, separators=separators).encode() + b"\n"
    reader = PlainTurns.of(FORMATS["sharegpt"])
    assert reader is not None
    assert reader.read(Block(1, line * 3), None)[1].tolist() == [0, 1, 2]


def test_formats_that_are_no_conversations_have_no_reader() -> None:
    assert all(
        PlainTurns.of(Format(SHAPES[name])) is None for name in SHAPES if name not in FORMATS
    )


@example(["\\", "0\\\\"])
@example(["\\", '"'])
@given(st.lists(st.text(alphabet='ab"\\nu00e9/\u00e9', max_size=12), max_size=8))
def test_strings_are_those_of_json(raw: list[str]) -> None:
    found = read_strings(pa.array(raw, pa.string()))
    for text, written, valid, given_ in zip(
        found.texts.to_pylist(), found.written.to_pylist(), found.valid.tolist(), raw, strict=True
    ):
        try:
            said = json.loads(f'"{given_}"')
        except ValueError:
            assert not valid
            continue
        assert valid
        assert text == said
        assert f'"{written}"' == json.dumps(said, ensure_ascii=False)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_blocks_are_the_lines_of_the_file(tmp_path_factory: Any, data: bytes, size: int) -> None:
    path = tmp_path_factory.mktemp("blocks") / "d.jsonl"
    path.write_bytes(data)
    numbered: list[tuple[int, bytes]] = []
    for block in read_blocks(path, size):
        for number in range(len(block.ends)):
            numbered.append((block.first + number, block.line(number)))
            printed = not any(letter < 32 for letter in block.line(number))
            assert bool(block.printed[number]) == printed
    with path.open("rb") as file:
        assert numbered == [(n, line.removesuffix(b"\n")) for n, line in enumerate(file, 1)]
