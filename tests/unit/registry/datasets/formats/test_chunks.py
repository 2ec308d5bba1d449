"""Rows as columns are the rows that were written one by one."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.formats.content import (
    Content,
    Message,
    content_hash,
    content_schema,
    user_text,
)
from registry.datasets.sources.chunks import UsableRecord, table_of
from tests.support.made_versions import content_record

TEXT = st.text(max_size=8)
MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "system", "tool"]),
        TEXT,
        st.none() | TEXT,
        st.none() | TEXT,
        st.none() | st.booleans(),
    ),
    max_size=4,
).map(tuple)
CONTENTS = st.builds(
    Content,
    st.sampled_from(["sft", "text", "preference", "feedback"]),
    MESSAGES.filter(bool),
    st.none() | MESSAGES,
    st.none() | MESSAGES,
    st.none() | st.booleans(),
    st.none() | TEXT,
)


@given(st.lists(CONTENTS, max_size=6))
def test_columns_are_the_same_as_records(contents: list[Content]) -> None:
    rows = [UsableRecord(content, content_hash(content), "{}") for content in contents]
    made = table_of(rows).drop_columns(["meta", "text"])
    records = [content_record(0, row.row_hash, row.content) for row in rows]
    wanted = pa.Table.from_pylist(records, content_schema()).drop_columns(["row_uid"])
    assert made.to_pylist() == wanted.to_pylist()
    assert made.schema.equals(wanted.schema)
    assert table_of(rows)["text"].to_pylist() == [user_text(content) for content in contents]
