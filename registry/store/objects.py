"""The content-addressed store: immutable folders of files, by the SHA-256 of what decides them.

An object is `objects/<kind>/<id>/` with its files and a `manifest.json` that describes them fully,
so that the catalog can be rebuilt from the files alone. A folder appears under its final name in
one rename, after everything in it is on the disk: it is there whole or not at all. It counts as
acknowledged when `Catalog.commit` has returned.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict, cast

from registry.errors import StoreError, damaged
from registry.store.clock import moment
from registry.store.disk import one_line_when_full
from registry.store.filenames import MANIFEST
from registry.store.hashing import digest, file_digest
from registry.store.held import hold
from registry.store.locks import is_read_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


FORMAT = 1


@dataclass(frozen=True, slots=True)
class Parent:
    """An object that another was made from, and the part that it played."""

    id: str
    role: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file of an object: the SHA-256 of its bytes, and how many there are."""

    sha256: str
    bytes: int


class ParentJson(TypedDict):
    """A `Parent` as it is written."""

    id: str
    role: str


class SealedJson(TypedDict):
    """A `Sealed` as it is written."""

    sha256: str
    bytes: int


class RedactedJson(TypedDict):
    """What erasures did: their ids, and whether words of the identity went."""

    by: list[str]
    identity: bool


class ManifestJson(TypedDict):
    """A manifest as it is written: what is indexed, compared and rewritten without being asked.

    `registry.store.manifest.Manifest` is the same as a typed value.
    """

    format: int
    kind: str
    id: str
    identity: dict[str, Any]
    files: dict[str, SealedJson]
    parents: list[ParentJson]
    meta: dict[str, Any]
    redacted: NotRequired[RedactedJson]


class SupportsJson(Protocol):
    """A typed `meta`, such as those of kinds.py."""

    def as_json(self) -> Mapping[str, Any]:
        """Return it as JSON values."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in the store: its kind, its 64-digit id and its folder.

    `wanted` are the parents that a `put` named. They differ from those in the manifest when the
    same object was there before; see `Catalog.commit`.
    """

    kind: str
    id: str
    path: Path
    wanted: tuple[Parent, ...] | None = field(default=None, compare=False, repr=False)


