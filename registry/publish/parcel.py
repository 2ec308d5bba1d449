"""The parcel that is pushed: a list of allowed files, with the hashes that the Hub will show."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from registry.errors import HubError
from registry.hub.repository import ParcelFile
from registry.models.files import TOKENIZER_FILES
from registry.store.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHANGED_CONFIG,
    CHANGED_WEIGHTS,
    GENERATION_CONFIG,
    MODEL_CONFIG,
)
from registry.store.hashing import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from registry.store.manifest import Manifest, Meta

Kind = Literal["adapter", "model", "dataset_version"]

CARD = "README.md"
SIGNATURE = "model.sig"
RECORD = "gapmend.json"
"""Beside what is pushed: which object of which kind it is, so that a pull gives the same id."""

_FORMAT = 1
_TOKENIZER = (*TOKENIZER_FILES, "additional_chat_templates/*.jinja")
ALLOWED: Mapping[Kind, tuple[str, ...]] = {
    "adapter": (ADAPTER_CONFIG, ADAPTER_WEIGHTS, *_TOKENIZER),
    "model": (
        *(MODEL_CONFIG, GENERATION_CONFIG, "model.safetensors"),
        *("model-*-of-*.safetensors", "model.safetensors.index.json"),
        *(CHANGED_CONFIG, CHANGED_WEIGHTS),
        *_TOKENIZER,
    ),
    "dataset_version": ("data/*.parquet",),
}


@dataclass(frozen=True)
class Parcel:
    """One object, ready to be pushed: its card, its record and its files, by path."""

    kind: Kind
    object_id: str
    files: tuple[ParcelFile, ...]

    @property
    def card(self) -> str:
        """The rendered card."""
        content = next(file.content for file in self.files if file.path == CARD)
        return content.decode() if isinstance(content, bytes) else content.read_text("utf-8")

    def listed(self) -> list[dict[str, Any]]:
        """Return path, size and hash of each file."""
        return [{"path": f.path, "bytes": f.size, "sha256": f.sha256} for f in self.files]


def pack(
    manifest: Manifest[Meta],
    files: Mapping[str, Path],
    card: str,
    base: str | None,
    license_: str | None,
    signature: Path | None = None,
) -> Parcel:
    """Make the parcel of one object.

    Args:
        manifest: of the object in the store.
        files: path in the repository -> file; those that the kind doesn't allow are refused.
        card: the text of README.md.
        base: the name in the record of the base that it belongs to; None for a dataset.
        license_: of the whole, for the record.
        signature: of the files, if it was signed; it goes beside them.

    Raises:
        UserError: a file that may not be pushed with this kind, or a link.
    """
    kind = cast("Kind", manifest.kind)
    for path, file in files.items():
        if not any(fnmatch.fnmatchcase(path, one) for one in ALLOWED[kind]):
            raise HubError(
                f"{path} is not pushed with {_a(kind)}", expected=", ".join(ALLOWED[kind])
            )
        if file.is_symlink():
            raise HubError(f"{path} is a link", expected="the file itself")
    packed = [_of_file(path, file) for path, file in sorted(files.items())]
    record = {
        "format": _FORMAT,
        "kind": kind,
        "id": manifest.id,
        "identity": manifest.identity,
        "base": base,
        "license": license_,
        "files": {file.path: file.sha256 for file in packed},
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    extra = {CARD: card.encode(), RECORD: text.encode()}
    packed += [_of_bytes(path, data) for path, data in extra.items()]
    if signature is not None:
        packed.append(_of_file(SIGNATURE, signature))
    return Parcel(kind, manifest.id, tuple(packed))


def allowed_files(folder: Path, kind: Kind) -> dict[str, Path]:
    """Return path -> file of what may be pushed out of an object's folder."""
    names: Iterable[Path] = (path for path in sorted(folder.rglob("*")) if path.is_file())
    relative = {path.relative_to(folder).as_posix(): path for path in names}
    return {
        name: path
        for name, path in relative.items()
        if any(fnmatch.fnmatchcase(name, one) for one in ALLOWED[kind])
    }


def _of_file(path: str, file: Path) -> ParcelFile:
    size = file.stat().st_size
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            blob.update(piece)
    return ParcelFile(path, file, size, file_digest(file), blob.hexdigest())


def _of_bytes(path: str, data: bytes) -> ParcelFile:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
    return ParcelFile(path, data, len(data), hashlib.sha256(data).hexdigest(), blob)


def _a(kind: str) -> str:
    return {"adapter": "an adapter", "model": "a merged model"}.get(kind, "a dataset")
