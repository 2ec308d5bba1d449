"""Names of dataset versions: a dataset's name, a tag, an id or the beginning of one.

A tag is an alias that points at a dataset version. Aliases are one space of names: a tag is never
an adapter's alias too, and never the name of a dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from registry.catalog.aliases import check_alias_name
from registry.catalog.lists import dataset_names
from registry.errors import StoreRequestError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.catalog.catalog import Catalog
    from registry.store.kinds import PlacesMeta, VersionMeta
    from registry.store.objects import Store

KIND = "dataset_version"
_RESERVED = "champion"
_TAGS = """
SELECT moves.name, moves.target FROM catalog.alias_moves AS moves
JOIN catalog.objects ON objects.id = moves.target AND objects.kind = 'dataset_version'
QUALIFY row_number() OVER (PARTITION BY moves.name ORDER BY seq DESC, moved_at DESC, moves.id DESC)
        = 1
"""


@dataclass(frozen=True)
class Version:
    """A committed version of a dataset.

    `meta` is what its manifest says (rows, splits, rejects, leaks, license), of a dataset that had
    the rows later with its own name and counts; `tags` are the names that point at it now.
    `created_at` is UTC, ISO 8601.
    """

    id: str
    name: str
    created_at: str
    meta: VersionMeta
    tags: tuple[str, ...] = field(default=())


def versions(catalog: Catalog) -> tuple[Version, ...]:
    """Return every version of every dataset, the oldest first.

    One that two datasets have is there twice, under both names.
    """
    from registry.store.kinds import PlacesMeta, VersionMeta

    found = catalog.committed_of(VersionMeta, PlacesMeta)
    manifests = {one.id: one.meta for one in found[VersionMeta.of_kind]}
    if not manifests:
        return ()
    otherwise = {one.id: one.meta for one in found[PlacesMeta.of_kind]}
    with catalog.reading() as connection:
        tags = connection.execute(_TAGS).fetchall()
    return tuple(
        Version(
            one.version_id,
            one.name,
            one.created_at,
            _as_named(manifests[one.version_id], one.name, otherwise.get(one.places_id or "")),
            tuple(sorted(tag for tag, target in tags if target == one.version_id)),
        )
        for one in dataset_names(catalog)
        if one.version_id in manifests
    )


def _as_named(meta: VersionMeta, name: str, places: PlacesMeta | None) -> VersionMeta:
    """Return what a version's manifest says, for a dataset of this name."""
    said = {"name": name}
    if places is not None:
        said |= {key: getattr(places, key) for key in ("records", "rejects", "duplicates", "leaks")}
    return meta.model_copy(update=said)


def version_named(catalog: Catalog, text: str) -> Version:
    """Return the version that a text names.

    Args:
        catalog: where it is committed.
        text: a dataset's name (its newest version), a tag, a whole id or the beginning of one
            that no other version has, or NAME@ with a tag or id of that dataset's.

    Raises:
        UserError: nothing is called that, or more than one thing is.
    """
    every = versions(catalog)
    name, at, rest = text.rpartition("@")
    if at and text not in {one.name for one in every}:
        return _of_dataset(catalog, every, name, rest)
    return _found(catalog, every, text)


def of_dataset(catalog: Catalog, name: str) -> tuple[Version, ...]:
    """Return the versions of the dataset `name`, the oldest first.

    Raises:
        UserError: no dataset is called that.
    """
    every = versions(catalog)
    ours = tuple(one for one in every if one.name == name)
    if not ours:
        raise _no_dataset(every, name)
    return ours


def move_tag(
    store: Store,
    catalog: Catalog,
    tag: str,
    version_id: str,
    *,
    expect: str | None,
    reason: str,
) -> None:
    """Point `tag` at a dataset version, if it still points at `expect` (None: at nothing).

    Raises:
        UserError: the name can't be a tag, or is an adapter's alias.
        StoreError: the version isn't committed, or the tag was moved by someone else meanwhile.
    """
    check_alias_name(catalog, tag)
    now = catalog.alias(tag)
    kind = None if now is None else catalog.manifest(now).kind
    if tag == _RESERVED or kind not in (None, KIND):
        raise StoreRequestError(
            f"'{tag}' can't be a tag: it is the alias of an adapter", expected="a name of its own"
        )
    catalog.move_alias(store, tag, version_id, expect=expect, reason=reason)


def _of_dataset(catalog: Catalog, every: Sequence[Version], name: str, rest: str) -> Version:
    ours = [one for one in every if one.name == name]
    if not ours:
        raise _no_dataset(every, name)
    if not rest:
        return ours[-1]
    tagged = [one for one in ours if rest in one.tags]
    if tagged:
        return tagged[-1]
    found = _found(catalog, every, rest)
    same = [one for one in ours if one.id == found.id]
    if not same:
        raise StoreRequestError(f"'{rest}' is a version of dataset '{found.name}', not of '{name}'")
    return same[0]


def _found(catalog: Catalog, every: Sequence[Version], text: str) -> Version:
    named = [one for one in every if one.name == text]
    tagged = [one for one in every if text in one.tags]
    if named and tagged:
        raise StoreRequestError(
            f"'{text}' is a dataset and a tag",
            expected="an id",
            fix=f"write {named[-1].id[:12]} for the dataset's newest version, "
            f"{tagged[-1].id[:12]} for the tagged one",
        )
    if named or tagged:
        return (named or tagged)[-1]
    begin = [one for one in every if one.id.startswith(text.lower())] if text else []
    ids = sorted({one.id for one in begin})
    if len(ids) > 1:
        raise StoreRequestError(
            f"the id '{text}' fits several versions: {', '.join(i[:16] for i in ids)}"
        )
    if ids:
        return begin[-1]
    raise _not_there(catalog, every, text)


def _not_there(catalog: Catalog, every: Sequence[Version], text: str) -> UserError:
    target = catalog.alias(text)
    if target is not None:
        kind = catalog.manifest(target).kind
        return StoreRequestError(
            f"'{text}' is an alias of {kind} {target[:12]}, not of a dataset version"
        )
    known = [*dict.fromkeys(one.name for one in every), *(tag for one in every for tag in one.tags)]
    near = get_close_matches(text, known, n=1)
    fix = f"did you mean '{near[0]}'?" if near else "list them: gapmend dataset ls"
    return StoreRequestError(f"no dataset, tag or version is called '{text}'", fix=fix)


def _no_dataset(every: Sequence[Version], name: str) -> UserError:
    known = list(dict.fromkeys(one.name for one in every))
    expected = f"one of {', '.join(known)}" if known else None
    return StoreRequestError(
        f"no dataset is called '{name}'",
        expected=expected,
        fix=None if known else "read one in: gapmend ingest",
    )
