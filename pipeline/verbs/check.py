"""check: is the spec right, is everything there that it names, and does it fit this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from evals.tasks.capability import CapabilitySpec, GuardSpec
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.sources.resolve import Sources
    from registry.errors import ErrorRecord
    from registry.models.load import BaseIdentity
    from registry.models.sizes import WeightSizes


@dataclass(frozen=True)
class BaseCheck:
    """A base that was found, and the bytes of its weights at each precision."""

    identity: BaseIdentity
    sizes: WeightSizes


@dataclass(frozen=True)
class Machine:
    """What this machine has, in bytes; `gpu` is its name, or None."""

    ram_total: int
    ram_free: int
    disk_free: int
    gpu: str | None
    gpu_total: int
    cores: int


@dataclass(frozen=True)
class CheckReport:
    """The spec is valid; this is what it names and what there is."""

    bases: tuple[BaseCheck, ...]
    files: dict[str, list[str]]  # dataset -> the files it reads
    capabilities: tuple[str, ...]
    guards: tuple[str, ...]
    machine: Machine
    notes: tuple[str, ...] = ()  # what may not be meant; nothing is refused for it
    findings: tuple[ErrorRecord, ...] = ()  # what will not come out as the spec wants it


def check(ws: OpenWorkspace, ui: Ui) -> CheckReport:
    """Find every base, data file and lm-eval task that the spec names, and what won't do.

    Raises:
        UserError: a base, a file, a task or the backend is missing or unfit.
    """
    from pipeline.outlook.finding import with_lines

    with with_lines(ws.root):
        return _checked(ws, ui)


def _checked(ws: OpenWorkspace, ui: Ui) -> CheckReport:
    from evals.scoring.plan import code_digest
    from evals.tasks.task_files import task_file
    from pipeline.outlook.finding import placed
    from pipeline.outlook.findings import outlook
    from pipeline.selection.trainable import notes_on_rows
    from pipeline.spec.subjects import errors_at, subjects
    from pipeline.training.machine.dtype import slow_choices
    from registry.chat.tokens import check_tokens
    from registry.datasets.sources.resolve import sources
    from registry.models.sizes import weight_sizes

    found = {name: sources(spec, ws.root) for name, spec in ws.spec.datasets.items()}
    files = {name: [str(file.path) for file in one.files] for name, one in found.items()}
    for name, guard in ws.spec.guards.items():
        if guard.lm_eval is not None:
            task_file(guard.lm_eval, ws.root, f"guards.{name}.lm_eval")
    for what in subjects(ws.spec):
        with errors_at(what):
            code_digest(what.spec, ws.root)
            if what.spec.data is not None:
                _ask_first(what.spec, found[what.spec.data])
    notes = [note for name, one in found.items() for note in _notes(ws, name, one)]
    bases = tuple(
        BaseCheck(ws.models.identity(name), weight_sizes(_config(ws, name)))
        for name in ws.spec.bases
    )
    for name in ws.spec.bases:
        notes += _notes_on_base(ws, name)
        chat = ws.models.chat(name)
        _ = chat.end_of_text
        check_tokens(chat)
    findings = placed(ws.root, outlook(ws, ui, found).findings)
    notes += notes_on_rows(ws, found)
    notes += slow_choices(ws.spec.bases, ws.spec.train, ws.root)
    ws.models.backend(ws.spec.train.base)
    return CheckReport(
        bases,
        files,
        tuple(ws.spec.capabilities),
        tuple(ws.spec.guards),
        machine(ws),
        tuple(notes),
        findings,
    )


def _notes(ws: OpenWorkspace, name: str, files: Sources) -> list[str]:
    """Return how a dataset's files are read where that isn't as usual, and what of its answers."""
    from evals.tasks.capability import labels_of
    from pipeline.spec.subjects import subjects
    from pipeline.verbs.answers import notes_on

    choices = [one.spec for one in subjects(ws.spec) if one.spec.data == name]
    choices = [one for one in choices if one.answer == "choice" and one.labels_column is None]
    listed = [one for one in choices if one.labels is not None]
    labels = dict.fromkeys(label for one in listed for label in labels_of(one, (), ws.root))
    taken = [f"datasets.{name}: {said}" for said in files.taken]
    return taken + notes_on(name, files, tuple(labels) if choices else None)


def _notes_on_base(ws: OpenWorkspace, name: str) -> list[str]:
    """Return what of a base in a GGUF file was lost or guessed."""
    from registry.models.base import locate
    from registry.models.from_gguf import notes_on

    file = locate(name, ws.spec.bases[name], ws.root).gguf
    found = [] if file is None else notes_on(file, ws.root, f"bases.{name}")
    return [f"bases.{name}: {note}" for note in found]


def _ask_first(spec: CapabilitySpec | GuardSpec, files: Sources) -> None:
    """Fill every prompt of `spec`, and its pattern, with the first row of its dataset.

    Raises:
        UserError: the row is no question with an answer, its answer is no number where one is
            asked for, or a template names no column of it.
    """
    from evals.tasks.capability import items_from_rows
    from evals.tasks.prompts import arms_of, fill, render_messages
    from evals.tasks.scorers import check_expected
    from registry.datasets.versions.collect import first_row

    row = first_row(files, spec.data or "")
    labels = ("a label",) if spec.answer == "choice" else ()  # those of the data: not read yet
    for item in items_from_rows([row] if row else [], spec):
        for arm in arms_of(spec.prompts):
            render_messages(arm, item, (), labels)
        check_expected(spec, [item])
        if spec.pattern is not None:
            fill(spec.pattern, item.fields)


def _config(ws: OpenWorkspace, base: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    from registry.models.base import locate

    spec = ws.spec.bases[base]
    folder = locate(base, spec, ws.root).path
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        message = f"no model can be made of {folder}/config.json: {said}"
        raise SpecError(message, f"bases.{base}") from None
    return config


def machine(ws: OpenWorkspace) -> Machine:
    """Return what this machine has: memory, disk at the workspace, GPU."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return Machine(
        ram_total=memory.total,
        ram_free=memory.available,
        disk_free=shutil.disk_usage(ws.root).free,
        gpu=gpu.name if gpu else None,
        gpu_total=gpu.total_memory if gpu else 0,
        cores=psutil.cpu_count(logical=True) or 1,
    )
