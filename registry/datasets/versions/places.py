"""Other places of a version's rows: the same rows, also of another dataset or from other files.

A version's id is of its rows and splits; who is called what and where each row was read from is no
part of it. The first dataset that has the rows says so in the version's own refs. What a later one
says otherwise is an object of its own, kind `places`: its name and counts, `places.parquet` with
the source of each row, and `rejects.parquet`.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from registry.datasets.versions.query import (
    OTHERWISE,
    VersionFiles,
    open_connection,
    version_files,
)
from registry.datasets.versions.refs import refs_names
from registry.store.filenames import PLACES, REJECTS
from registry.store.hashing import file_digest
from registry.store.kinds import PlacesMeta, VersionMeta
from registry.store.manifest import manifest_in
from registry.store.objects import Parent

if TYPE_CHECKING:
    from pathlib import Path

    from registry.store.objects import ObjectRef, Store

KIND = PlacesMeta.of_kind
ROLE = "version"
_SAID = f"SELECT position, {', '.join(OTHERWISE)} FROM {{}}_refs"  # noqa: S608 - our own words
_OTHER = f"SELECT EXISTS({_SAID.format('now')} EXCEPT {_SAID.format('was')})"
# A call that was killed has left uids of its own, which the version's were not.
_TABLE = f"""
SELECT was.row_uid, {", ".join(f"now.{name}" for name in OTHERWISE)}
FROM now_refs AS now JOIN was_refs AS was USING (position) ORDER BY position
"""  # noqa: S608 - our own words


def put_places(
    store: Store, draft: Path, version: ObjectRef, facts: VersionMeta
) -> ObjectRef | None:
    """Put what a draft of a version that is there already says otherwise; None if it doesn't.

    Args:
        store: where the version is.
        draft: the files of the very same version, as another dataset or other files gave it.
        version: the one that came first.
        facts: what the draft's manifest would have said.
    """
    refs = tuple(draft / name for name in refs_names(path.name for path in draft.iterdir()))
    said = _facts(facts)
    files = {"now": VersionFiles(refs, (), None), "was": version_files(store, version.id)}
    with store.draft() as folder, open_connection(store, **files) as connection:
        (other,) = connection.execute(_OTHER).fetchone() or (True,)
        if not other and said == _facts(manifest_in(version.path, VersionMeta).meta):
            return None
        import pyarrow.parquet as pq

        reader = connection.execute(_TABLE).to_arrow_reader()
        with pq.ParquetWriter(folder / PLACES, reader.schema, compression="zstd") as file:
            for batch in reader:
                file.write_batch(batch)
        if (draft / REJECTS).is_file():
            shutil.copyfile(draft / REJECTS, folder / REJECTS)
        identity = {"version": version.id, "name": said.name} | {
            path.stem: file_digest(path) for path in sorted(folder.iterdir())
        }
        return store.put(
            KIND, folder, identity=identity, parents=[Parent(version.id, ROLE)], meta=said
        )


def _facts(meta: VersionMeta) -> PlacesMeta:
    return PlacesMeta(
        name=meta.name,
        records=meta.records,
        rejects=meta.rejects,
        duplicates=meta.duplicates,
        leaks=meta.leaks,
    )
