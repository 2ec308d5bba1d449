"""Records that are decoded at once give what Python's JSON gives for each by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.datasets.formats import turns
from registry.datasets.formats.content import Content, Message, content_hash, encoded
from registry.datasets.formats.format import SHAPES, Format
from registry.datasets.formats.turns import SHAREGPT, Dialect, UnusableError, turn_of, turns_of
from registry.datasets.readers import json_files
from registry.datasets.readers.read import file_type, read_records
from registry.datasets.sources import chunks
from registry.datasets.sources.resolve import SourceFile
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

NAMES = ("sharegpt", "messages", "alpaca", "columns", "prompt_completion", "text", "feedback")
FORMATS = {name: Format(SHAPES[name]) for name in NAMES}
TURNS = {
    "sharegpt": ("conversations", "from", "value"),
    "messages": ("messages", "role", "content"),
}

TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet='ab"\\\n\t/u0d8\x01\u00e9\u3000\U0001f600 }]{[,:', max_size=20),
    st.sampled_from(["", " ", "\u00a0", "\ud800", "x", '"}]}', '"}, {"from": "human"']),
)
ROLES = st.sampled_from(["human", "gpt", "user", "assistant", "system", "tool", "bard"])
# What stands in a line instead of the text "@".
WRITTEN = st.sampled_from(
    [
        *(b"NaN", b"-Infinity", b"1e400", b"-0", b"-0.0", b"1E5", b"01", b"1.", b"tru", b"[1,]"),
        *(b"18446744073709551616", b"-9223372036854775809", b"9" * 400, b"9" * 5000),
        *(b"0.1", b"5e-324", b"2.5e-310", b"123456789012345678901234567890.5"),
        *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\ude00\\ud83d"', b'"\\u0000"', b'"\\/"'),
        *(b'"\\x"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\x7f\x01"'),
        *(b"[" * 40 + b"]" * 40, b"[" * 5000),
    ]
)
VALUES = st.one_of(
    TEXTS,
    st.just("@"),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2),
)
KEYS = ["id", "source", "system", "tools", "x", "instruction", "input", "output", "history"]
REST = st.dictionaries(
    st.sampled_from([*KEYS, "prompt", "completion", "label"]), VALUES, max_size=3
)


@st.composite
def conversations(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Mostly a plain conversation, or nearly one."""
    column, role, text = TURNS[name]
    if draw(st.booleans()):
        said = draw(st.lists(TEXTS, min_size=1, max_size=5))
        roles = [("human", "gpt")[number % 2] for number in range(len(said))]
    else:
        said = draw(st.lists(TEXTS, max_size=4))
        roles = [draw(ROLES) for _ in said]
    made: list[Any] = [{role: one, text: other} for one, other in zip(roles, said, strict=True)]
    if draw(st.integers(0, 5)) == 0:
        made = [dict(reversed(turn.items())) for turn in made]
    if made and draw(st.integers(0, 7)) == 0:
        key = draw(st.sampled_from(["weight", "name", "tool_calls", text, role]))
        made[-1][key] = draw(st.sampled_from([0, "a", None, [], "@"]))
    if made and draw(st.integers(0, 15)) == 0:
        made[0] = draw(VALUES)
    return {column: made}


@st.composite
def records(draw: st.DrawFn, name: str) -> bytes:
    """One record: mostly one of the format, in one of the ways of writing it; or nearly one."""
    if name in TURNS:
        said = draw(conversations(name))
    else:
        parts = [part for part in FORMATS[name].used if part != "messages"]
        texts = TEXTS if draw(st.integers(0, 3)) else VALUES
        said = {part: draw(texts) for part in parts if draw(st.integers(0, 5))}
    rest = draw(REST) if draw(st.booleans()) else {}
    written = json.dumps(
        {**said, **rest} if draw(st.booleans()) else {**rest, **said},
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", ": ")])),
    ).encode("utf-8", "surrogatepass")
    written = written.replace(b'"@"', draw(WRITTEN))
    if draw(st.integers(0, 5)) == 0 and written.endswith(b"}") and len(written) > len(b"{}"):
        key = json.dumps(draw(st.sampled_from([*said, "id"])))  # once more
        written = written[:-1] + f", {key}: {json.dumps(draw(TEXTS))}}}".encode()
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(written)))
        put = draw(st.sampled_from([b"", b'"', b"\\", b"\t", b"}", b"\xff", b"{", b'"}]', b"\x00"]))
        cut = draw(st.integers(0, 2))
        written = written[:at] + put + written[at + cut :]
    return written.replace(b"\n", b" ")


