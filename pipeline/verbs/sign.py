"""sign and verify: that an adapter or a merged model is what the owner of a key signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.workspace.stage import StageOutput, run_stage
from pipeline.workspace.store import weights_named
from registry.errors import GateRefusedError, StoreRequestError, UserError
from registry.store.kinds import SignatureMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.store.manifest import Manifest, Meta

STAGE = "sign"
VERSION = 1


@dataclass(frozen=True)
class SignReport:
    """A signature of a thing in the store.

    `key` is the SHA-256 of the public key, `path` the signature's file, relative to the workspace;
    `files` is name -> SHA-256 of what it covers, `ignored` what it doesn't, by rule.
    """

    thing: str
    kind: str
    key: str
    signature_id: str
    path: str
    files: dict[str, str]
    ignored: list[str]
    run_id: str
    cached: bool


@dataclass(frozen=True)
class VerifyReport:
    """A signature that holds; `target` is an id or a folder, the rest as in `SignReport`."""

    target: str
    key: str
    files: dict[str, str]
    ignored: list[str]


def sign(ws: WorkspaceStore, ui: Ui, thing: str, key: Path) -> SignReport:
    """Sign an adapter or a merged model with a private key; the signature lies beside it.

    Args:
        ws: the workspace that has it.
        ui: where progress is shown.
        thing: an id, a prefix of one, or an alias.
        key: the private key's file; neither it nor its path is kept.

    Raises:
        UserError: nothing of that name that is signed, or a key that can't sign.
    """
    from registry.publish.signing import key_id

    manifest = weights_named(ws, thing)
    ws.store.get(manifest.kind, manifest.id)  # signed before or not: it has to be whole
    inputs = {"name": manifest.id, "thing": manifest.id, "key": key_id(key)}
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _sign_object(ws, ctx, manifest, key),
        version=VERSION,
        parents=[Parent(manifest.id, manifest.kind)],
    )
    return outcome.report(SignReport, signature_id=outcome.outputs["signature"])


def verify(ws: WorkspaceStore | None, target: str, public_key: Path) -> VerifyReport:
    """Check a signature by its public key.

    Args:
        ws: the workspace for an id or an alias; a folder needs none.
        target: a folder with `model.sig` in it, or an id, a prefix of one, or an alias.
        public_key: the signer's public key, from a source that you trust.

    Raises:
        UserError: nothing of that name, no signature, or one that can't be read.
        GateRefusedError: it doesn't hold: another key, or files changed, added or missing.
    """
    from registry.publish.signing import SIGNATURE, key_id
    from registry.publish.signing import verify as check

    folder = Path(target)
    if folder.is_dir():
        found = check(folder, folder / SIGNATURE, public_key)
        return VerifyReport(target, found.key, found.files, list(found.ignored))
    if ws is None:
        raise UserError(f"no folder {target}", expected="a folder, or an id in a workspace")
    thing = weights_named(ws, target)
    wanted = key_id(public_key)
    signature = ws.catalog.find("signature", thing=thing.id, key=wanted)
    if signature is None:
        raise _not_signed(ws, thing)
    at = ws.store.get("signature", signature.id).path / SIGNATURE
    # As it is: the signature says better than the manifest which file is another.
    found = check(ws.store.objects / thing.kind / thing.id, at, public_key)
    return VerifyReport(thing.id, found.key, found.files, list(found.ignored))


def _sign_object(
    ws: WorkspaceStore, ctx: StageContext, thing: Manifest[Meta], key: Path
) -> StageOutput:
    from registry.publish.signing import SIGNATURE
    from registry.publish.signing import sign as write

    folder = ws.store.get(thing.kind, thing.id).path
    label = f"sign · {thing.kind} {thing.id[:8]}"
    with ws.store.draft() as draft, ctx.ui.progress(label):
        made = write(folder, key, draft / SIGNATURE)
        signature = ws.store.put(
            "signature",
            draft,
            identity={"thing": thing.id, "key": made.key},
            parents=[Parent(ctx.run_id, "run"), Parent(thing.id, thing.kind)],
            meta=SignatureMeta(thing_kind=thing.kind, files=len(made.files), format="OMS"),
        )
    result = {
        "thing": thing.id,
        "kind": thing.kind,
        "key": made.key,
        "path": (signature.path / SIGNATURE).relative_to(ws.root).as_posix(),
        "files": made.files,
        "ignored": list(made.ignored),
    }
    return StageOutput(result, [("signature", signature)])


def _not_signed(ws: WorkspaceStore, thing: Manifest[Meta]) -> UserError | GateRefusedError:
    what = f"{thing.kind} {thing.id[:12]}"
    if ws.catalog.find("signature", thing=thing.id):
        return GateRefusedError(f"{what} is signed with another key")
    return StoreRequestError(
        f"{what} is not signed", fix=f"sign it: gapmend sign {thing.id[:12]} --key FILE"
    )
