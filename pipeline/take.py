"""import and pull: what was made elsewhere, taken into the registry, or refused with one line.

An adapter from a folder or the Hub is checked (registry/incoming.py), put on its base and kept like
one that was trained here: gap, forgetting, promote and merge work on it. What gapmend pushed comes
back with the id that it had.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.stage import StageOutput, run_stage
from registry.errors import UserError
from registry.store import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.stage import StageContext
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace
    from registry.store import ObjectRef

STAGE = "import"
VERSION = 1
_REPO = re.compile(r"(datasets/)?[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A folder with what is to be taken in.

    Attributes:
        folder: where it is here.
        origin: what it is recorded as: owner/name@commit, or the folder's name.
        record: its gapmend.json, if it has one.
    """

    folder: Path
    origin: str
    record: dict[str, Any] | None


@dataclass(frozen=True)
class TakeReport:
    """What was taken in: its kind and id, and whether it is what the sender's record says.

    `same` is None where it came without a record.
    """

    object_id: str
    kind: str
    base: str | None
    origin: str
    same: bool | None
    signed_by: str | None
    run_id: str
    cached: bool

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def take(
    ws: Workspace,
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
        base: the base in the spec that an adapter belongs to, where it doesn't say so itself.
        key: a public key that its signature (model.sig) must fit.

    Raises:
        UserError: not there, not what it should be, or of a base that the spec hasn't.
        GateRefusedError: the signature doesn't fit.
    """
    with ui.progress(f"import · {given}"):
        source = _fetched(ws, given, revision, whole=key is not None)
        signer = _verified(ws, source, key)
        kind = source.record["kind"] if source.record else "adapter"
        work = {"adapter": _adapter, "model": _model, "dataset_version": _dataset}[kind]
        files = _hashes(source)
        inputs: dict[str, Any] = {"kind": kind, "files": files, "origin": source.origin}
        if kind == "adapter":
            base = _base_of(ws, source, base)
            inputs["base"] = ws.models.identity(base).digest
        outcome = run_stage(
            ws, ui, STAGE, inputs, lambda ctx: work(ws, ctx, source, base), version=VERSION
        )
    made = outcome.outputs[kind]
    return TakeReport(
        object_id=made,
        kind=kind,
        base=base if kind == "adapter" else None,
        origin=source.origin,
        same=made == source.record["id"] if source.record else None,
        signed_by=signer,
        run_id=outcome.run_id,
        cached=outcome.cached,
    )


def _fetched(ws: Workspace, given: str, revision: str | None, *, whole: bool) -> Source:
    from registry.parcel import RECORD, read_record

    local = (ws.root / Path(given).expanduser()).resolve()
    if local.is_dir():
        if revision is not None:
            raise UserError(f"{given} is a folder and has no revision", fix="leave --revision out")
        path = local / RECORD
        record = read_record(path.read_text("utf-8"), str(path)) if path.is_file() else None
        return Source(local, local.name, record)
    if not _REPO.fullmatch(given):
        raise UserError(
            f"no folder {given}", expected="a folder, owner/name or datasets/owner/name"
        )
    return _from_hub(given, revision, whole=whole)


def _from_hub(given: str, revision: str | None, *, whole: bool) -> Source:
    from huggingface_hub.errors import RepositoryNotFoundError

    from registry.hub import Repository
    from registry.parcel import ALLOWED, RECORD, read_record

    repo = given.removeprefix("datasets/")
    repository = Repository(repo, "dataset" if repo != given else "model")
    try:
        commit = repository.commit_of(revision or "main")
    except RepositoryNotFoundError:
        raise UserError(
            f"{given} is neither a folder nor a repository on the Hub that you may read",
            fix="check the spelling; for a private one, log in with `hf auth login`",
        ) from None
    if commit is None:
        raise UserError(f"{given} has no revision {revision}", expected="a branch, tag or commit")
    patterns = [pattern for patterns in ALLOWED.values() for pattern in patterns]
    # A signature by others covers whatever lies there.
    folder = repository.download(commit, ["*"] if whole else [*patterns, RECORD])
    path = folder / RECORD
    where = f"{given}@{commit[:12]}: {RECORD}"
    record = read_record(path.read_text("utf-8"), where) if path.is_file() else None
    return Source(folder, f"{given}@{commit}", record)


def _verified(ws: Workspace, source: Source, key: Path | None) -> str | None:
    """Check the signature with a public key; returns the key's name.

    Of what gapmend pushed, the signature covers what is taken in, and not the card.
    """
    if key is None:
        return None
    import shutil

    from registry.signing import SIGNATURE, verify

    with ws.store.draft() as copy:  # the Hub's cache is made of links, which no signature covers
        for path in sorted(source.folder.rglob("*")):
            name = path.relative_to(source.folder).as_posix()
            covered = source.record is None or name in source.record["files"]
            if path.is_file() and name != SIGNATURE and covered:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy / name)
        verify(copy, source.folder / SIGNATURE, key)
    return key.name


def _hashes(source: Source) -> dict[str, str]:
    """Path -> SHA-256 of the files that are taken in.

    Raises:
        UserError: one is not what the record says, or none is there.
    """
    from registry.adapters import CONFIG, WEIGHTS
    from registry.hashing import file_digest
    from registry.incoming import check_folder

    if source.record is None:
        check_folder(source.folder)
        return {name: file_digest(source.folder / name) for name in (CONFIG, WEIGHTS)}
    found = {}
    for path, wanted in sorted(source.record["files"].items()):
        file = source.folder / _plain(path)
        found[path] = file_digest(file) if file.is_file() else ""
        if found[path] != wanted:
            what = "is not what its record says" if found[path] else "is missing"
            raise UserError(f"{path} {what}", source.origin, fix="fetch it again")
    return found


def _plain(path: str) -> str:
    if path.startswith("/") or ".." in Path(path).parts:
        raise UserError(f"its record names {path}", expected="files in its own folder")
    return path


def _base_of(ws: Workspace, source: Source, chosen: str | None) -> str:
    from registry.adapters import CONFIG
    from registry.incoming import base_for, check_fits, check_folder

    if chosen is not None and chosen not in ws.spec.bases:
        raise UserError(f"no base is called '{chosen}'", expected=", ".join(ws.spec.bases))
    declared = check_folder(source.folder)
    identities = {name: ws.models.identity(name) for name in ws.spec.bases}
    base = base_for(declared, identities, chosen, f"{source.origin}: {CONFIG}")
    check_fits(source.folder, base, ws.spec.bases[base], ws.root)
    _check_template(source.folder)
    return base


def _check_template(folder: Path) -> None:
    import json

    from registry.template_check import check_template, check_text

    if (folder / "chat_template.jinja").is_file():
        check_template(folder / "chat_template.jinja")
    config = folder / "tokenizer_config.json"
    if config.is_file():
        try:
            given = json.loads(config.read_text("utf-8")).get("chat_template")
        except (ValueError, AttributeError):
            raise UserError("not a JSON object", str(config)) from None
        for text in given.values() if isinstance(given, dict) else [given]:
            if isinstance(text, str):
                check_text(text, str(config))


def _adapter(ws: Workspace, ctx: StageContext, source: Source, base: str | None) -> StageOutput:
    from registry.adapters import publish, read_adapter_config

    name = str(base)
    config = read_adapter_config(source.folder)
    ref = publish(
        ws.store,
        source.folder,
        base=ws.models.identity(name),
        tokenizer=ws.models.chat(name).tokenizer,
        meta={
            "method": "dora" if config.get("use_dora") else "lora",
            "alpha": config.get("lora_alpha"),
            "origin": source.origin,
        },
        parents=[Parent(ctx.run_id, "run")],
    )
    return StageOutput({"origin": source.origin}, [("adapter", ref)])


def _model(ws: Workspace, ctx: StageContext, source: Source, _: str | None) -> StageOutput:
    from registry.incoming import check_header

    record: Mapping[str, Any] = source.record or {}
    for path in sorted(source.folder.glob("*.safetensors")):
        check_header(path)
    _refuse_code(source.folder / "config.json", source.origin)
    _check_template(source.folder)
    parents = [Parent(ctx.run_id, "run")]
    adapter_id = str(record["identity"].get("adapter", ""))
    if adapter_id and _is_here(ws, adapter_id):
        parents.append(Parent(adapter_id, "adapter"))
    ref = _put_as_recorded(ws, source, "model", parents)
    return StageOutput({"origin": source.origin}, [("model", ref)])


def _put_as_recorded(ws: Workspace, source: Source, kind: str, parents: list[Parent]) -> ObjectRef:
    import shutil

    record: Mapping[str, Any] = source.record or {}
    identity = record["identity"]
    said = identity.get("files", {})
    if {path: digest for path, digest in record["files"].items() if path in said} != said:
        raise UserError("its files are not those that its identity names", source.origin)
    with ws.store.draft() as draft:
        size = 0
        for path in record["files"]:
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / path, draft / path)
            size += (draft / path).stat().st_size
        meta = {
            "base": record.get("base"),
            "adapter_id": identity.get("adapter"),
            "bytes": size,
            "origin": source.origin,
        }
        return ws.store.put(kind, draft, identity=identity, parents=parents, meta=meta)


def _dataset(ws: Workspace, ctx: StageContext, source: Source, _: str | None) -> StageOutput:
    from registry.rows_parcel import take_rows

    record: Mapping[str, Any] = source.record or {}
    name = source.origin.partition("@")[0].rpartition("/")[2]
    *others, version = take_rows(
        ws.store,
        ws.catalog,
        source.folder,
        name=name,
        license_=record["identity"].get("license"),
        where=source.origin,
    )
    ws.catalog.commit([*others, version])
    return StageOutput({"origin": source.origin, "run": ctx.run_id}, [("dataset_version", version)])


def _refuse_code(config: Path, origin: str) -> None:
    import json

    try:
        given = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"config.json can't be read ({type(error).__name__})", origin) from None
    if given.get("auto_map"):
        raise UserError(
            "auto_map makes the loader run the code it names", f"{origin}: config.json", "no code"
        )


def _is_here(ws: Workspace, object_id: str) -> bool:
    try:
        ws.catalog.manifest(object_id)
    except UserError:
        return False
    return True
