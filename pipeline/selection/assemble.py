"""The assembly of a selection: rows near the failures, and replay, in the order of training."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.measure.measure import items_of, measure
from pipeline.selection.budget import Budget, first_budget
from pipeline.selection.candidates import Candidates, free_datasets, pool_of, text_of
from pipeline.selection.choose import centred, choose_nearest, interleave
from pipeline.selection.replay import MOST_SCORED, PASSES, passing, pick, sources
from pipeline.selection.selection import SelectedRow, put_selection, read_selection
from pipeline.spec.subjects import subject
from pipeline.workspace.stage import StageOutput
from registry.errors import DataError
from registry.store.hashing import digest
from registry.store.kept import SUFFIX, keep, kept
from registry.store.kinds import SelectionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.tasks.capability import Item
    from pipeline.gap import GapReport
    from pipeline.measure.measure import TunedModel
    from pipeline.selection.choose import Matrix
    from pipeline.selection.replay import ReplaySource
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from registry.datasets.versions.row import Row

_MOST_FAILURES = 300
_FEWEST_CANDIDATES = 2000
_CANDIDATES_A_ROW = 4  # candidates for each row of the budget: enough to choose among


@dataclass(frozen=True)
class MendChange:
    """What mending changes in a selection.

    Attributes:
        round: its number, from 1.
        budget: the new budget.
        selection: the last one: what it replayed is kept, what is new is chosen by what was lost.
        after: the adapter that lost it; what it still gets wrong has the first turns.
        lost: guard or capability -> uids of the dev items that it lost.
    """

    round: int
    budget: Budget
    selection: str
    after: TunedModel
    lost: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SelectionPart:
    """How many rows were chosen for one name and reason, and how near to its failures."""

    capability: str
    reason: str
    rows: int
    score: float | None  # mean cosine; None where rows were chosen for no failure


@dataclass(frozen=True, slots=True)
class _Chosen:
    row: Row
    capability: str
    reason: Any
    score: float | None
    answer: str | None = None


@dataclass
class Assembly:
    """One selection in the making."""

    ws: Resolved
    ctx: StageContext
    found: GapReport
    change: MendChange | None
    near_duplicates: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    evals: list[str] = field(default_factory=list)

    def work(self, parents: Sequence[Parent]) -> StageOutput:
        """Choose the rows and put the selection, made from `parents`, into the store."""
        replayable = sources(self.ws, self.found)
        candidates = Candidates(self.ws, self._most(replayable))
        budget = self._budget(candidates, replayable)
        gap_rows = [self._nearest(candidates, name, rows) for name, rows in budget.gap.items()]
        replayed = [
            self._replay(candidates, source, budget.replay.get(source.name, 0))
            for source in replayable
        ]
        candidates.check()
        chosen = interleave(_mixed(gap_rows), _mixed(replayed))
        rows = [
            SelectedRow(c.row.uid, c.row.row_hash, c.capability, c.reason, c.score, rank, c.answer)
            for rank, c in enumerate(chosen)
        ]
        result = self._result(rows, budget, candidates)
        made = put_selection(
            self.ws.store,
            rows,
            list(candidates.rejects.values()),
            base_digest=self.ws.models.identity(self.found.base).digest,
            parents=[
                Parent(self.ctx.run_id, "run"),
                *parents,
                *(Parent(eval_id, "eval") for eval_id in dict.fromkeys(self.evals)),
            ],
            meta=SelectionMeta.model_validate(result),
        )
        return StageOutput(result, [("selection", made)])

    def _most(self, replayable: Sequence[ReplaySource]) -> dict[str, int]:
        """Return how many rows of each dataset are looked at: the same in every round."""
        rows = _CANDIDATES_A_ROW * self.ws.spec.train.budget_rows
        most = dict.fromkeys(pool_of(self.ws), max(_FEWEST_CANDIDATES, rows))
        for source in replayable:
            most.setdefault(source.dataset, MOST_SCORED)
        return most

    def _budget(self, candidates: Candidates, replayable: Sequence[ReplaySource]) -> Budget:
        if self.change:
            return self.change.budget
        there = {source.name: len(candidates.rows(source.dataset)) for source in replayable}
        train = self.ws.spec.train
        return first_budget(self.found.gaps(), there, train.budget_rows, train.replay)

    def _nearest(self, candidates: Candidates, name: str, wanted: int) -> list[_Chosen]:
        """Choose rows for one capability: of its own dataset, then of free ones."""
        what = subject(self.ws.spec, name)
        failures = self._failures(name)
        own = what.spec.data if what.spec.data in pool_of(self.ws) else None
        chosen: list[_Chosen] = []
        for dataset in ([own] if own else []) + list(free_datasets(self.ws)):
            left = wanted - len(chosen)
            if left <= 0:
                break
            rows = candidates.fitting(candidates.rows(dataset), name)
            shared = what.spec.answer == "choice" and what.spec.labels_column is None
            by_label = shared and dataset == own
            chosen += self._turns(rows, failures, name, left, by_label=by_label)
        if not chosen and wanted:
            candidates.check()  # where all were refused, why says more
            raise DataError(
                f"no row of the pool can be trained on for '{name}'",
                where="train.pool",
                expected=f"rows for training in dataset '{what.spec.data}', or a chat dataset",
            )
        if len(chosen) < wanted:
            self.missing[name] = wanted - len(chosen)
        return chosen

    def _turns(
        self, rows: list[Row], failures: list[Item], name: str, wanted: int, *, by_label: bool
    ) -> list[_Chosen]:
        if not rows:
            return []
        pool, asked = centred(
            self._embed([text_of(row) for row in rows], f"{name} · rows"),
            self._embed([_text(item) for item in failures], f"{name} · failures"),
        )
        picks = choose_nearest(
            pool,
            asked,
            wanted,
            labels=[row.messages[-1].content if by_label else None for row in rows],
            wanted=[item.expected if by_label else None for item in failures],
        )
        self.near_duplicates += picks.near_duplicates
        return [_Chosen(rows[p.position], name, "gap", p.score) for p in picks.chosen]

    def _failures(self, name: str) -> list[Item]:
        """Return the dev items that are failed, those that the last adapter fails first."""
        what = subject(self.ws.spec, name)
        items = items_of(self.ws, what, "dev")
        failed: dict[int, None] = {}
        for tuned in (self.change.after, None) if self.change else (None,):
            result = measure(
                self.ws,
                self.ctx.ui,
                what,
                base=self.found.base,
                items=items,
                split="dev",
                tuned=tuned,
            )
            self.evals.append(result.id)
            wrong = [s for s in result.samples if s.score < PASSES]
            failed |= dict.fromkeys(s.row_uid for s in sorted(wrong, key=lambda s: s.row_hash))
        by_uid = {item.uid: item for item in items}
        return [by_uid[uid] for uid in failed][:_MOST_FAILURES]

    def _replay(self, candidates: Candidates, source: ReplaySource, wanted: int) -> list[_Chosen]:
        if wanted <= 0:
            return []
        there = passing(self.ws, self.ctx.ui, candidates, source, wanted)
        had = self._had(source)
        lost = self._lost(source)
        vectors = (
            self._embed([text_of(one.row) for one in there], f"{source.name} · rows")
            if lost and wanted > len(had)
            else None
        )
        nearest = self._embed([_text(item) for item in lost], source.name) if lost else None
        picked = pick(there, wanted, had, vectors, nearest)
        if len(picked) < wanted:
            self.missing[source.name] = wanted - len(picked)
        return [
            _Chosen(
                one.passing.row,
                source.name,
                had.get(one.passing.row.uid, "mend" if self.change else "replay"),
                one.near,
                one.passing.answer,
            )
            for one in picked
        ]

    def _had(self, source: ReplaySource) -> dict[int, Any]:
        """Return uid -> reason of what the last selection replayed for `source`."""
        if self.change is None:
            return {}
        last = read_selection(self.ws.store, self.change.selection)
        return {
            row.row_uid: row.reason
            for row in last
            if row.capability == source.name and row.reason != "gap"
        }

    def _lost(self, source: ReplaySource) -> list[Item]:
        if self.change is None or source.subject is None:
            return []
        lost = set(self.change.lost.get(source.name, ()))
        items = items_of(self.ws, source.subject, "dev")
        found = sorted((i for i in items if i.uid in lost), key=lambda item: item.row_hash)
        return found[:_MOST_FAILURES]

    def _embed(self, texts: list[str], label: str) -> Matrix:
        """Return the base's embeddings of `texts`, kept between rounds."""
        import numpy as np

        from evals.engine.embed import VERSION as EMBEDDING
        from evals.engine.embed import embed

        key = digest([EMBEDDING, self.ws.models.identity(self.found.base).digest, texts])
        path = self.ws.state / "cache" / "embeddings" / f"{key}{SUFFIX}"
        if (data := kept(path)) is not None:
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float32)
        loaded = self.ws.models.get(self.found.base)
        with self.ctx.ui.progress(f"{label} · embeddings", total=len(texts)) as bar:
            made = embed(loaded, texts, progress=bar.update)
        written = io.BytesIO()
        np.save(written, made, allow_pickle=False)
        keep(path, written.getvalue())
        return made

    def _result(
        self, rows: Sequence[SelectedRow], budget: Budget, candidates: Candidates
    ) -> dict[str, Any]:
        return {
            "base": self.found.base,
            "round": self.change.round if self.change else 0,
            "rows": len(rows),
            "replay_rows": sum(row.reason != "gap" for row in rows),
            "budget": dict(budget.gap),
            "replay": dict(budget.replay),
            "parts": [asdict(part) for part in _parts(rows)],
            "near_duplicates": self.near_duplicates,
            "leaks": {why: count for why, count in candidates.leaks.items() if count},
            "rejects": len(candidates.rejects),
            "missing": self.missing,
        }


def _text(item: Item) -> str:
    return "\n".join(
        [*(turn.content for turn in item.history), item.fields["input"], item.expected]
    )


def _mixed(groups: Sequence[list[_Chosen]]) -> list[_Chosen]:
    mixed: list[_Chosen] = []
    for group in groups:
        mixed = interleave(mixed, group)
    return mixed


def _parts(rows: Sequence[SelectedRow]) -> list[SelectionPart]:
    counts = Counter((row.capability, row.reason) for row in rows)
    parts = []
    for (capability, reason), count in counts.items():
        mine = [r for r in rows if (r.capability, r.reason) == (capability, reason)]
        scores = [row.score for row in mine if row.score is not None]
        mean = sum(scores) / len(scores) if scores else None
        parts.append(SelectionPart(capability, reason, count, mean))
    return parts
