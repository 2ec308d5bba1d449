"""import and pull: what was made elsewhere, taken into the registry, or refused with one line.

An adapter from a folder or the Hub is checked (registry/intake), put on its base and kept like
one that was trained here: gap, forgetting, promote and merge work on it. What gapmend pushed comes
back with the id that it had.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.workspace.amounts import BYTES
from pipeline.workspace.stage import StageOutput, run_stage
from pipeline.workspace.store import refuse_removed
from registry.errors import DataError, HubError, ModelError, UserError
from registry.intake.copy import ParcelRecord, copy_allowed, license_beside, read_record
from registry.intake.template import check_templates
from registry.publish.parcel import ALLOWED, CARD, RECORD, SIGNATURE
from registry.store.kinds import ModelMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.publish.parcel import Kind

STAGE = "import"
VERSION = 2
_OWN = ("config", "weights")  # of an adapter's identity; the base may be another copy
_REPO = re.compile(r"(datasets/)?[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class PullSource:
    """A folder with what is to be taken in.

    Attributes:
        folder: where it is here.
        origin: what it is recorded as: owner/name@commit, or the folder's name.
        record: its gapmend.json, if it has one.
        license: as it or its card says.
        is_cache: the folder is the Hub's cache, which is made of links.
        call: the command that takes it in, for advice.
    """

    folder: Path
    origin: str
    record: ParcelRecord | None
    license: str | None
    is_cache: bool
    call: str = ""


@dataclass(frozen=True)
class TakeReport:
    """What was taken in: its kind and id, and whether it is what the sender's record says.

    `same` is None where it came without a record. `remarks` say what beside an adapter isn't as its
    base's, and wasn't taken.
    """

    object_id: str
    kind: str
    base: str | None
    origin: str
    same: bool | None
    signed_by: str | None
    run_id: str
    cached: bool
    remarks: tuple[str, ...] = ()


def take(
    ws: OpenWorkspace,
    ui: Ui,
    given: str,
    *,
    revision: str | None = None,
    base: str | None = None,
    key: Path | None = None,
) -> TakeReport:
    """Take in an adapter (folder or Hub id), or anything that gapmend pushed.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        given: a folder, `owner/name`, or `datasets/owner/name`.
        revision: of a Hub id: branch, tag or commit.
        base: the base in the spec that an adapter is for, whatever it says itself.
        key: a public key that its signature (model.sig) must fit.

    Raises:
        UserError: not there, not what it should be, or of a base that the spec hasn't.
        GateRefusedError: the signature doesn't fit.
    """
    with ui.progress(f"import · {given}", unit=BYTES) as bar, ws.store.draft() as copy:
        bar.note("fetched")
        source = _fetched(ws, given, revision, whole=key is not None, told=bar.update)
        bar.note("copied and checked")
        copy_allowed(
            *(source.folder, copy, source.record),
            links=source.is_cache,
            where=source.origin,
            told=bar.update,
        )
        signer = _verified(ws, source, copy, key)
        call = f"gapmend adapter import {shlex.quote(given)}"
        call += f" --revision {shlex.quote(revision)}" if revision else ""
        source = replace(source, folder=copy, call=call)  # from here on nothing else is seen
        return _taken(ws, ui, source, base, signer)


def _taken(
    ws: OpenWorkspace, ui: Ui, source: PullSource, base: str | None, signer: str | None
) -> TakeReport:
    from registry.store.hashing import file_digest

    kind: Kind = source.record.kind if source.record else "adapter"
    work = {"adapter": _adapter, "model": _model, "dataset_version": _dataset}[kind]
    paths = sorted(path for path in source.folder.rglob("*") if path.is_file())
    files = {path.relative_to(source.folder).as_posix(): file_digest(path) for path in paths}
    inputs: dict[str, Any] = {"kind": kind, "files": files, "origin": source.origin}
    remarks: tuple[str, ...] = ()
    if kind == "adapter":
        base, remarks = _base_of(ws, source, base)
        inputs["base"] = ws.models.identity(base).digest
    outcome = run_stage(
        ws, ui, STAGE, inputs, lambda ctx: work(ws, ctx, source, base), version=VERSION
    )
    made = outcome.outputs[kind]
    refuse_removed(ws, ws.catalog.manifest(made))
    return TakeReport(
        object_id=made,
        kind=kind,
        base=base if kind == "adapter" else None,
        origin=source.origin,
        same=made == source.record.id if source.record else None,
        signed_by=signer,
        run_id=outcome.run_id,
        cached=outcome.cached,
        remarks=remarks,
    )


def _fetched(
    ws: OpenWorkspace,
    given: str,
    revision: str | None,
    *,
    whole: bool,
    told: Callable[[int, int], None],
) -> PullSource:
    local = (ws.root / Path(given).expanduser()).resolve()
    if local.is_dir():
        if revision is not None:
            raise UserError(f"{given} is a folder and has no revision", fix="leave --revision out")
        return _source(local, local.name, is_cache=False)
    if not _REPO.fullmatch(given):
        raise UserError(
            f"no folder {given}", expected="a folder, owner/name or datasets/owner/name"
        )
    return _from_hub(given, revision, whole=whole, told=told)


def _source(folder: Path, origin: str, *, is_cache: bool) -> PullSource:
    record = read_record(folder, origin)
    return PullSource(folder, origin, record, license_beside(folder, record, origin), is_cache)


def _from_hub(
    given: str, revision: str | None, *, whole: bool, told: Callable[[int, int], None]
) -> PullSource:
    from huggingface_hub.errors import RepositoryNotFoundError

    from registry.hub.repository import Repository

    repo = given.removeprefix("datasets/")
    repository = Repository(repo, "dataset" if repo != given else "model")
    try:
        commit = repository.commit_of(revision or "main")
    except RepositoryNotFoundError:
        raise HubError(
            f"{given} is neither a folder nor a repository on the Hub that you may read",
            fix="check the spelling; for a private one, log in with `hf auth login`",
        ) from None
    if commit is None:
        raise HubError(f"{given} has no revision {revision}", expected="a branch, tag or commit")
    patterns = [pattern for patterns in ALLOWED.values() for pattern in patterns]
    # A signature by others covers whatever lies there.
    wanted = ["*"] if whole else [*patterns, RECORD, CARD]
    folder = repository.download(commit, wanted, told)
    return _source(folder, f"{given}@{commit}", is_cache=True)


def _verified(ws: OpenWorkspace, source: PullSource, copy: Path, key: Path | None) -> str | None:
    """Check the signature with a public key; returns the key's name.

    Of what gapmend pushed it has to cover the files that are taken in, and not the card; of what
    others signed, all that lies there.
    """
    if key is None:
        return None
    import shutil

    from registry.publish.signing import verify

    signature = source.folder / SIGNATURE
    if source.record is not None:
        verify(copy, signature, key)
        return key.name
    with ws.store.draft() as everything:  # the Hub's cache is made of links
        for path in sorted(source.folder.rglob("*")):
            name = path.relative_to(source.folder)
            if path.is_file() and name.as_posix() != SIGNATURE:
                (everything / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, everything / name)
        verify(everything, signature, key)
    return key.name


def _base_of(
    ws: OpenWorkspace, source: PullSource, chosen: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return the base that an adapter goes on, and what beside it is unlike that base's.

    Raises:
        UserError: none of the spec's, it doesn't fit it, or it was trained with another template or
            other tokens, and the user hasn't said that this base is meant.
    """
    from registry.intake.adapter import base_for, check_folder
    from registry.intake.adapter_chat import check_vocabulary, unlike_base
    from registry.intake.adapter_places import check_fits
    from registry.intake.adapter_tokens import check_tokens
    from registry.models.files import read_adapter_config
    from registry.store.filenames import ADAPTER_CONFIG

    if chosen is not None and chosen not in ws.spec.bases:
        raise UserError(f"no base is called '{chosen}'", expected=", ".join(ws.spec.bases))
    declared = check_folder(source.folder)
    identities = {name: ws.models.identity(name) for name in ws.spec.bases}
    where = f"{source.origin}: {ADAPTER_CONFIG}"
    base = base_for(declared, identities, chosen, where, source.call)
    config = read_adapter_config(source.folder)
    tokenizer = ws.models.chat(base).tokenizer
    check_vocabulary(source.folder, tokenizer, base, source.origin)
    check_tokens(source.folder, config, tokenizer, base, where)
    check_templates(source.folder, source.origin)
    remarks = unlike_base(source.folder, tokenizer)
    if remarks and chosen is None:
        raise ModelError(
            f"it was trained to be asked in another way than base {base}: {'; '.join(remarks)}",
            source.origin,
            expected="an adapter that is asked with its base's template and tokens",
            fix="give the base those, as a copy of its folder with the adapter's files; or take "
            f"the adapter as it is, to be asked with the base's: {source.call} --base {base}",
        )
    check_fits(source.folder, base, ws.spec.bases[base], ws.root)
    return base, remarks