def refuse(*_: object) -> NoReturn:
    """Decode nothing."""
    raise ValueError


def flat(parts: Any) -> Iterator[str]:
    """Every text in nested lists, in order."""
    if isinstance(parts, str):
        yield parts
    elif isinstance(parts, list):
        for part in parts:
            yield from flat(part)


def by_python(content: Content) -> bytes:
    """What a row's hash is made of, written by Python."""
    lists = [
        None if one is None else [[m.role, m.content, m.tool_calls, m.name, m.train] for m in one]
        for one in (content.messages, content.chosen, content.rejected)
    ]
    parts = [1, content.kind, *lists, content.label, content.tools]
    for text in flat(parts):  # what can't be said is named by its own text
        text.encode()
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def told(path: Path, form: Format, labels: Collection[str] | None) -> tuple[Any, ...] | str:
    """All that a file's chunks say, whatever their sizes; or why it can't be read."""
    try:
        found = list(chunks.read_chunks(SourceFile(path, "d", "train"), form, labels))
    except UserError as error:
        return str(error)
    for one in found:
        assert one.table.schema == chunks.table_of([]).schema
        assert one.records == len(one.table) + len(one.rejects)
    rows = pa.concat_tables([one.table for one in found]).to_pylist() if found else []
    numbers = [line for one in found for line in one.lines.tolist()]
    return rows, numbers, [reject for one in found for reject in one.rejects]


