"""The check that every tensor of an adapter from outside has its place, and shape, in its base."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.limited import run_limited
from registry.models.base import locate, weight_files
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from registry.models.base import BaseSpec

    Shapes = dict[str, tuple[int, ...]]

_SECONDS = 60  # of CPU, for PEFT to put an adapter on a base; a big one takes some
_NAMED = 3  # tensors that a message names


def check_fits(folder: Path, base: str, spec: BaseSpec, root: Path) -> None:
    """Check that every tensor of an adapter has its place, and shape, in the base.

    The base is made without weights, so that this costs no memory. Names that PEFT knows under
    others today (of an older transformers, of each expert alone) are written anew into `folder`, as
    PEFT saves them; layers of the base that were saved along are left out where they are its own.

    Args:
        folder: of the adapter; a copy of our own.
        base: its base's name in the spec.
        spec: what the spec says about it.
        root: the workspace.

    Raises:
        UserError: tensors are missing, left over, of another shape, or not finite; or a layer that
            was saved along isn't the base's.
    """
    where = str(folder / ADAPTER_WEIGHTS)
    shapes = _finite_shapes(folder / ADAPTER_WEIGHTS)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        fit = _fit(folder, place, base, spec, root)
        for what, names in fit.wrong.items():
            if names:
                more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                raise ModelError(
                    f"{what}: {', '.join(names[:_NAMED])}{more}",
                    where,
                    expected=f"the tensors that {ADAPTER_CONFIG} makes of base {base}",
                )
        if fit.along:
            model = locate(base, spec, root, weights=True).path
            _check_along(folder, fit.along, weight_files(model), base)
        if fit.along or set(fit.places) != set(shapes):
            for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
                (Path(place) / name).replace(folder / name)


def _finite_shapes(path: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    found: Shapes = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                found[name] = tuple(tensor.shape)
                wide = tensor.double() if tensor.is_floating_point() else tensor
                if not bool(wide.isfinite().all()):
                    raise ModelError(f"{name} has values that are not finite", str(path))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"its weights can't be read: {_first_line(error)}", str(path)) from None
    return found


def _check_along(
    folder: Path, along: Mapping[str, Sequence[str]], files: Sequence[Path], base: str
) -> None:
    """Check that layers of the base that lie in an adapter's file are the base's own.

    PEFT saves embeddings along where LoRA is on them, and writes them over the base's when it
    reads the adapter. Those that are the base's say nothing; others would change it silently.

    Args:
        folder: of the adapter.
        along: its tensors that are the base's -> the names that the base may have them by.
        files: the base's weights.
        base: its name in the spec.

    Raises:
        UserError: one is not the base's own.
    """
    from safetensors import safe_open

    with ExitStack() as opened:
        own = [opened.enter_context(safe_open(path, "pt")) for path in files]
        theirs = opened.enter_context(safe_open(folder / ADAPTER_WEIGHTS, "pt"))
        for name, known_as in along.items():
            found = next((f.get_tensor(k) for k in known_as for f in own if k in f.keys()), None)  # noqa: SIM118 - no mapping
            if found is None or not _equal(found, theirs.get_tensor(name)):
                raise ModelError(
                    f"it holds {name}, which is not what base {base} has there",
                    str(folder / ADAPTER_WEIGHTS),
                    expected="LoRA on the base as it is: this layer was trained, resized, or is "
                    "another base's",
                    fix="name with --base the base that it was trained on",
                )


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether two are the same numbers, in the narrower of their dtypes."""
    if ours.shape != theirs.shape:
        return False
    narrow = min(ours.dtype, theirs.dtype, key=lambda one: one.itemsize)
    return bool((ours.to(narrow) == theirs.to(narrow)).all())


@dataclass(frozen=True)
class Fit:
    """How an adapter fits a base.

    Attributes:
        places: the name and shape of every tensor that PEFT makes of the configuration.
        wrong: what is wrong -> the names of the tensors of which it is.
        along: tensor that is the base's own, saved along -> the names that the base may have it by.
    """

    places: Shapes
    wrong: dict[str, list[str]]
    along: dict[str, list[str]]


def _fit(folder: Path, place: str, base: str, spec: BaseSpec, root: Path) -> Fit:
    """Let PEFT put an adapter on an empty base; what it makes of other names goes to `place`.

    PEFT matches the configuration's regular expressions, and some never end: this happens in a
    process of its own, with little time and memory.
    """
    where = str(folder / ADAPTER_CONFIG)
    model = locate(base, spec, root).path.resolve()
    given = [str(folder.resolve()), str(model), spec.trust_remote_code, place, _SECONDS]
    try:
        done = run_limited("registry.intake.adapter_program", given, _SECONDS)
    except subprocess.TimeoutExpired:
        raise ModelError(f"putting it on base {base} doesn't end", where) from None
    if done.returncode < 0:
        raise ModelError(f"putting it on base {base} takes too much time or memory", where)
    if done.returncode:  # the last line of what PEFT raised, or of what we say
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"PEFT can't put it on base {base}: {said}", where)
    found = json.loads(done.stdout.splitlines()[-1])
    places = {name: tuple(shape) for name, shape in found["places"].items()}
    return Fit(places, found["wrong"], found["along"])


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
