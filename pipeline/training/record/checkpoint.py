"""Checkpoints: all or nothing on disk, safetensors and JSON only, and checked when read.

A checkpoint holds the trained weights, the optimizer's state, the schedule, the random generators
and the position in the data, so that the next step is equal to the bit. It is written beside its
place, synced, renamed into it, and the folder synced; the one before it stays until then.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from pipeline.training.machine import processes
from pipeline.training.record.folder import CHECKPOINT
from registry.errors import StoreError
from registry.store.disk import one_line_when_full
from registry.store.hashing import file_digest
from registry.store.objects import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_STATE = "state.json"
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_RNG = "rng.safetensors"
TRAINER = "trainer_state.json"  # the name that transformers reads
_FILES = (_WEIGHTS, _OPTIMIZER, _RNG, TRAINER)
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: its folder.
        step: how many steps are behind it.
        state: fingerprint of the run, schedule, optimizer groups, random generators.
    """

    path: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What of a running training goes into a checkpoint and comes back from it."""

    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def names(self) -> list[str]:
        """The parameters' names in the optimizer's own order."""
        name_of = {id(parameter): name for name, parameter in self.parameters.items()}
        groups = self.optimizer.param_groups
        return [name_of[id(parameter)] for group in groups for parameter in group["params"]]


def save_checkpoint(
    root: Path, step: int, training: TrainingState, *, fingerprint: str, trainer: str
) -> Path:
    """Write the checkpoint of this step and drop all but the newest two.

    Args:
        root: the folder of the run's checkpoints.
        step: steps done.
        training: what to save.
        fingerprint: of the run: a checkpoint is never loaded into another one.
        trainer: the Trainer's own state, as JSON text.

    Raises:
        UserError: the disk is full; checkpoints before this one are as they were.
    """
    parts = _parts(step, training, fingerprint, trainer)
    if not processes.is_first():
        return root
    final = root / f"step-{step:08d}"
    draft = root / f"{final.name}.tmp"
    with one_line_when_full(root):
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            for name, data in parts.files.items():
                write_synced(draft / name, data)
            hashes = {name: file_digest(draft / name) for name in _FILES}
            state = {**parts.state, "files": hashes}
            write_synced(draft / _STATE, json.dumps(state).encode())
            sync_folder(draft)
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
            sync_folder(root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for old in _steps(root)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


@dataclass(frozen=True)
class _Parts:
    """A checkpoint's files, and what its state says besides their hashes."""

    files: dict[str, bytes]
    state: dict[str, Any]


def _parts(step: int, training: TrainingState, fingerprint: str, trainer: str) -> _Parts:
    """Gather what is saved; where weights are sharded, every process has to take part."""
    names = training.names()
    optimizer = training.optimizer.state_dict()
    moments = {
        f"{names[index]}|{key}": value
        for index, state in optimizer["state"].items()
        for key, value in state.items()
    }
    files = {
        _WEIGHTS: _bytes(training.parameters),
        _OPTIMIZER: _bytes(moments),
        _RNG: _bytes(_torch_rng()),
        TRAINER: trainer.encode(),
    }
    state = {
        "format": 1,
        "step": step,
        "fingerprint": fingerprint,
        "schedule": training.scheduler.state_dict(),
        "groups": optimizer["param_groups"],
        "python_rng": random.getstate(),
        "numpy_rng": _numpy_rng(),
    }
    return _Parts(files, state)


def _bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    whole = {name: processes.gather(tensor.detach()) for name, tensor in tensors.items()}
    return bytes(save({name: tensor.cpu().contiguous() for name, tensor in whole.items()}))


def _torch_rng() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _numpy_rng() -> list[Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return [name, np.asarray(keys).tolist(), position, has_gauss, gauss]


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and make its bytes durable."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors to a file, which is whole or as it was.

    Raises:
        UserError: the disk is full.
    """
    draft = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _bytes(tensors)
    if not processes.is_first():
        return
    with one_line_when_full(path.parent):
        write_synced(draft, data)
        draft.rename(path)


def load_tensors(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Copy the tensors of a file into parameters of the same names."""
    tensors = load_file(path)
    if tensors.keys() != parameters.keys():
        raise StoreError(f"{path} holds other weights than are trained")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(processes.distribute_like(parameter, tensors[name]))


def last_checkpoint(root: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of this run whose files are whole; leftovers are removed.

    A damaged one is passed over for the one before it, and one of another run is not looked at.
    """
    for draft in root.glob("step-*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)
    for path in _steps(root):
        found = read_checkpoint(path)
        if found is not None and found.state["fingerprint"] == fingerprint:
            return found
    return None


def _steps(root: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    found: Iterable[Path] = root.iterdir() if root.is_dir() else ()
    return sorted((path for path in found if CHECKPOINT.fullmatch(path.name)), reverse=True)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint's state; None when a file of it is missing or not what was written."""
    try:
        state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
        whole = all(file_digest(path / name) == sha for name, sha in state["files"].items())
        return Checkpoint(path=path, step=state["step"], state=state) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_weights(checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Copy the checkpoint's trained weights into the model."""
    load_tensors(checkpoint.path / _WEIGHTS, parameters)


def load_training(checkpoint: Checkpoint, training: TrainingState) -> None:
    """Give optimizer and schedule the state they had."""
    index = {name: i for i, name in enumerate(training.names())}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(checkpoint.path / _OPTIMIZER).items():
        name, part = key.rsplit("|", 1)
        state.setdefault(index[name], {})[part] = processes.distribute_like(
            training.parameters[name], tensor
        )
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in checkpoint.state["groups"]
    ]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.scheduler.load_state_dict(checkpoint.state["schedule"])


def load_rng(checkpoint: Checkpoint) -> None:
    """Put Python's, NumPy's and torch's generators where they were."""
    version, keys, gauss = checkpoint.state["python_rng"]
    random.setstate((version, tuple(keys), gauss))
    name, numbers, *rest = checkpoint.state["numpy_rng"]
    np.random.set_state((name, np.array(numbers, dtype=np.uint32), *rest))  # noqa: NPY002
    states = load_file(checkpoint.path / _RNG)
    torch.set_rng_state(states.pop("cpu"))
    for i, device in enumerate(sorted(states, key=lambda name: int(name[4:]))):
        if i < torch.cuda.device_count():
            torch.cuda.set_rng_state(states[device], i)
