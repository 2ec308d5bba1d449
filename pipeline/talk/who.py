"""Who can be talked to in a workspace: bases, adapters and merged models, by name. Light."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.workspace.store import CHAMPION, refuse_removed
from registry.errors import ModelError, StoreRequestError, UserError
from registry.models.adapters import adapter_path, is_tuned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.base import BaseSpec
    from registry.store.manifest import Manifest, Meta

_ID = 12
_CHAT = ("trust_remote_code", "thinking", "system", "date", "tools")


@dataclass(frozen=True)
class Talker:
    """Somebody who can be talked to.

    Attributes:
        name: what it was asked for by, or is listed as.
        id: of the adapter or the merged model; None for a base.
        kind: what it is.
        base: whose name in the spec it is spoken to by.
        weights: the base that has to be loaded: that of the spec, or the merged model.
        adapter: the folder of what goes on it; None for a base and a whole model.
    """

    name: str
    id: str | None
    kind: Literal["base", "adapter", "model"]
    base: str
    weights: BaseSpec
    adapter: Path | None = None


def talker(ws: OpenWorkspace, name: str | None = None) -> Talker:
    """Return who has a name: a base of the spec, an alias, or an id or the beginning of one.

    Args:
        ws: the workspace.
        name: by default the champion, and the base that is trained where there is none.

    Raises:
        UserError: nobody has it, or it was set aside, or belongs to a base that the spec hasn't.
    """
    if name is None:
        name = CHAMPION if ws.catalog.alias(CHAMPION) else ws.spec.train.base
    if name in ws.spec.bases:
        return _base(ws, name)
    target = ws.catalog.alias(name)
    if target is None and name == CHAMPION:
        raise StoreRequestError(
            "no adapter is champion yet", fix=f"talk to the base: gapmend chat {ws.spec.train.base}"
        )
    try:
        manifest = ws.catalog.manifest(target or name)
    except StoreRequestError as error:
        raise StoreRequestError(
            f"no model is called '{name}' ({error.what})",
            expected=f"{', '.join(ws.spec.bases)}, {CHAMPION}, another alias, or the id of an "
            "adapter or merged model",
            fix="list them: gapmend adapter ls",
        ) from None
    if manifest.kind not in ("adapter", "model"):
        raise StoreRequestError(f"'{name}' is a {manifest.kind}", expected="a model or an adapter")
    refuse_removed(ws, manifest)
    return _of_store(ws, name, manifest)


def talkers(ws: OpenWorkspace) -> tuple[Talker, ...]:
    """Return everybody who can be talked to: bases, then aliases, then the rest, newest first.

    What belongs to a base that the spec hasn't, or that isn't there, is left out.
    """
    from registry.store.kinds import AdapterMeta, ModelMeta, RemovalMeta

    there = ws.catalog.committed_of(AdapterMeta, ModelMeta, RemovalMeta)
    gone = {one.decided_by("object") for one in there["removal"]}
    kept = {one.id: one for kind in ("adapter", "model") for one in reversed(there[kind])}
    aliases = ws.catalog.query('SELECT name, target FROM aliases WHERE "current" ORDER BY name')
    named = [(str(name), str(target)) for name, target in aliases.rows]
    named += [(one[:_ID], one) for one in kept]
    found = [_base(ws, name) for name in ws.spec.bases]
    for name, target in named:
        if target in kept and target not in gone:
            found += _fitting(ws, name, kept[target])
    return tuple(found)


def _fitting(ws: OpenWorkspace, name: str, manifest: Manifest[Meta]) -> Iterator[Talker]:
    with suppress(UserError):  # a base that can't be read says so where it is asked for itself
        yield _of_store(ws, name, manifest)


def _base(ws: OpenWorkspace, name: str) -> Talker:
    return Talker(name, None, "base", name, ws.spec.bases[name])


def _of_store(ws: OpenWorkspace, name: str, manifest: Manifest[Meta]) -> Talker:
    if not is_tuned(manifest):
        base = str(getattr(manifest.meta, "base", ""))
        return Talker(name, manifest.id, "model", base, _whole(ws, manifest, base))
    found = _base_of(ws, manifest)
    if found is None:
        raise ModelError(
            f"{manifest.kind} {manifest.id[:_ID]} belongs to a base that the spec hasn't",
            "bases",
            expected=f"the '{getattr(manifest.meta, 'base', '')}' that it was trained on",
        )
    folder = adapter_path(ws.store, manifest.id)
    return Talker(name, manifest.id, "adapter", found, ws.spec.bases[found], folder)


def _base_of(ws: OpenWorkspace, manifest: Manifest[Meta]) -> str | None:
    """Return the base of the spec that an adapter belongs to, by what identifies it."""
    wanted = manifest.decided_by("base")
    said = getattr(manifest.meta, "base", "")
    names = sorted(ws.spec.bases, key=lambda name: name != said)
    return next((name for name in names if ws.models.identity(name).digest == wanted), None)


def _whole(ws: OpenWorkspace, manifest: Manifest[Meta], base: str) -> BaseSpec:
    """Return a merged model as a base that is spoken to as the one that it was made of."""
    from registry.models.base import MERGED, BaseSpec

    spoken = ws.spec.bases[base].model_dump(include=set(_CHAT)) if base in ws.spec.bases else {}
    dtype = getattr(manifest.meta, "dtype", None)
    return BaseSpec.model_validate({"model": f"{MERGED}{manifest.id}", "dtype": dtype, **spoken})