class Store:
    """The object folders under one root (`<workspace>/.gapmend`)."""

    def __init__(self, root: Path) -> None:
        """Remember the root; nothing is made or read until an object is."""
        self.root = Path(root)
        self.objects = self.root / "objects"
        self.drafts = self.root / "tmp"

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give a new folder to write an object's files into; removed unless it was `put`.

        Raises:
            UserError: when the disk is full, also inside the body.
        """
        with one_line_when_full(self.root):
            self.sweep()
            folder = self.scratch_path()
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def put(
        self,
        kind: str,
        draft: Path | None,
        *,
        identity: Mapping[str, Any],
        parents: Sequence[Parent] = (),
        meta: SupportsJson | Mapping[str, Any] | None = None,
        sealed: Mapping[str, Sealed] | None = None,
    ) -> ObjectRef:
        """Make the draft's files an object; durable on return, not yet acknowledged.

        The id is the digest of kind and identity alone. The same id again changes nothing: the
        object that came first stays, and has to be whole.

        Args:
            kind: the folder under `objects/`, such as `adapter`.
            draft: a folder from `draft()`, or None for an object without files.
            identity: the JSON values that decide the id.
            parents: objects that this one was made from.
            meta: what describes it and does not decide the id, by its kind's model in
                `registry.store.kinds` or, of a kind without one, as JSON; `created_at` is added.
            sealed: files of the draft that are shared with another object, as its manifest has
                them; see `share`.

        Raises:
            UserError: when the disk is full.
            StoreError: it is there, and damaged.
        """
        object_id = digest({"kind": kind, "identity": dict(identity)})
        target = self.objects / kind / object_id
        if draft is None:
            with self.draft() as empty:
                return self.put(kind, empty, identity=identity, parents=parents, meta=meta)
        with one_line_when_full(self.root):
            if target.exists():
                self.get(kind, object_id)  # what is put again is used: it has to be whole
            else:
                created = {"created_at": moment(self.root)}
                manifest: ManifestJson = {
                    "format": FORMAT,
                    "kind": kind,
                    "id": object_id,
                    "identity": dict(identity),
                    "files": _seal_files(draft, sealed or {}),
                    "parents": [_parent(one) for one in parents],
                    "meta": {**created, **_as_json(meta)},
                }
                write_manifest(draft, manifest)
                _make_folder(target.parent)
                _rename(draft, target)
            # Also when it was there: whoever renamed it may have been killed before this.
            sync_folder(target.parent)
        return ObjectRef(kind, object_id, target, wanted=tuple(parents))

    def get(self, kind: str, object_id: str) -> ObjectRef:
        """Find an object to use it: its files are, byte for byte, what its manifest says.

        Raises:
            StoreError: when it is absent or damaged.
        """
        found = self.find(kind, object_id)
        if found is None:
            message = f"{kind} {object_id[:12]} is not in the store {self.objects}"
            raise StoreError(message)
        files = read_manifest(found.path)["files"]
        hold(found.path, {name: said["sha256"] for name, said in files.items()})
        return found

    def find(self, kind: str, object_id: str) -> ObjectRef | None:
        """Find an object's folder without a look at its files; None where there is none."""
        path = self.objects / kind / object_id
        return ObjectRef(kind, object_id, path) if (path / MANIFEST).is_file() else None

    def adopt(self, ref: ObjectRef, *, after: datetime) -> ManifestJson:
        """Date an object anew that was never committed, with the parents that the last `put` named.

        It was left by a run that failed or was killed before it was acknowledged, and names that
        run as its parent; or others were committed since it was put. The caller holds the
        catalog's lock and knows that it is not committed.

        Args:
            ref: the object, as `put` or `find` gave it.
            after: the moment (UTC, without saying so) of the newest that is committed.
        """
        manifest = read_manifest(ref.path)
        manifest["meta"]["created_at"] = moment(self.root, after=after)
        if ref.wanted is not None:
            manifest["parents"] = [_parent(one) for one in ref.wanted]
        with self.draft() as draft:
            write_manifest(draft, manifest)
            (draft / MANIFEST).replace(ref.path / MANIFEST)
        sync_folder(ref.path)
        return manifest

    def manifest(self, ref: ObjectRef) -> ManifestJson:
        """Read an object's manifest, as it is written.

        Raises:
            StoreError: when it is absent, not JSON, or another object's.
        """
        return read_manifest(ref.path)

    def manifests(self) -> Iterator[ManifestJson]:
        """Read every object's manifest, whether committed or not, in the order of kind and id."""
        for folder in self.folders():
            yield read_manifest(folder)

    def folders(self) -> Iterator[Path]:
        """Every `objects/<kind>/<id>` folder, in order."""
        if self.objects.is_dir():
            for kind in sorted(self.objects.iterdir()):
                if kind.is_dir():
                    yield from sorted(path for path in kind.iterdir() if path.is_dir())

    def scratch_path(self) -> Path:
        """Return a new name for a temporary folder; swept away when this process is gone."""
        return self.drafts / f"{_host()}.{os.getpid()}.{secrets.token_hex(8)}"

    def spill_path(self) -> Path:
        """Return where a question puts what doesn't fit the memory: in the store, if it may."""
        name = self.scratch_path()
        return Path(tempfile.gettempdir()) / name.name if is_read_only(self.root) else name

    def leftovers(self) -> list[Path]:
        """Drafts of processes of this machine that are gone (killed before they could tidy up)."""
        if not self.drafts.is_dir():
            return []
        return sorted(path for path in self.drafts.iterdir() if _is_abandoned(path))

    def sweep(self) -> None:
        """Remove the leftovers, so that killed runs do not fill the disk."""
        for path in self.leftovers():
            shutil.rmtree(path, ignore_errors=True)


