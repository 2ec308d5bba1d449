"""The redaction of one object: rows out of its Parquet files and manifest, under the same id.

A version and its content lose the rows' lines. What was measured or chosen keeps its lines, so that
counts, scores and lineages stay as they were, without hash and text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.datasets.versions.refs import read_refs, refs_names
from registry.datasets.versions.splits import cluster_number
from registry.errors import damaged
from registry.store.filenames import BITMAPS, REJECTS, ROWS, SAMPLES
from registry.store.hashing import file_digest
from registry.store.held import hold
from registry.store.objects import ManifestJson, RedactedJson
from registry.upkeep.phrases import ERASED, Phrases, cut_all, cut_labels, hide_touched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa


# (kind, file) -> the texts of a line that stays. In any other file with row_uid, or with row_hash
# alone, the line goes.
_BLANKED = {
    ("eval", SAMPLES): ("row_hash", "prompt", "expected", "answer"),
    ("selection", ROWS): ("row_hash", "answer"),
}
_REJECT_TEXTS = ("row_hash", "excerpt", "reason")
_ANSWERS = ("eval", SAMPLES)
_TELLING = ("row_uid", "row_hash", "cluster", "answer", "reason", "excerpt")


@dataclass(frozen=True)
class ErasedContents:
    """What has to go.

    Attributes:
        uids: of the rows.
        hashes: of the same rows.
        clusters: number of a cluster that is a part of such a hash -> another number.
        words: the texts that no other row has.
    """

    uids: frozenset[int]
    hashes: frozenset[str]
    clusters: Mapping[int, int]
    words: Phrases


@dataclass(frozen=True)
class Redaction:
    """An object without the rows: its new manifest, and how many of its lines had one."""

    manifest: ManifestJson
    rows: int


def other_clusters(hashes: Mapping[str, bytes]) -> dict[int, int]:
    """Return new numbers for the clusters that are called by one of these hashes.

    A cluster's number is the first 60 bits of its smallest hash, and would confirm a guess.

    Args:
        hashes: row_hash -> its keyed hash, which the new number is taken from.
    """
    return {cluster_number(one): cluster_number(value.hex()) for one, value in hashes.items()}


def redact(
    folder: Path, manifest: ManifestJson, gone: ErasedContents, draft: Path, erasure: str
) -> Redaction | None:
    """Write the files that change into `draft` and return the manifest; None if nothing does.

    Args:
        folder: the object's.
        manifest: the object's.
        gone: what has to go.
        draft: an empty folder; the caller puts its files in the place of the object's.
        erasure: names why, in the manifest.

    Raises:
        StoreError: a file that can't be read.
    """
    kind, rows = manifest["kind"], 0
    files = dict(manifest["files"])
    for name in files:
        # Bits of uids stay: which adapter saw a row can be asked for ever.
        if not name.endswith(".parquet") or name == BITMAPS:
            continue
        out = draft / name
        out.parent.mkdir(parents=True, exist_ok=True)
        found = _rewrite(folder / name, out, _editor(kind, name, gone))
        if found is None:
            continue
        # Damage would be sealed as what is right.
        hold(folder, {name: files[name]["sha256"]})
        rows = max(rows, found)
        files[name] = {"sha256": file_digest(out), "bytes": out.stat().st_size}
    identity = _said(manifest["identity"], gone.words)
    meta = _meta(kind, manifest["meta"], gone.words)
    same = files == manifest["files"] and identity == manifest["identity"]
    if same and meta == manifest["meta"]:
        return None
    if kind == "dataset_version" and refs_names(path.name for path in draft.iterdir()):
        refs = [_newer(draft / name, folder / name) for name in refs_names(files)]
        meta = {**meta, **_counted(refs, meta)}
    elif kind == "rows" and rows:
        meta = {**meta, "rows": int(meta["rows"]) - rows}
    before = manifest.get("redacted") or RedactedJson(by=[], identity=False)
    said: RedactedJson = {
        "by": [*before["by"], erasure],
        "identity": before["identity"] or identity != manifest["identity"],
    }
    now: ManifestJson = {
        **manifest, "files": files, "identity": identity, "meta": meta, "redacted": said
    }  # fmt: skip
    return Redaction(now, rows)


def _editor(
    kind: str, name: str, gone: ErasedContents
) -> Callable[[pa.Table], tuple[pa.Table, int] | None]:
    """Return what edits a table of this file: to the new one and the lines that had such a row."""

    def edit(table: pa.Table) -> tuple[pa.Table, int] | None:
        mine = _lines_of(table, gone)
        hits = sum(mine)
        edited = table
        if name == REJECTS:
            edited = _blank(edited, mine, _REJECT_TEXTS)
            edited = _hide(edited, gone.words)
        elif (kind, name) in _BLANKED:
            edited = _blank(edited, mine, _BLANKED[kind, name])
            if (kind, name) == _ANSWERS:
                edited = _cut_column(edited, "answer", gone.words)
        elif hits:
            edited = edited.filter(_mask([not one for one in mine]))
        edited = _renumber(edited, gone.clusters)
        return None if edited is table else (edited, hits)

    return edit


def _rewrite(
    path: Path, out: Path, edit: Callable[[pa.Table], tuple[pa.Table, int] | None]
) -> int | None:
    """Write what `edit` makes of each row group; None, and no file, when it changes none."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    changed, hits = False, 0
    try:
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            # Most files have no such row: of them, only the columns that tell are read.
            telling = [name for name in file.schema_arrow.names if name in _TELLING]
            if not any(edit(_plain(file.read_row_group(n, telling))) for n in groups):
                return None
            schema = _plain(file.schema_arrow.empty_table()).schema
            with pq.ParquetWriter(out, schema, compression="zstd") as writer:
                for number in groups:
                    table = _plain(file.read_row_group(number))
                    edited = edit(table)
                    if edited is not None:
                        changed, hits, table = True, hits + edited[1], edited[0]
                    if len(table):
                        writer.write_table(table, row_group_size=len(table))
    except (ArrowException, OSError) as error:
        out.unlink(missing_ok=True)
        raise damaged(path, error) from error
    return hits if changed else None


