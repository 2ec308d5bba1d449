"""What the rows of a dataset version say, some thousand at a time: a version may have any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.dataset_files import asking, version_files
from registry.statement import fill

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from registry.store import Store

AT_ONCE = 20_000
_CONTENTS = "list_transform(list_filter({turns}, t -> {which}), t -> t.content)"
_ASKED = _CONTENTS.format(turns="content.messages", which="t.role IN ('user', 'text')")
_SAID = _CONTENTS.format(
    turns="list_concat(content.messages, coalesce(content.chosen, []))", which="t.content <> ''"
)
# The few columns that are joined are those of refs: content, which may be large, streams by.
_TEXTS = f"""
SELECT refs.row_uid, refs.row_hash, refs.split, refs.cluster, refs.source_file, refs.source_line,
       array_to_string({_SAID}, chr(10)) AS text, array_to_string({_ASKED}, chr(10)) AS question
FROM version_rows AS content JOIN version_refs AS refs USING (row_uid)
WHERE refs.split IN ?
"""  # noqa: S608 - its parts are above


@dataclass(frozen=True, slots=True)
class RowText:
    """What one row says and where it stands; `question` is its user turns, or all of a text."""

    uid: int
    row_hash: str
    split: str
    cluster: int
    source_file: str
    source_line: int
    text: str
    question: str

    @property
    def where(self) -> str:
        """Its file and line."""
        return f"{self.source_file}:{self.source_line}"


def row_texts(
    store: Store, version_id: str, splits: Collection[str], only: Collection[int] | None = None
) -> Iterator[list[RowText]]:
    """Yield the rows of a version in these splits, in no particular order.

    Args:
        store: where the version is.
        version_id: its full id.
        splits: train, dev, test or held.
        only: their uids, where not all are wanted.

    Raises:
        StoreError: the version, or a file of it, is not there or damaged.
    """
    import pyarrow as pa

    if not splits or (only is not None and not only):
        return
    statement = fill(_TEXTS, [tuple(sorted(splits))])
    with asking(store, version=version_files(store, version_id)) as connection:
        if only is not None:
            connection.register("chosen", pa.table({"uid": pa.array(sorted(only), pa.int64())}))
            statement += " AND refs.row_uid IN (SELECT uid FROM chosen)"
        for batch in connection.execute(statement).to_arrow_reader(AT_ONCE):
            yield [RowText(*values) for values in zip(*batch.to_pydict().values(), strict=True)]
