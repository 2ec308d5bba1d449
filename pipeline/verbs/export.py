"""export: a merged model or an adapter as a folder for other programs, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.verbs.elsewhere.gguf_files import GgufDtype, is_quant, write_gguf_files
from pipeline.verbs.elsewhere.usage import name_of, usage_of
from pipeline.workspace.amounts import BYTES
from pipeline.workspace.stage import environment
from pipeline.workspace.store import weights_named
from registry.errors import MachineError, ModelError, UserError, damaged
from registry.gguf.quantise import require_quantiser
from registry.models.adapters import is_tuned
from registry.publish.use.page import FILE as USE_FILE
from registry.publish.use.page import use_file
from registry.store.filenames import GENERATION_CONFIG, MODEL_CONFIG
from registry.store.kinds import ExportMeta, WeightsMeta
from registry.store.objects import Parent, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from evals.verdicts.forgetting import GuardFinding
    from pipeline.verbs.elsewhere.gguf_files import GgufWritten
    from pipeline.verbs.elsewhere.quantised import Answers
    from pipeline.workspace.bars import Bar
    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.gguf.proof import GgufProof
    from registry.gguf.quantise import QuantProof
    from registry.store.manifest import Manifest, Meta
    from registry.store.objects import ObjectRef

Form = Literal["safetensors", "gguf"]

_MODEL_FILES = (MODEL_CONFIG, GENERATION_CONFIG, "model.safetensors.index.json")
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|additional_chat_templates/[\w-]+\.jinja")
_DRAFT = ".gapmend-export"


@dataclass(frozen=True)
class ExportReport:
    """A folder that was written.

    `thing` is what was exported, of this `kind` (model or adapter); `files` is name -> SHA-256.
    `dtype` and `proof` are of a GGUF file: how far its logits are from the model's, read back in
    a new process. `export_id` is the record in the catalog. Of a file that llama.cpp quantised,
    `proof` is of the f16 file before, `quantised` of the file itself, and `answers` what it lost
    and gained on dev beside the adapter that is in it; empty where that was not measured.
    """

    thing: str
    kind: str
    form: Form
    dtype: str | None
    out: str
    files: dict[str, str]
    bytes: int
    proof: GgufProof | None
    export_id: str
    quantised: QuantProof | None = None
    answers: tuple[GuardFinding, ...] = ()


def export(
    ws: WorkspaceStore,
    ui: Ui,
    model_id: str,
    out: Path,
    *,
    form: Form = "safetensors",
    dtype: GgufDtype | None = None,
    license_text: str | None = None,
) -> ExportReport:
    """Write a merged model or an adapter to the new folder `out`, with a USE.md.

    Args:
        ws: the workspace that has it.
        ui: where progress is shown.
        model_id: its id, a prefix of it, or an alias.
        out: the folder; it must not be there, or be empty.
        form: 'safetensors' copies the store's files (an adapter's as a PEFT folder); 'gguf'
            writes one file with its proof, and a Modelfile for Ollama.
        dtype: of the matrices in a GGUF file, by default f16; those of fewer than 8 bits take the
            extra `quants`, and llama.cpp answers the dev items with the file.
        license_text: for the Modelfile; left out without.

    Raises:
        UserError: `out` is in use, or this can't be written in that form.
        GateRefusedError: a GGUF file, read back, doesn't answer as the model does.
        StoreError: the store's files are damaged.
    """
    thing = weights_named(ws, model_id)
    if form != "gguf" and dtype is not None:
        raise UserError("--dtype is of a GGUF file; safetensors are copied", fix="add --form gguf")
    dtype = dtype or "f16"
    quants = form == "gguf" and is_quant(dtype)
    if form == "gguf" and is_tuned(thing):
        raise ModelError(
            "an adapter alone is not written as GGUF",
            fix=f"merge it: gapmend merge --adapter {thing.id[:12]}",
        )
    if quants:
        require_quantiser("--dtype")
    source = ws.store.get(thing.kind, thing.id).path
    written: GgufWritten | None = None
    answers: tuple[Answers, ...] = ()
    with whole_folder(out) as draft:
        with ui.progress(f"export · {thing.kind} {thing.id[:8]} as {form}") as bar:
            if form == "gguf":
                written = write_gguf_files(
                    ws.store, source, draft, dtype, name_of(thing), license_text, bar
                )
            else:
                _copy(thing, source, draft, bar)
            used = usage_of(ws, thing, gguf=written.used if written else None)
            (draft / USE_FILE).write_text(use_file(used), encoding="utf-8", errors="replace")
        if written and written.quantised:
            answers = _answers(ws, ui, thing, written)
        files = digests(draft)
        made = _record(ws, thing, form, files, draft, written, answers)
        # Before the folder has its name: killed in between, the same call does it all again.
        ws.catalog.commit([made])
    return ExportReport(
        thing=thing.id,
        kind=thing.kind,
        form=form,
        dtype=_dtype(written),
        out=str(out),
        files=files,
        bytes=sum((out / name).stat().st_size for name in files),
        proof=written.proof if written else None,
        export_id=made.id,
        quantised=written.quantised if written else None,
        answers=tuple(one.finding for one in answers),
    )


def _answers(
    ws: WorkspaceStore, ui: Ui, thing: Manifest[Meta], written: GgufWritten
) -> tuple[Answers, ...]:
    """Let llama.cpp answer the dev items with a quantised file."""
    from pipeline.verbs.elsewhere.quantised import answers_of
    from pipeline.workspace.workspace import OpenWorkspace

    if written.quantised is None:
        return ()
    opened = ws if isinstance(ws, OpenWorkspace) else OpenWorkspace.open(ws.root)
    return answers_of(opened, ui, thing, written.path, written.quantised)


def _record(
    ws: WorkspaceStore,
    thing: Manifest[Meta],
    form: Form,
    files: dict[str, str],
    draft: Path,
    written: GgufWritten | None,
    answers: Sequence[Answers],
) -> ObjectRef:
    """Put what was written into the store: its hashes, its proof, what it answered."""
    evals = [one for pair in answers for one in (pair.before, pair.after)]
    scored = {"evals": evals} if evals else {}
    proof = (written.quantised or written.proof) if written else None
    return ws.store.put(
        "export",
        None,
        identity={"thing": thing.id, "form": form, "files": files, **scored},
        parents=[Parent(thing.id, thing.kind), *(Parent(one, "eval") for one in evals)],
        meta=ExportMeta(
            form=form,
            dtype=_dtype(written),
            bytes=sum((draft / name).stat().st_size for name in files),
            proof=asdict(proof) if proof else None,
            environment=environment(),
            adapter_id=thing.of(WeightsMeta).meta.adapter_id if answers else None,
            answers=tuple(one.as_json() for one in answers),
        ),
    )


def _dtype(written: GgufWritten | None) -> str | None:
    if written is None:
        return None
    return written.quantised.dtype if written.quantised else written.proof.dtype


def _copy(thing: Manifest[Meta], source: Path, draft: Path, bar: Bar) -> None:
    """Copy the files that belong to a model or an adapter, and no other; check each copy."""
    from registry.store.copying import copy_file
    from registry.store.hashing import file_digest

    listed = {name: one for name, one in thing.files.items() if _is_listed(thing.kind, name)}
    bar.begin(sum(one.bytes for one in listed.values()), BYTES)
    for name, facts in listed.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy_file(source / name, target, bar.advance)
        except OSError as error:
            raise damaged(source / name, error) from error
        if file_digest(target) != facts.sha256:
            raise damaged(source / name, ValueError("its hash is another than its manifest's"))


def _is_listed(kind: str, name: str) -> bool:
    from registry.models.files import TOKENIZER_FILES
    from registry.store.filenames import (
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        CHANGED_CONFIG,
        CHANGED_WEIGHTS,
    )

    if name in TOKENIZER_FILES:
        return True
    if kind == "adapter":
        return name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    if name in (CHANGED_CONFIG, CHANGED_WEIGHTS):
        return True
    return name in _MODEL_FILES or _SHARD.fullmatch(name) is not None


def digests(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of every file below a folder."""
    from registry.store.hashing import file_digest

    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that takes its name at the end, once all is on the disk.

    Raises:
        UserError: there is something at `out` already.
    """
    if out.is_symlink() or out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError("there is something already", str(out), "a new or an empty folder")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    draft = parent / f".{out.absolute().name}.{os.getpid()}{_DRAFT}"
    for left in parent.glob(f".{out.absolute().name}.*{_DRAFT}"):
        if not _is_running(left.name.removesuffix(_DRAFT).rpartition(".")[2]):
            shutil.rmtree(left, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for path in sorted(draft.rglob("*"), reverse=True):
            _sync(path)
        sync_folder(draft)
        _rename(draft, out)
        sync_folder(parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True  # someone else's
    return int(pid) != os.getpid()


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _rename(draft: Path, out: Path) -> None:
    try:
        draft.rename(out)  # over an empty folder too; over a full one the system refuses
    except OSError as error:
        raise MachineError(f"can't become a folder: {error.strerror}", str(out)) from error
