"""Texts on the disk come back as they were, by place and by slice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.versions.spool import Spool


@given(batches=st.lists(st.lists(st.text(max_size=9), max_size=7), max_size=6))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
) -> None:
    path: Path = tmp_path_factory.mktemp("spool") / "beside.arrow"
    with Spool(path, ("meta", "text")) as spool:
        for batch in batches:
            other = pa.array([None] * len(batch), pa.int64())
            columns = {"text": pa.array(batch, pa.string()), "more": other}
            spool.write(pa.table({**columns, "meta": pa.array(["{}"] * len(batch), pa.string())}))
        read = spool.read()
        wanted = [text for batch in batches for text in batch]
        texts = read["text"]
        assert list(texts) == wanted
        assert texts[1:3] == wanted[1:3]
        assert texts[::-2] == wanted[::-2]
        assert texts.array(1, 3).to_pylist() == wanted[1:4]
        assert list(read["meta"]) == ["{}"] * len(wanted)
        with pytest.raises(IndexError):
            texts[len(wanted)]