def _adapter(
    ws: OpenWorkspace, ctx: StageContext, source: PullSource, base: str | None
) -> StageOutput:
    from registry.models.adapters import publish
    from registry.models.files import read_adapter_config

    name = str(base)
    config = read_adapter_config(source.folder)
    meta = {
        "method": "dora" if config.get("use_dora") else "lora",
        "alpha": config.get("lora_alpha"),
        "origin": source.origin,
        "license": source.license,
    }
    ref = publish(
        ws.store,
        source.folder,
        base=ws.models.identity(name),
        tokenizer=ws.models.chat(name).tokenizer,
        meta=meta,
        parents=[Parent(ctx.run_id, "run")],
    )
    said = source.record.identity if source.record else None
    made = ws.store.manifest(ref)["identity"]
    if said is not None and [made[k] for k in _OWN] != [said.get(k) for k in _OWN]:
        raise ModelError("it is not the adapter that its record names", source.origin)
    return StageOutput({"origin": source.origin}, [("adapter", ref)])


def _model(ws: OpenWorkspace, ctx: StageContext, source: PullSource, _: str | None) -> StageOutput:
    import shutil

    from registry.intake.model import check_model

    record = _record(source)
    if "changed" in record.identity:
        return _changed(ws, ctx, source, record)
    check_model(source.folder, source.origin)
    parents = [Parent(ctx.run_id, "run")]
    adapter_id = str(record.identity.get("adapter", ""))
    if adapter_id and _is_here(ws, adapter_id):
        parents.append(Parent(adapter_id, "adapter"))
    with ws.store.draft() as draft:
        shutil.copytree(source.folder, draft, dirs_exist_ok=True)
        said = {
            "base": record.base,
            "adapter_id": record.identity.get("adapter"),
            "bytes": sum(path.stat().st_size for path in draft.rglob("*") if path.is_file()),
            "origin": source.origin,
            "license": source.license,
        }
        meta = ModelMeta.model_validate(said)
        ref = ws.store.put("model", draft, identity=record.identity, parents=parents, meta=meta)
    return StageOutput({"origin": source.origin}, [("model", ref)])


