"""The results of an evaluation, item by item: `samples.parquet` of an `eval` object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.verdicts.stats import PairedItems, Scores
from registry.errors import GapmendError
from registry.store.filenames import REJECTS, SAMPLES
from registry.store.read_back import read_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from evals.scoring.plan import ScoringPlan
    from registry.store.kinds import EvalMeta
    from registry.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Sample:
    """One item with its answer. `prompt` is the question as asked, without examples and template.

    `score` is between 0 and 1. `loglikelihoods` are those of the labels in their order, or the one
    of the expected text; None when the answer was generated. `prompt_tokens` counts everything
    that is sent, examples and template included.
    """

    row_uid: int
    row_hash: str
    cluster: int
    prompt: str
    expected: str
    answer: str
    score: float
    loglikelihoods: tuple[float, ...] | None
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class RejectedItem:
    """An item that could not be scored, and why."""

    row_uid: int
    row_hash: str
    source_file: str
    source_line: int
    base: str
    reason: str
    stage: str = "eval"


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation; `low` and `high` bound the mean at 95%.

    `id` is its object in the store. `cached`: it was there, and no model was asked. Where it ended
    early, `of` is how many items there were; then it has no object, and its answers are in the
    journal of the whole evaluation.
    """

    id: str
    subject: str
    split: str
    arm: str
    n: int
    mean: float
    low: float
    high: float
    prompt_tokens_mean: float
    samples: tuple[Sample, ...]
    rejects: tuple[RejectedItem, ...]
    cached: bool
    of: int | None = None


def paired(before: EvalResult, after: EvalResult) -> PairedItems:
    """Pair two evaluations of the same items, in the order of `before`.

    Raises:
        GapmendError: they are not of the same items.
    """
    later = {sample.row_uid: sample for sample in after.samples}
    if len(later) != before.n or any(s.row_uid not in later for s in before.samples):
        message = (
            f"{before.subject}: evaluations {before.id[:12]} and {after.id[:12]} differ in items"
        )
        raise GapmendError(message)
    return PairedItems(
        before=tuple(s.score for s in before.samples),
        after=tuple(later[s.row_uid].score for s in before.samples),
        clusters=tuple(s.cluster for s in before.samples),
    )


def scores_of(samples: Sequence[Sample]) -> Scores:
    """Return the scores and clusters of the samples, in order."""
    return Scores(tuple(s.score for s in samples), tuple(s.cluster for s in samples))


def chance_of(samples: Sequence[Sample]) -> float:
    """Return the mean score of guessing: one over the number of choices, 0 for other answers."""
    choices = [len(s.loglikelihoods or ()) for s in samples]
    return math.fsum(1 / n for n in choices if n > 1) / len(choices) if choices else 0.0


def mean_prompt_tokens(samples: Sequence[Sample]) -> float:
    """Return what a call costs on average, in tokens of the prompt."""
    return math.fsum(s.prompt_tokens for s in samples) / len(samples) if samples else 0.0


def write_results(folder: Path, samples: Sequence[Sample], rejects: Sequence[RejectedItem]) -> None:
    """Write the two Parquet files of an `eval` object; the second only if there are rejects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _samples_schema()
    columns = {name: [getattr(sample, name) for sample in samples] for name in schema.names}
    table = pa.Table.from_pydict(columns, schema=schema)
    pq.write_table(table, folder / SAMPLES, compression="zstd")
    if rejects:
        lines = pa.Table.from_pylist([asdict(reject) for reject in rejects], _rejects_schema())
        pq.write_table(lines, folder / REJECTS, compression="zstd")


def read_result(folder: Path, manifest: Manifest[EvalMeta]) -> EvalResult:
    """Read an `eval` object back, as the cached result that it is."""
    import pyarrow.parquet as pq

    rejects: list[dict[str, Any]] = []
    if (folder / REJECTS).is_file():
        rejects = pq.read_table(folder / REJECTS).to_pylist()
    known = {
        "id": manifest.id,
        "samples": pq.read_table(folder / SAMPLES).to_pylist(),
        "rejects": rejects,
        "cached": True,
    }
    return read_back(EvalResult, {**manifest.meta.as_json(), **known}, str(folder))


def _samples_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("row_uid", pa.int64()),
            ("row_hash", pa.string()),
            ("cluster", pa.int64()),
            ("prompt", pa.string()),
            ("expected", pa.string()),
            ("answer", pa.string()),
            ("score", pa.float64()),
            ("loglikelihoods", pa.list_(pa.float64())),
            ("prompt_tokens", pa.int64()),
        ]
    )


def _rejects_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("row_uid", pa.int64()),
            ("row_hash", pa.string()),
            ("source_file", pa.string()),
            ("source_line", pa.int64()),
            ("base", pa.string()),
            ("reason", pa.string()),
            ("stage", pa.string()),
        ]
    )


class ScoredItems(NamedTuple):
    """The samples in the order of the questions, and the questions that were too long."""

    samples: tuple[Sample, ...]
    rejects: tuple[RejectedItem, ...]


def rejects_of(
    plan: ScoringPlan, too_long: Mapping[int, int], context: int
) -> tuple[RejectedItem, ...]:
    """Return the questions at these positions as rejects, with the tokens that they need."""
    items = {position: plan.questions[position].item for position in sorted(too_long)}
    return tuple(
        RejectedItem(
            row_uid=item.uid,
            row_hash=item.row_hash,
            source_file=item.source_file,
            source_line=item.source_line,
            base=plan.answerer.base.name,
            reason=(
                f"prompt and answer take {too_long[position]} tokens, more than the base's "
                f"context of {context}"
            ),
        )
        for position, item in items.items()
    )
