"""The measurement of one subject (capability or guard) on one split, by one prompt and model.

Gap, select, forget, mend and promote all measure through `measure`, so that the same question is
never asked twice: every evaluation is kept under a key of all that decides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spec.subjects import errors_at
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.scoring.evaluate import EvalResult
    from evals.tasks.capability import Item
    from evals.tasks.prompts import Arm, Shots
    from evals.verdicts.anytime import EarlyRule
    from pipeline.spec.subjects import Split, Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.versions.read import VersionReader


@dataclass(frozen=True)
class TunedModel:
    """What is measured in the place of a base: an adapter on it, or another base by itself.

    Attributes:
        adapter_id: the adapter; empty for another base.
        scale: what its deltas are multiplied by (1 = as trained).
        base: the other base's name in the spec, such as a model that was merged.
    """

    adapter_id: str
    scale: float = 1.0
    base: str | None = None


def items_of(ws: Resolved, what: Subject, split: Split, most: int | None = None) -> list[Item]:
    """Return the items of `what` in `split`; of dev and test at most its `limit`, by hash.

    With `most`, only the first so many of them.
    """
    from evals.tasks.version_items import version_items

    installed = getattr(what.spec, "lm_eval", None)
    if installed is not None:
        from evals.tasks.installed import installed_items

        return installed_items(installed, ws.root, split, what.spec.limit)[:most]
    return version_items(reader_of(ws, what), what.spec, split, whole=split == "train", most=most)


def reader_of(ws: Resolved, what: Subject) -> VersionReader:
    """Return what reads the dataset of `what`.

    Raises:
        UserError: it brings its own items.
    """
    from registry.datasets.versions.read import VersionReader

    if what.spec.data is None:
        raise UserError(f"'{what.name}' has no dataset: it brings its own items")
    return VersionReader(ws.store, ws.versions[what.spec.data], what.spec.data)


def labels_of_subject(ws: Resolved, what: Subject) -> tuple[str, ...]:
    """Return the labels of a choice: those of the spec, else every answer in its dataset."""
    from evals.tasks.version_items import version_labels

    if what.spec.answer != "choice":
        return ()
    if isinstance(what.spec.labels, tuple):
        return what.spec.labels
    return version_labels(reader_of(ws, what), what.spec, ws.root)


def shots_of(ws: Resolved, what: Subject, arm: Arm, items: Sequence[Item]) -> Shots:
    """Return the examples that `arm` shows: from train, by hash for all, or each item its own.

    An lm-eval task brings its own.
    """
    from evals.tasks.version_items import shot_pool, version_shots

    if arm.shots == 0 or what.spec.data is None:
        return ()
    reader = reader_of(ws, what)
    if arm.similar:
        from evals.tasks.similar import similar_shots

        return similar_shots(shot_pool(reader, what.spec), items, arm, labels_of_subject(ws, what))
    return version_shots(reader, what.spec, arm, seed=0)


def zero_shot(what: Subject) -> Arm:
    """Return the plain prompt of `what`: what it is trained with and judged by."""
    from evals.tasks.prompts import arms_of

    return arms_of(what.spec.prompts)[0]


def measure(  # noqa: PLR0913 - each of them decides the result
    ws: Resolved,
    ui: Ui,
    what: Subject,
    *,
    base: str,
    items: Sequence[Item],
    split: Split,
    arm: Arm | None = None,
    tuned: TunedModel | None = None,
    until: EarlyRule | None = None,
) -> EvalResult:
    """Score `items` with the base `base`, or with an adapter on it; kept, never asked twice.

    With `until` it ends where the verdict is clear; who asks all then asks what is missing.
    """
    from evals.scoring.evaluate import evaluate
    from registry.models.adapters import adapter_path

    arm = arm or zero_shot(what)
    if tuned is not None and tuned.base is not None:
        base, tuned = tuned.base, None
    model = _called(ws, base) if tuned is None else f"adapter {tuned.adapter_id[:8]}"
    if tuned is not None and tuned.scale != 1.0:
        model += f" at {tuned.scale:g}"
    name = f"{what.name} · {split} · {arm.name} · {model}"
    with errors_at(what), ui.progress(name, len(items), "answers") as bar:
        return evaluate(
            ws.store,
            ws.catalog,
            lambda: ws.models.engine(base, bar.update),
            subject=what.name,
            spec=what.spec,
            arm=arm,
            shots=shots_of(ws, what, arm, items),
            items=items,
            split=split,
            base=ws.models.identity(base),
            adapter_id=tuned.adapter_id if tuned else None,
            adapter_path=adapter_path(ws.store, tuned.adapter_id) if tuned else None,
            scale=tuned.scale if tuned else 1.0,
            backend=ws.models.backend(base),
            labels=labels_of_subject(ws, what),
            allow_rejects=_allowed_rejects(ws, what),
            until=until,
        )


def _called(ws: OpenWorkspace, base: str) -> str:
    return "base" if base == ws.spec.train.base else base


def _allowed_rejects(ws: OpenWorkspace, what: Subject) -> float:
    """Return the share of items that may be too long: what the spec allows in the dataset."""
    from evals.scoring.evaluate import ALLOWED_REJECTS

    data = what.spec.data
    return ws.spec.datasets[data].allow_rejects if data else ALLOWED_REJECTS