def _plain(table: pa.Table) -> pa.Table:
    """Return the table without dictionaries (they keep values that no line has) or notes."""
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            decoded = table.column(position).cast(field.type.value_type)
            table = table.set_column(position, field.name, decoded)
    return table.replace_schema_metadata(None)


def _lines_of(table: pa.Table, gone: ErasedContents) -> list[bool]:
    """Return for each line whether it is of a row that goes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    masks = []
    if "row_uid" in table.column_names:
        uids = pa.array(sorted(gone.uids), pa.int64())
        masks.append(pc.is_in(table["row_uid"].cast(pa.int64()), value_set=uids))
    if "row_hash" in table.column_names:
        hashes = table["row_hash"].cast(pa.string())
        # A line that an earlier erasure has emptied has its uid and no hash.
        masks = [pc.and_kleene(mask, pc.not_equal(hashes, "")) for mask in masks]
        masks.append(pc.is_in(hashes, value_set=pa.array(sorted(gone.hashes), pa.string())))
    if not masks:
        return [False] * len(table)
    return [any(line) for line in zip(*(mask.to_pylist() for mask in masks), strict=True)]


def _mask(lines: list[bool]) -> pa.Array:
    import pyarrow as pa

    return pa.array(lines, pa.bool_())


def _blank(table: pa.Table, lines: list[bool], columns: tuple[str, ...]) -> pa.Table:
    """Empty these columns in these lines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not any(lines):
        return table
    for name in columns:
        if name in table.column_names:
            place = table.column_names.index(name)
            column = table.column(place)
            empty = pa.scalar(ERASED if name == "reason" else "", column.type)
            table = table.set_column(place, name, pc.if_else(_mask(lines), empty, column))
    return table


def _hide(table: pa.Table, words: Phrases) -> pa.Table:
    """Shorten the reasons of rejects that may show a part of an erased text, and drop excerpts."""
    import pyarrow as pa

    if not words:
        return table
    for name in ("reason", "excerpt"):
        if name not in table.column_names:
            continue
        values = table[name].to_pylist()
        hidden = [_shown(value, words, whole=name == "excerpt") for value in values]
        if hidden != values:
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(hidden, table[name].type))
    return table


def _shown(text: str | None, words: Phrases, *, whole: bool) -> str | None:
    if text is None:
        return None
    if whole:
        return None if words.touches(text) else text
    reason, colon, detail = text.partition(": ")
    if words.touches(reason):
        return ERASED
    return reason if colon and words.touches(detail) else text


def _cut_column(table: pa.Table, name: str, words: Phrases) -> pa.Table:
    """Cut erased texts out of what models said: one may have said a row that it was shown."""
    import pyarrow as pa

    if not words or name not in table.column_names:
        return table
    values = table[name].to_pylist()
    cut = [words.cut(value) if value else value for value in values]
    if cut == values:
        return table
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(cut, table[name].type))


def _renumber(table: pa.Table, clusters: Mapping[int, int]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not clusters or "cluster" not in table.column_names:
        return table
    column = table["cluster"]
    if not pc.any(pc.is_in(column, value_set=pa.array(sorted(clusters), column.type))).as_py():
        return table
    numbers = [clusters.get(one, one) for one in column.to_pylist()]
    place = table.column_names.index("cluster")
    return table.set_column(place, "cluster", pa.array(numbers, column.type))


def _said(part: Mapping[str, Any], words: Phrases) -> dict[str, Any]:
    """Return a part of a manifest without the words."""
    return dict(cut_labels(cut_all(dict(part), words.sentences), words))


def _meta(kind: str, meta: Mapping[str, Any], words: Phrases) -> dict[str, Any]:
    cut = _said(meta, words)
    result = cut.get("result")
    if kind == "run" and isinstance(result, dict):
        # What a stage said in words, an error above all, may quote a part of a row.
        parts = {name: result[name] for name in ("error", "refused") if name in result}
        cut["result"] = result | hide_touched(parts, words)
    return cut


def _newer(redacted: Path, before: Path) -> Path:
    return redacted if redacted.is_file() else before


def _counted(refs: Sequence[Path], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a version's manifest says of its rows now."""
    table = read_refs(refs, ["split", "cluster"]).to_pydict()
    splits = {name: table["split"].count(name) for name in sorted(set(table["split"]))}
    return {
        "rows": len(table["split"]),
        "splits": {name: splits[name] for name in meta["splits"] if name in splits},
        "clusters": len(set(table["cluster"])),
    }
