"""Measuring one subject: a capability or a guard, on one split, by one prompt, with one model.

Gap, select, forget, mend and promote all measure through `measure`, so that the same question is
never asked twice: every evaluation is kept under a key of all that decides it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.capability import CapabilitySpec, GuardSpec, Item
    from evals.evaluate import EvalResult
    from evals.prompts import Arm, Shots
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace
    from registry.read import VersionReader

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Subject:
    """What is measured: a capability or a guard of the spec, by its name."""

    name: str
    role: Literal["capability", "guard"]
    spec: CapabilitySpec | GuardSpec


@dataclass(frozen=True)
class Tuned:
    """What is measured in the place of a base: an adapter on it, or another base by itself.

    Attributes:
        adapter_id: the adapter; empty for another base.
        scale: what its deltas are multiplied by (1 = as trained).
        base: the other base's name in the spec, such as a model that was merged.
    """

    adapter_id: str
    scale: float = 1.0
    base: str | None = None


def subjects(ws: Workspace) -> tuple[Subject, ...]:
    """Return every capability and then every guard of the spec, in its order."""
    capabilities = (Subject(n, "capability", s) for n, s in ws.spec.capabilities.items())
    guards = (Subject(n, "guard", s) for n, s in ws.spec.guards.items())
    return (*capabilities, *guards)


def subject(ws: Workspace, name: str) -> Subject:
    """Return the capability or guard called `name`.

    Raises:
        UserError: the spec has none of that name.
    """
    for candidate in subjects(ws):
        if candidate.name == name:
            return candidate
    known = ", ".join(s.name for s in subjects(ws))
    raise UserError(f"no capability or guard is called '{name}'", expected=f"one of {known}")


@contextmanager
def placed(what: Subject) -> Iterator[None]:
    """Name `what` in every error that names no place of its own."""
    try:
        yield
    except UserError as error:
        section = "capabilities" if what.role == "capability" else "guards"
        error.place(f"gapmend.yaml: {section}.{what.name}")
        raise


def items_of(
    ws: Workspace, ui: Ui, what: Subject, split: Split, most: int | None = None
) -> list[Item]:
    """Return the items of `what` in `split`; of dev and test at most its `limit`, by hash.

    With `most`, only the first so many of them.
    """
    from evals.version_items import version_items

    installed = getattr(what.spec, "lm_eval", None)
    if installed is not None:
        from evals.installed import installed_items

        return installed_items(installed, ws.root, split, what.spec.limit)[:most]
    reader = reader_of(ws, ui, what)
    return version_items(reader, what.spec, split, whole=split == "train", most=most)


def reader_of(ws: Workspace, ui: Ui, what: Subject) -> VersionReader:
    """Return what reads the dataset of `what`.

    Raises:
        UserError: it brings its own items.
    """
    from pipeline.ingest import version_of
    from registry.read import VersionReader

    if what.spec.data is None:
        raise UserError(f"'{what.name}' has no dataset: it brings its own items")
    return VersionReader(ws.store, version_of(ws, ui, what.spec.data))


def labels_of_subject(ws: Workspace, ui: Ui, what: Subject) -> tuple[str, ...]:
    """Return the labels of a choice: those of the spec, else every answer in its dataset."""
    from evals.version_items import version_labels

    if what.spec.answer != "choice":
        return ()
    if isinstance(what.spec.labels, tuple):
        return what.spec.labels
    return version_labels(reader_of(ws, ui, what), what.spec, ws.root)


def shots_of(ws: Workspace, ui: Ui, what: Subject, arm: Arm, items: Sequence[Item]) -> Shots:
    """Return the examples that `arm` shows: from train, by hash for all, or each item its own.

    An lm-eval task brings its own.
    """
    from evals.version_items import shot_pool, version_shots

    if arm.shots == 0 or what.spec.data is None:
        return ()
    reader = reader_of(ws, ui, what)
    if arm.similar:
        from evals.similar import similar_shots

        pool = shot_pool(reader, what.spec)
        return similar_shots(pool, items, arm, labels_of_subject(ws, ui, what))
    return version_shots(reader, what.spec, arm, seed=0)


def zero_shot(what: Subject) -> Arm:
    """Return the plain prompt of `what`: what it is trained with and judged by."""
    from evals.prompts import arms_of

    return arms_of(what.spec.prompts)[0]


def measure(
    ws: Workspace,
    ui: Ui,
    what: Subject,
    *,
    base: str,
    items: Sequence[Item],
    split: Split,
    arm: Arm | None = None,
    tuned: Tuned | None = None,
) -> EvalResult:
    """Score `items` with the base `base`, or with an adapter on it; kept, never asked twice."""
    from evals.evaluate import evaluate
    from registry.adapters import adapter_path

    arm = arm or zero_shot(what)
    if tuned is not None and tuned.base is not None:
        base, tuned = tuned.base, None
    model = _called(ws, base) if tuned is None else f"adapter {tuned.adapter_id[:8]}"
    if tuned is not None and tuned.scale != 1.0:
        model += f" at {tuned.scale:g}"
    name = f"{what.name} · {split} · {arm.name} · {model}"
    with placed(what), ui.progress(name, total=len(items)) as bar:
        return evaluate(
            ws.store,
            ws.catalog,
            lambda: ws.models.engine(base, bar.update),
            subject=what.name,
            spec=what.spec,
            arm=arm,
            shots=shots_of(ws, ui, what, arm, items),
            items=items,
            split=split,
            base=ws.models.identity(base),
            adapter_id=tuned.adapter_id if tuned else None,
            adapter_path=adapter_path(ws.store, tuned.adapter_id) if tuned else None,
            scale=tuned.scale if tuned else 1.0,
            backend=ws.models.backend(base),
            labels=labels_of_subject(ws, ui, what),
            allow_rejects=_allowed_rejects(ws, what),
        )


def _called(ws: Workspace, base: str) -> str:
    return "base" if base == ws.spec.train.base else base


def _allowed_rejects(ws: Workspace, what: Subject) -> float:
    """Return the share of items that may be too long: what the spec allows in the dataset."""
    from evals.evaluate import ALLOWED_REJECTS

    data = what.spec.data
    return ws.spec.datasets[data].allow_rejects if data else ALLOWED_REJECTS
