"""reproduce: train an adapter again from its lineage, and compare what comes out, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.workspace.stage import environment, hardware
from registry.errors import ModelError, StoreRequestError
from registry.store.kinds import ReproductionMeta, RunMeta
from registry.store.locks import rows_stay
from registry.store.objects import Parent, Store

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.spec.train import TrainSpec
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.store.manifest import Manifest


_ANY_ROWS = 10**9


@dataclass(frozen=True)
class ReproduceReport:
    """An adapter, and the one that the same rows, settings and seed gave now.

    Attributes:
        same: the ids are equal: configuration and weights, byte for byte.
        apart: module -> relative distance of the deltas, the furthest first; empty when `same`.
        changed: what of the environment or the machine differs from when it was trained: name ->
            (then, now). On another machine the last bits may differ.
    """

    adapter_id: str
    again: str
    same: bool
    apart: dict[str, float]
    changed: dict[str, tuple[Any, Any]]
    record_id: str


def reproduce(ws: OpenWorkspace, ui: Ui, adapter_id: str) -> ReproduceReport:
    """Train again from the record of the run that made an adapter.

    Raises:
        UserError: it was made elsewhere, rows that it was trained on were erased, or its base is
            not in the spec as it was.
    """
    from registry.datasets.versions.erased import why_not_reproducible
    from registry.models.adapters import adapter_path, publish
    from registry.models.changed import publish_changed
    from registry.models.files import holds_changed

    run = _run_of(ws, adapter_id)
    there = adapter_path(ws.store, adapter_id)
    selection = str(run.meta.inputs["selection"])
    if why := why_not_reproducible(ws.catalog, selection):
        raise ModelError(f"adapter {adapter_id[:12]} can't be trained again as it was: {why}")
    base = _base_named(ws, str(run.meta.inputs["base"]))
    with rows_stay(ws.state, ws.catalog.wait_s), ws.store.draft() as scratch:
        made = _train(ws, ui, run, selection, base, scratch / "work")
        put = publish_changed if holds_changed(made) else publish
        ref = put(
            Store(scratch / "store"),
            made,
            base=ws.models.identity(base),
            tokenizer=ws.models.chat(base).tokenizer,
            meta={},
            parents=(),
        )
        again = ref.id
        apart = {} if again == adapter_id else _apart(there, ref.path)
    changed = _changed(run.meta)
    record = ws.store.put(
        "reproduction",
        None,
        identity={"adapter": adapter_id, "again": again, "environment": environment()},
        parents=[Parent(adapter_id, "adapter"), Parent(run.id, "run")],
        meta=ReproductionMeta(same=again == adapter_id, changed=changed),
    )
    ws.catalog.commit([record])
    return ReproduceReport(adapter_id, again, again == adapter_id, apart, changed, record.id)


def _run_of(ws: OpenWorkspace, adapter_id: str) -> Manifest[RunMeta]:
    manifest = ws.catalog.manifest(adapter_id)
    for parent in manifest.parents:
        if parent.role == "run":
            run = ws.catalog.manifest(parent.id, RunMeta)
            if run.meta.stage == "train":
                return run
    raise StoreRequestError(
        f"adapter {adapter_id[:12]} was not trained here",
        expected="one that `gapmend train` or `mend` made",
    )


def _base_named(ws: OpenWorkspace, digest: str) -> str:
    for name in ws.spec.bases:
        if ws.models.identity(name).digest == digest:
            return name
    raise ModelError(
        "the base that it was trained on is not in the spec as it was",
        where="bases",
        expected="the same weights, tokenizer, template and dtype",
    )


def settings_of(run: RunMeta, base: str) -> TrainSpec:
    """Return the settings that a run trained by, defaults of its time among them."""
    from pipeline.spec.train import TrainSpec

    then: dict[str, Any] = {}
    if "batch_rows" not in run.config:
        # Batches were laid by their tokens alone, and the rate was the method's for every width.
        rate = run.inputs["train"]["learning_rate"]
        then = {"batch_rows": _ANY_ROWS, "min_steps": 1, "learning_rate": rate}
    return TrainSpec.model_validate({**run.config, **then, "base": base})


def _train(
    ws: OpenWorkspace, ui: Ui, run: Manifest[RunMeta], selection: str, base: str, workdir: Path
) -> Path:
    from pipeline.ingest import resolve
    from pipeline.selection.validation import training_set
    from pipeline.training.fit import fit

    spec = settings_of(run.meta, base)
    by_spec = resolve(ws, ui).with_spec(ws.spec.model_copy(update={"train": spec}))
    given = training_set(by_spec, ui, selection)
    workdir.mkdir()
    with ui.progress(f"reproduce · {base}") as bar:
        fitted = fit(
            ws.models.get(base),
            given.rows,
            spec,
            workdir,
            watch=given.watch,
            on_step=lambda step: bar.update(step.step, step.steps),
        )
    return fitted.adapter_dir


def _apart(then: Path, now: Path) -> dict[str, float]:
    from registry.models.changed import changed_apart
    from registry.models.distance import differences
    from registry.models.files import holds_changed, read_adapter_config

    if holds_changed(then):
        return changed_apart(then, now)
    found = differences(then, read_adapter_config(then), now, read_adapter_config(now))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _changed(meta: RunMeta) -> dict[str, tuple[Any, Any]]:
    then = {**meta.environment, **meta.hardware}
    now = {**environment(), **hardware()}
    return {
        key: (then.get(key), now.get(key))
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    }
