"""select: which rows are trained on, decided by the gap; and by what was lost, when mending.

The budget is divided over the capabilities whose verdict is `tune`, by the root of their gaps.
Inside one, rows are drawn: of its own dataset, as many of each label, then of free datasets, as far
as they are like what it fails; none that looks wrong. Replay rows, with the base's own answers, are
spread evenly among them.
Nothing of dev or test can be chosen, whatever dataset or lm-eval task it is of. How a selection is
put together is in `assemble`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.gap import dev_inputs, gap
from pipeline.ingest import resolve
from pipeline.measure.held_items import lm_eval_tasks
from pipeline.selection.assemble import Assembly, MendChange, SelectionPart
from pipeline.selection.candidates import pool_of
from pipeline.selection.judge import own_right
from pipeline.selection.judge.own_text import decided_by
from pipeline.selection.replay import own_text_rows
from pipeline.spec.subjects import measured_datasets
from pipeline.workspace.stage import run_stage
from registry.errors import DataError, GateRefusedError
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.gap import GapReport
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

__all__ = ["MendChange", "SelectReport", "select"]

STAGE = "select"
VERSION = 6


@dataclass(frozen=True)
class SelectReport:
    """What was selected and why."""

    selection_id: str
    base: str
    round: int
    rows: int
    replay_rows: int
    budget: dict[str, int]
    replay: dict[str, int]
    parts: tuple[SelectionPart, ...]
    near_duplicates: int  # passed over
    leaks: dict[str, int]  # why -> rows excluded, for being near dev or test
    rejects: int  # rows too long for the base
    missing: dict[str, int]  # name -> rows of its budget that the pool did not have
    short_of: dict[str, str]  # name -> what there is no more of, in words
    set_aside: dict[str, int]  # why -> rows kept out for what they say
    deciding_tokens: dict[str, int]  # what for -> tokens that the base read and wrote to decide
    run_id: str
    cached: bool
    seconds: float
    own_answers: dict[str, dict[str, int]] = field(default_factory=dict)  # gap -> target -> rows
    untaught: dict[str, str] = field(default_factory=dict)  # what no row teaches, left out -> why


def select(ws: OpenWorkspace, ui: Ui, change: MendChange | None = None) -> SelectReport:
    """Choose the rows that the gap asks for, or those of a mending round.

    Raises:
        GateRefusedError: no capability has the verdict `tune`: nothing should be trained.
        UserError: the pool has no row for a capability, or too many rows don't fit the base.
    """
    resolved = resolve(ws, ui)
    found = gap(resolved, ui)
    if not found.gaps() and found.untaught:
        raise nothing_taught(found.untaught)
    if not found.gaps():
        verdicts = ", ".join(f"{f.capability}: {f.verdict}" for f in found.findings)
        message = f"nothing to train: no capability has a gap that is real ({verdicts})"
        raise GateRefusedError(message)
    inputs, parents = _inputs(resolved, found, change)
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: Assembly(resolved, ctx, found, change).work(parents),
        version=VERSION,
        parents=parents,
        config=ws.spec.train.model_dump(mode="json"),
    )
    selection_id = outcome.outputs["selection"]
    return outcome.report(SelectReport, selection_id=selection_id, untaught=found.untaught)


def nothing_taught(untaught: Mapping[str, str]) -> DataError:
    """Return the error of a pool that teaches none of these capabilities (name -> why)."""
    why = "; ".join(f"{name}: {reason}" for name, reason in untaught.items())
    return DataError(
        f"no row of the pool can be trained on ({why})",
        where="train.pool",
        expected="rows in train of a capability's dataset, or of one that nothing measures",
        fix="add rows, move some to train, or name more datasets in train.pool",
    )


def _inputs(
    ws: Resolved, found: GapReport, change: MendChange | None
) -> tuple[dict[str, Any], list[Parent]]:
    inputs, parents = dev_inputs(ws, found.base)
    pool = {name: ws.versions[name] for name in pool_of(ws)}
    train = ws.spec.train
    inputs |= {
        "gap": found.gap_id,
        "pool": pool,
        "budget_rows": train.budget_rows,
        "replay": train.replay,
        "allow_rejects": train.allow_rejects,
        "change": asdict(change) if change else None,
    }
    if rows := own_text_rows(ws.spec, change.budget if change else None):
        inputs["own_text"] = decided_by(ws, found.base, rows) | {"rows": rows}
    if train.own_answers:
        inputs["own_answers"] = [own_right.VERSION, train.own_answers]
    if unseen := ws.spec.witnesses:
        inputs["witnesses"] = sorted(unseen)
    if train.objective != "sft":  # which other rows fit than by default
        inputs["objective"] = train.objective
    if held := _also_held_out(ws):
        inputs["held_out"] = held
    known = {parent.id for parent in parents}
    parents += [Parent(found.gap_id, "gap")]
    parents += [Parent(version, "dataset") for version in pool.values() if version not in known]
    if change:
        parents.append(Parent(change.after.adapter_id, "adapter"))
        parents.append(Parent(change.selection, "selection"))
    return inputs, parents


def _also_held_out(ws: Resolved) -> dict[str, str]:
    """Return what is held out beside the subjects' own datasets, where there is anything."""
    measured = measured_datasets(ws.spec)
    others = [name for name in ws.spec.datasets if name not in measured]
    found = {name: ws.versions[name] for name in others}
    return found | {name: f"lm_eval:{task}" for name, task in lm_eval_tasks(ws).items()}
