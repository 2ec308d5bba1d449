"""A run's metrics as rows that SQL can ask for: the view `run_metrics`.

The rows are a Parquet file in an object of kind `metrics`, an output of the run beside its adapter.
Like any other output it counts once the run is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from registry.store.filenames import METRICS
from registry.store.hashing import file_digest
from registry.store.kinds import MetricsMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pipeline.training.record.metrics import StepMetrics
    from registry.store.objects import ObjectRef, Store

KIND = "metrics"


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One figure of a run.

    Attributes:
        step: the optimizer step that it was measured after, from 1.
        name: loss, learning_rate, tokens_per_second and so on.
        value: the figure.
        seconds: since the start of the run, without the time between a kill and going on.
    """

    step: int
    name: str
    value: float
    seconds: float


def step_values(step: StepMetrics) -> dict[str, float]:
    """The figures of an optimizer step, by the names that they have in SQL and in trackers."""
    measured = {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "grad_norm": step.grad_norm,
        "tokens": step.tokens,
        "trained_tokens": step.trained_tokens,
        "tokens_per_second": step.tokens / step.seconds,
        "validation_loss": step.validation_loss,
        "probe": step.probe,
    }
    return {name: float(value) for name, value in measured.items() if value is not None}


def measured_steps(steps: Sequence[StepMetrics]) -> list[MetricPoint]:
    """The figures of all optimizer steps of a run, which are given from the first, in order."""
    ends = accumulate(step.seconds for step in steps)
    return [
        MetricPoint(step.step, name, value, seconds)
        for step, seconds in zip(steps, ends, strict=True)
        for name, value in step_values(step).items()
    ]


def put_metrics(store: Store, figures: Iterable[MetricPoint], *, run_id: str) -> ObjectRef:
    """Put a run's figures in the store, for the run to name as an output; not committed.

    Args:
        store: where to.
        figures: in any order; at most one for a step and name.
        run_id: the run that measured them.

    Raises:
        ValueError: two figures of the same name at the same step.
        UserError: the disk is full.
    """
    ordered = sorted(figures, key=lambda one: (one.step, one.name))
    _refuse_doubles(ordered)
    with store.draft() as draft:
        _write(ordered, draft / METRICS)
        return store.put(
            KIND,
            draft,
            # Times differ from one attempt to the next: each attempt's figures are its own object.
            identity={"run": run_id, "sha256": file_digest(draft / METRICS)},
            parents=[Parent(run_id, "run")],
            meta=MetricsMeta(rows=len(ordered), steps=ordered[-1].step if ordered else 0),
        )


def _refuse_doubles(ordered: Sequence[MetricPoint]) -> None:
    for one, other in pairwise(ordered):
        if (one.step, one.name) == (other.step, other.name):
            raise ValueError(f"step {one.step} has two figures of the name {one.name}")


def _write(figures: Sequence[MetricPoint], path: Path) -> None:
    """Write `metrics.parquet` (columns as in views/parquet.sql)."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            ("step", pa.int64()),
            ("name", pa.string()),
            ("value", pa.float64()),
            ("seconds", pa.float64()),
        ]
    )
    columns = {name: [getattr(one, name) for one in figures] for name in schema.names}
    parquet.write_table(pa.table(columns, schema=schema), path, compression="zstd")