def share(path: Path, target: Path) -> bool:
    """Give an immutable file a second name, by a hard link; a copy where the disk has none.

    Returns:
        Whether it is one file with two names, which is on the disk already.
    """
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, target)
        return False
    return True


def read_manifest(folder: Path) -> ManifestJson:
    """Read the manifest of an object folder and check that it belongs there.

    Its envelope is checked; what its `meta` says is checked by who asks (`Manifest`) and by `fsck`.

    Raises:
        StoreError: when it is absent, not JSON, or names another kind or id.
    """
    path = folder / MANIFEST
    try:
        manifest = _json(path.read_text(encoding="utf-8"))
        found = (manifest["format"], manifest["kind"], manifest["id"])
        expected_id = digest({"kind": manifest["kind"], "identity": manifest["identity"]})
        if manifest.get("redacted", {}).get("identity"):
            expected_id = found[2]  # an erasure took words out of what the id was made of
        _check_shape(manifest)
    except PermissionError as error:
        raise damaged(path, error) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: not a readable manifest ({type(error).__name__}: {error})"
        raise StoreError(message) from error
    if type(found[0]) is int and found[0] > FORMAT:
        message = f"{path}: has format {found[0]}, written by a newer gapmend. Update gapmend"
        raise StoreError(message)
    if found != (FORMAT, folder.parent.name, folder.name) or expected_id != folder.name:
        message = f"{path}: describes {found[1]} {str(found[2])[:12]}, not what its folder says"
        raise StoreError(message)
    return cast("ManifestJson", manifest)


def _json(text: str) -> Any:
    """Read JSON of which all can be written again: no NaN, and no half of a character."""
    value = json.loads(text, parse_constant=_no_number)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(word: str) -> None:
    message = f"{word} is no number of JSON"
    raise ValueError(message)


def _check_shape(manifest: ManifestJson) -> None:
    """Raise one of the errors that `read_manifest` expects where a part is not as `put` writes."""
    for facts in manifest["files"].values():
        str.encode(facts["sha256"])
        int.bit_length(facts["bytes"])
    for parent in manifest["parents"]:
        str.encode(parent["id"] + parent["role"])
    datetime.fromisoformat(manifest["meta"]["created_at"])


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable (a rename is only that after fsync of its folder)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parent(parent: Parent) -> ParentJson:
    return {"id": parent.id, "role": parent.role}


def _as_json(meta: SupportsJson | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if meta is None or isinstance(meta, Mapping):
        return meta or {}
    return meta.as_json()


def _seal_files(draft: Path, shared: Mapping[str, Sealed]) -> dict[str, SealedJson]:
    """Fsync and hash every file below the draft, and make it read-only."""
    sealed: dict[str, SealedJson] = {}
    for path in sorted(draft.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        name = path.relative_to(draft).as_posix()
        if name in shared:
            sealed[name] = {"sha256": shared[name].sha256, "bytes": shared[name].bytes}
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(0o444)
        sealed[name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    return sealed


def manifest_text(manifest: ManifestJson) -> str:
    """Return the only text that this manifest has in a file."""
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n"


def write_manifest(draft: Path, manifest: ManifestJson) -> None:
    """Write an object's manifest into its folder, durably."""
    with (draft / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(manifest_text(manifest))
        file.flush()
        os.fsync(file.fileno())
    (draft / MANIFEST).chmod(0o444)
    sync_folder(draft)


def _make_folder(path: Path) -> None:
    """Make a folder and its parents, each durable in the one above."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        # Another process was first with the same id; a folder is never renamed over a full one.
        if not target.is_dir():
            raise


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _is_abandoned(path: Path) -> bool:
    host, _, rest = path.name.partition(".")
    pid = rest.partition(".")[0]
    if host != _host() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
