"""A row's hash is decided by its content alone, and content comes back as it went in."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.datasets.formats.content import Content, Message, content_hash, content_schema
from registry.datasets.versions.row import row_from
from tests.support.made_versions import content_record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MAYBE = st.none() | TEXT
MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=TEXT,
        tool_calls=MAYBE,
        name=MAYBE,
        train=st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
CONTENT = st.builds(
    Content,
    kind=st.sampled_from(["sft", "text", "preference", "feedback"]),
    messages=MESSAGES,
    chosen=st.none() | MESSAGES,
    rejected=st.none() | MESSAGES,
    label=st.none() | st.booleans(),
    tools=MAYBE,
)
EXAMPLE = Content("sft", (Message("user", "naïve 漢字 🙂\n"), Message("assistant", "\u2028é\x00")))


@given(CONTENT)
@settings(max_examples=40, deadline=None)
def test_any_unicode_comes_back_from_parquet_as_it_went_in(content: Content) -> None:
    sink = pa.BufferOutputStream()
    line = content_record(7, content_hash(content), content)
    pq.write_table(pa.Table.from_pylist([line], content_schema()), sink)
    (read,) = pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()
    ref = {
        "row_uid": 7,
        "row_hash": read["row_hash"],
        "split": "train",
        "cluster": 1,
        "source": "d",
        "source_file": "f",
        "source_line": 1,
        "license": None,
        "tags": [],
        "meta": "{}",
    }
    row = row_from(ref, read)
    back = Content(content.kind, row.messages, row.chosen, row.rejected, row.label, row.tools)
    assert row.kind == content.kind
    assert back == content
    assert content_hash(back) == row.row_hash


@given(CONTENT, CONTENT)
def test_two_contents_have_one_hash_only_if_they_are_equal(one: Content, other: Content) -> None:
    assert (content_hash(one) == content_hash(other)) == (one == other)


def test_the_hash_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import json,sys\nfrom registry.datasets.formats.content import *\n"
        "m=json.loads(sys.argv[1])\n"
        "print(content_hash(Content('sft',tuple(Message(*x) for x in m))))"
    )
    turns = json.dumps([[m.role, m.content] for m in EXAMPLE.messages])
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, turns],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "LC_ALL": "C", "PATH": ""},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {content_hash(EXAMPLE)}


def test_the_hash_of_a_known_row_never_changes() -> None:
    # Written down once: every stored version and lineage rests on it.
    plain = Content("sft", (Message("user", "1 + 1"), Message("assistant", "2")))
    expected = "493c55f203aabf18a003c0fcc4a1970841789b1e11368c2355ca039fadab0359"
    assert content_hash(plain) == expected


def test_a_lone_surrogate_has_no_hash() -> None:
    with pytest.raises(UnicodeEncodeError):
        content_hash(Content("text", (Message("text", "\ud83d"),)))
