from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.catalog.catalog import Catalog
from registry.lineage.bitmaps import CHUNK_BYTES, pack, unpack, write_bitmaps
from registry.store.objects import Parent, Store


@settings(deadline=None)  # a busy machine is no fault
@given(st.sets(st.integers(0, 300_000), max_size=50))
def test_a_set_survives(uids: set[int]) -> None:
    chunks = pack(uids)
    assert list(unpack(chunks)) == sorted(uids)
    assert all(len(chunk.bitmap) == CHUNK_BYTES for chunk in chunks)
    assert [chunk.chunk for chunk in chunks] == sorted({uid // 65_536 for uid in uids})


def test_a_negative_uid_is_refused() -> None:
    with pytest.raises(ValueError, match="negative: -1"):
        pack([3, -1])


def test_sql_and_python_agree_on_every_edge(tmp_path: Path) -> None:
    edges = [0, 1, 7, 8, 65_535, 65_536, 131_071, 500_000]
    store, catalog = Store(tmp_path), Catalog(tmp_path)
    with store.draft() as draft:
        write_bitmaps(edges, draft / "bitmaps.parquet")
        selection = store.put("selection", draft, identity={})
    parents = [Parent(selection.id, "selection")]
    adapter = store.put("adapter", None, identity={}, parents=parents)
    catalog.commit([selection, adapter])
    probed = sorted({uid + step for uid in edges for step in (-1, 0, 1) if uid + step >= 0})
    found = [uid for uid in probed if catalog.sql("FROM adapters_that_saw(?)", [uid]).rows]
    assert found == edges


def test_a_tenth_of_ten_million_rows_is_small(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    uids = np.flatnonzero(draw.random(10_000_000) < 0.1)
    began = time.perf_counter()
    write_bitmaps(uids.tolist(), tmp_path / "bitmaps.parquet")
    size = (tmp_path / "bitmaps.parquet").stat().st_size
    print(f"{len(uids)} of 10 M uids: {size} bytes in {time.perf_counter() - began:.2f} s")
    assert size < 1_000_000