def told_by_python(path: Path, form: Format, labels: Collection[str] | None) -> Any:
    """The same, with nothing decoded at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "_decode", refuse)
        patch.setattr(json_files, "_cut", refuse)
        patch.setattr(turns, "_plain", lambda *_: None)
        patch.setattr(chunks, "encoded", by_python)
        return told(path, form, labels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_records_give_the_same(
    name: str, ending: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("records") / f"d.{ending}"
    some = st.one_of(records(name), st.sampled_from([b"7", b'{"a": 1}', b" {}", b'"\xff"', b"[]"]))
    blank = st.sampled_from([b"", b"  ", b"\x0c"]) if ending == "jsonl" else some
    parts = data.draw(st.lists(st.one_of(some, some, blank), max_size=4))
    if ending == "jsonl":
        end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
        written = end.join(parts) + data.draw(st.sampled_from([b"", end]))
    else:
        between = data.draw(st.sampled_from([b", ", b",\n", b"\r\n , "]))
        written = (
            b"[" + between.join(parts) + data.draw(st.sampled_from([b"]", b" ]\n", b"", b"] 1"]))
        )
    path.write_bytes(data.draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + written)
    labels = data.draw(st.sampled_from([None, None, frozenset({"x", "a"})]))
    assert told(path, FORMATS[name], labels) == told_by_python(path, FORMATS[name], labels)


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
        '{"conversations": TURNS, "y": [{"a": "b", "c": 1, "a": 2}]}',
        '{"y": [{"from": "b"}], "conversations": TURNS, "z": "\\"}]"}',
        '{"conversations": TURNS, "y": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"conversations": TURNS, "y": ' + "[" * 600 + "]" * 600 + "}",
    ],
)
def test_columns_beside_the_turns(line: str, tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    path = tmp_path / "d.jsonl"
    path.write_text(line.replace("TURNS", json.dumps(said)) + "\n")
    form = FORMATS["sharegpt"]
    assert told(path, form, None) == told_by_python(path, form, None)


def test_plain_records_are_never_left_to_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["plain", 'a "quote"\n\tand a \\', "\u4f60\u597d", "\\u00e9", "\U0001f600"]
    lines = [json.dumps({"text": text, "id": 10**30, "score": 0.5}) for text in texts]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    (tmp_path / "d.json").write_text(f"[{','.join(lines)}]")
    monkeypatch.setattr(json_files, "_exactly", None)
    monkeypatch.setattr(json_files, "_elements", None)
    for name in ("d.jsonl", "d.json"):
        found = list(read_records(tmp_path / name))
        assert [one.value and one.value["text"] for one in found] == texts
        assert [one.line for one in found] == [1, 2, 3, 4, 5]
        assert [one.value and one.value["id"] for one in found] == [10**30] * 5


MESSAGES = st.lists(
    st.builds(
        Message, TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.none() | st.booleans()
    )
).map(tuple)
CONTENTS = st.builds(
    Content,
    st.sampled_from(["sft", "text", "preference", "feedback"]),
    MESSAGES,
    st.none() | MESSAGES,
    st.none() | MESSAGES,
    st.none() | st.booleans(),
    st.none() | TEXTS,
)


@given(CONTENTS)
@example(Content("sft", (Message("user", "".join(map(chr, range(0x3000)))),)))
def test_a_content_is_encoded_as_python_writes_it(content: Content) -> None:
    try:
        wanted = by_python(content)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            encoded(content)
    else:
        assert encoded(content) == wanted


def test_a_hash_is_the_one_that_older_stores_have() -> None:
    content = Content(
        "feedback",
        (Message("user", 'a "b"\n'), Message("assistant", "\u4f60\x1f", "[]", "n", train=False)),
        (),
        None,
        label=True,
        tools="[{}]",
    )
    assert (
        content_hash(content) == "b96e994966615391d036cda0e5b5969b8f3fa0fbcddeebf18784fc607f526e30"
    )


@pytest.mark.parametrize(
    "keys",
    [("role", "content"), ("name", "content"), ("role", "name"), ("x", "x"), ("x", "weight")],
)
@pytest.mark.parametrize("train", [None, "role", "content", "trained"])
def test_turns_under_any_keys_are_those_read_one_by_one(
    keys: tuple[str, str], train: str | None
) -> None:
    dialect = Dialect(*keys, {"u": "user", "a": "assistant", "c": "call", "t": "tool"}, train)
    for word in ("u", "a", "t", "z", ["u"], None):
        turn = {keys[0]: word, keys[1]: "0"}
        assert outcome(first_turn, turn, dialect) == outcome(turn_of, turn, dialect)


def first_turn(turn: object, dialect: Dialect) -> Message:
    """The turn of a conversation of one."""
    return turns_of([turn], dialect).messages[0]


def outcome(
    read: Callable[[object, Dialect], Message], turn: object, dialect: Dialect
) -> Message | str:
    """A turn, or why it is none."""
    try:
        return read(turn, dialect)
    except UnusableError as error:
        return str(error)


def test_a_conversation_with_a_tool_is_read_turn_by_turn() -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "observation", "value": "7"}]
    assert turns._plain(talk[:1], SHAREGPT) == [Message("user", "Hi")]
    assert turns._plain(talk, SHAREGPT) is None


def test_real_files_give_the_same(real_data: Path) -> None:
    asked = {"text": ("text", "category"), "question": ("question", "answer")}
    compared = 0
    for path in sorted(one for one in real_data.rglob("*") if file_type(one)):
        columns = next((pair for name, pair in asked.items() if name in first_of(path)), None)
        forms = list(FORMATS.values())
        if columns is not None:
            forms = [
                Format(SHAPES["columns"], dict(zip(("input", "output"), columns, strict=True)))
            ]
        for form in forms:
            found = told(path, form, None)
            assert found == told_by_python(path, form, None)
            compared += 0 if isinstance(found, str) else len(found[0])
    assert compared > 10_000, "rows, and not only rejects"


def first_of(path: Path) -> dict[str, Any]:
    """The first record of a file, or none."""
    try:
        return next(read_records(path)).value or {}
    except (UserError, StopIteration):
        return {}