def _changed(
    ws: OpenWorkspace, ctx: StageContext, source: PullSource, record: ParcelRecord
) -> StageOutput:
    """A model that holds changed tensors alone is taken in for the very base it was made of."""
    from registry.intake.changed import check_changed
    from registry.models.changed import publish_changed

    wanted = record.identity.get("base")
    name = next((one for one in ws.spec.bases if ws.models.identity(one).digest == wanted), None)
    if name is None:
        raise ModelError(
            f"it holds what training changed in {record.base}, which is no base of the spec as it "
            "was",
            source.origin,
            expected="the same weights, tokenizer, template and dtype under `bases:`",
        )
    check_templates(source.folder, source.origin)
    method = check_changed(source.folder, ws.models.get(name).model, source.origin)
    meta = {"method": method, "origin": source.origin, "license": source.license}
    ref = publish_changed(
        ws.store,
        source.folder,
        base=ws.models.identity(name),
        tokenizer=ws.models.chat(name).tokenizer,
        meta=meta,
        parents=[Parent(ctx.run_id, "run")],
    )
    if ref.id != record.id:
        raise ModelError("it is not the model that its record names", source.origin)
    return StageOutput({"origin": source.origin}, [("model", ref)])


def _dataset(
    ws: OpenWorkspace, ctx: StageContext, source: PullSource, _: str | None
) -> StageOutput:
    from registry.intake.rows import take_rows

    record = _record(source)
    license_ = record.identity.get("license")
    if license_ is not None and not isinstance(license_, str):
        raise HubError("its licence is no text", source.origin)
    taken = take_rows(
        ws.store,
        ws.catalog,
        source.folder,
        # With a slash: no dataset of a spec can have this name.
        name=f"pulled/{source.origin.partition('@')[0].removeprefix('datasets/')}",
        license_=license_,
        where=source.origin,
    )
    version = taken.version
    if version.id != record.id:
        raise DataError("its rows are not those that its record names", source.origin)
    ws.catalog.commit([*taken.objects, *([] if taken.places is None else [taken.places])])
    return StageOutput({"origin": source.origin, "run": ctx.run_id}, [("dataset_version", version)])


def _record(source: PullSource) -> ParcelRecord:
    if source.record is None:
        raise HubError("no gapmend.json, which says what it is", source.origin)
    return source.record


def _is_here(ws: OpenWorkspace, object_id: str) -> bool:
    try:
        ws.catalog.manifest(object_id)
    except UserError:
        return False
    return True
