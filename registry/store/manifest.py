"""A manifest as a typed value: one envelope for every object, and a model of `meta` for each kind.

`objects.py` writes manifests and checks their envelope; whoever asks what one says reads it
here. The models of `meta` are in `registry/store/kinds.py`.

A key that no model knows was written by a later gapmend or by hand: it is kept (`as_json` gives it
back) and means nothing here. A key that is known and has another type, or is missing where every
gapmend wrote it, is an error with the file's path. What would change the meaning of known keys
raises the format's number, which `read_manifest` checks.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, PrivateAttr, Strict, ValidationError

from registry.errors import StoreError
from registry.store.filenames import MANIFEST
from registry.store.hashing import canonical_json
from registry.store.objects import ManifestJson, Parent, Sealed, read_manifest

Number = int | float
"""A number of JSON: 1 stays 1 and 1.0 stays 1.0, so that all reads back as it was written."""

_T = TypeVar("_T")
Listed = Annotated[tuple[_T, ...], Strict(strict=False)]
"""A list of JSON, also where it is given as a Python list."""


class Meta(BaseModel):
    """What a manifest says beside what decides the id; each kind has a model of its own.

    A field with a default may be missing: it came later, or not every object of the kind has it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", defer_build=True)
    of_kind: ClassVar[str] = ""
    """The kind of object whose manifest this is; empty where any is meant."""

    created_at: str = ""
    """UTC, ISO 8601; `Store.put` gives it."""

    def as_json(self) -> dict[str, Any]:
        """Return what was given or read and nothing else."""
        return cast("dict[str, Any]", _json_of(self))


Meta_co = TypeVar("Meta_co", bound=Meta, covariant=True)
_N = TypeVar("_N", bound=Meta)


class Redacted(BaseModel):
    """What erasures did to an object: their ids, and whether its identity lost words."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    by: tuple[str, ...]
    identity: bool


class Manifest(BaseModel, Generic[Meta_co]):
    """What an object's `manifest.json` says.

    Attributes:
        identity: the JSON values whose digest, with the kind, is the id.
        files: path in the object's folder -> its hash and size.
        parents: the objects that it was made from.
        meta: what describes it and does not decide the id.
        redacted: there where erasures took rows out of it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", defer_build=True)

    format: int
    kind: str
    id: str
    identity: dict[str, Any]
    files: dict[str, Sealed]
    parents: tuple[Parent, ...]
    meta: Meta_co
    redacted: Redacted | None = None
    _path: Path = PrivateAttr(default=Path(MANIFEST))

    def decided_by(self, key: str) -> str:
        """Return a text of the identity.

        Raises:
            StoreError: there is none of that name.
        """
        value = self.identity.get(key)
        if not isinstance(value, str):
            raise _unfit(self._path, f"identity.{key}: expected a text, found {_shown(value)}")
        return value

    def of(self, meta: type[_N]) -> Manifest[_N]:
        """Return it as a manifest of that kind.

        Raises:
            StoreError: it is of another kind.
        """
        if not isinstance(self.meta, meta):
            wanted = meta.of_kind or "model or adapter"
            raise _unfit(self._path, f"a {self.kind}, where a {wanted} is meant")
        return cast("Manifest[_N]", self)

    def as_json(self) -> ManifestJson:
        """Return the JSON value that it was read from."""
        return cast("ManifestJson", _json_of(self))


def manifest_in(folder: Path, meta: type[_N]) -> Manifest[_N]:
    """Read the manifest of an object's folder, committed or not.

    Raises:
        StoreError: it can't be read, is another object's, or doesn't fit.
    """
    read_manifest(folder)
    return manifest_of((folder / MANIFEST).read_bytes(), folder.parent.parent, meta)


def manifest_of(text: str | bytes, objects: Path, meta: type[_N]) -> Manifest[_N]:
    """Read a manifest whose envelope is in order, such as one of the catalog's.

    Args:
        text: the manifest as JSON.
        objects: the store's folder of objects, for the message.
        meta: the model of its `meta`.

    Raises:
        StoreError: it doesn't fit the model, in one line with the path of its file.
    """
    try:
        found = _model(meta).model_validate_json(text)
    except ValidationError as error:
        raw = json.loads(text)
        path = objects / str(raw.get("kind")) / str(raw.get("id")) / MANIFEST
        raise _unfit(path, _first(error)) from None
    found._path = objects / found.kind / found.id / MANIFEST  # noqa: SLF001 - of this module
    return found


@cache
def _model(meta: type[_N]) -> type[Manifest[_N]]:
    return Manifest[meta]  # type: ignore[valid-type]


def _json_of(model: BaseModel) -> Any:
    # Pydantic's own JSON would write a number that JSON hasn't as null.
    return json.loads(canonical_json(model.model_dump(exclude_unset=True)))


def _first(error: ValidationError) -> str:
    """Return the first thing that doesn't fit: its key, what is the matter and what is there."""
    found = error.errors(include_url=False)
    at = ".".join(str(part) for part in found[0]["loc"])
    what = found[0]["msg"][:1].lower() + found[0]["msg"][1:]
    given = "" if found[0]["type"] == "missing" else f", found {_shown(found[0]['input'])}"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{at}: {what}{given}{more}"


def _shown(value: object) -> str:
    return f"{json.dumps(value, default=str):.60}"


def _unfit(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path}: this manifest doesn't fit: {what}. A newer gapmend may have written it; "
        "`gapmend fsck` lists what is damaged"
    )
