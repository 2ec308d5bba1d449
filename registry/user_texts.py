"""What some rows of a version ask, by uid: only the row groups that have one of them are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.errors import damaged
from registry.filenames import ROWS
from registry.rows import Content, Message, user_text

if TYPE_CHECKING:
    from pathlib import Path

    from registry.splits import Numbers
    from registry.store import ObjectRef, Store


def user_texts(store: Store, version: ObjectRef, uids: Numbers) -> dict[int, str]:
    """Return the text of each uid in which near-duplicates are looked for; see `user_text`.

    Raises:
        StoreError: content that is not in the store, or can't be read.
    """
    wanted = np.unique(uids)
    found: dict[int, str] = {}
    for parent in store.manifest(version)["parents"] if len(wanted) else ():
        if parent["role"] == "rows":
            found |= _texts_in(store.get("rows", parent["id"]).path / ROWS, wanted)
    return found


def _texts_in(path: Path, wanted: Numbers) -> dict[int, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[int, str] = {}
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                bounds = file.metadata.row_group(number).column(0).statistics
                first, last = np.searchsorted(wanted, [bounds.min, bounds.max + 1])
                if first == last:
                    continue
                table = file.read_row_group(number, ["row_uid", "messages"])
                mine = pa.array(np.isin(table["row_uid"].to_numpy(), wanted[first:last]))
                for line in table.filter(mine).to_pylist():
                    turns = tuple(Message(**turn) for turn in line["messages"])
                    found[line["row_uid"]] = user_text(Content("sft", turns))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    return found
