"""The assembly of a selection: rows for the gaps, and replay, in the order of training."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.measure.measure import items_of
from pipeline.selection.budget import Budget, first_budget
from pipeline.selection.candidates import Candidates, free_datasets, pool_of
from pipeline.selection.choose import interleave
from pipeline.selection.gap_rows import MOST_FAILURES, GapRows
from pipeline.selection.judge.answers import UNUSABLE
from pipeline.selection.judge.free import FreeRows
from pipeline.selection.judge.own_right import own_right
from pipeline.selection.judge.own_text import OwnText, own_text
from pipeline.selection.judge.readings import Readings, passage_of, passage_of_item
from pipeline.selection.judge.terms import Terms
from pipeline.selection.replay import (
    MOST_SCORED,
    PassingRow,
    own_text_rows,
    passing,
    pick,
    sources,
    supply_of,
)
from pipeline.selection.selection import SelectedRow, put_selection, read_selection
from pipeline.spec.pool import OWN_TEXT
from pipeline.workspace.resolved import Resolved
from pipeline.workspace.stage import StageOutput
from registry.errors import ModelError
from registry.store.kinds import SelectionMeta, VersionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.tasks.capability import Item
    from pipeline.gap import GapReport
    from pipeline.measure.measure import TunedModel
    from pipeline.selection.replay import ReplaySource
    from pipeline.workspace.stage import StageContext
    from registry.datasets.versions.row import Row

_FEWEST_CANDIDATES = 2000
_FEWEST_FREE = 10_000  # of a free dataset, where nobody says which rows are for what
_CANDIDATES_A_ROW = 4  # candidates for each row of the budget: enough to choose among


@dataclass(frozen=True)
class MendChange:
    """What mending changes in a selection.

    Attributes:
        round: its number, from 1.
        budget: the new budget.
        selection: the last one: what it replayed is kept, what is new is chosen by what was lost.
        after: the adapter that lost it.
        lost: guard or capability -> uids of the dev items that it lost.
    """

    round: int
    budget: Budget
    selection: str
    after: TunedModel
    lost: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SelectionPart:
    """How many rows were chosen for one name and reason, and how near to what was lost."""

    capability: str
    reason: str
    rows: int
    score: float | None  # mean cosine; None where rows were chosen for no lost item


@dataclass(frozen=True, slots=True)
class _Chosen:
    row: Row
    capability: str
    reason: Any
    score: float | None
    answer: str | None = None
    cut: bool = False


class _Parts(NamedTuple):
    """What a selection is put together from; `free` only where rows of free datasets are wanted."""

    candidates: Candidates
    readings: Readings
    gaps: GapRows
    free: FreeRows | None


@dataclass
class Assembly:
    """One selection in the making."""

    ws: Resolved
    ctx: StageContext
    found: GapReport
    change: MendChange | None
    missing: dict[str, int] = field(default_factory=dict)
    short_of: dict[str, str] = field(default_factory=dict)
    own_answers: dict[str, dict[str, int]] = field(default_factory=dict)

    def work(self, parents: Sequence[Parent]) -> StageOutput:
        """Choose the rows and put the selection, made from `parents`, into the store."""
        replayable = sources(self.ws, self.found)
        said = self._own_text()
        most = self._most(replayable)
        rows_there = self._rows_in(most)
        with self.ctx.ui.progress("select · candidates", rows_there, "rows", brief=True) as bar:
            candidates = Candidates(self.ws, most, bar.advance)
        budget = self._budget(candidates, replayable)
        parts = self._parts(candidates, budget)
        if said.tokens:
            parts.readings.tokens[OWN_TEXT] = said.tokens
        gap_rows: list[list[_Chosen]] = []
        replayed: list[list[_Chosen]] = []
        count = len(budget.gap) + len(replayable)
        with self.ctx.ui.progress("select · rows", total=count, brief=True) as bar:
            for name, wanted in budget.gap.items():
                bar.note(name)
                gap_rows.append(self._for_gap(parts, name, wanted))
                bar.advance()
            taken = set(parts.gaps.taken)
            for source in replayable:
                bar.note(source.name)
                wanted = budget.replay.get(source.name, 0)
                replayed.append(self._replay(parts, source, wanted, taken))
                taken |= {one.row.uid for one in replayed[-1]}
                bar.advance()
        candidates.check()
        self._refuse_useless(candidates, budget, replayed)
        chosen = interleave(_mixed(gap_rows), _mixed(replayed))
        rows = [
            SelectedRow(
                *(c.row.uid, c.row.row_hash, c.capability, c.reason, c.score, rank, c.answer, c.cut)
            )
            for rank, c in enumerate(chosen)
        ]
        result = self._result(rows, budget, parts)
        made = put_selection(
            self.ws.store,
            rows,
            candidates.all_rejects(),
            base_digest=self.ws.models.identity(self.found.base).digest,
            parents=[
                Parent(self.ctx.run_id, "run"),
                *parents,
                *([] if said.version is None else [Parent(said.version, "dataset")]),
                *(Parent(eval_id, "eval") for eval_id in dict.fromkeys(parts.gaps.evals)),
            ],
            meta=SelectionMeta.model_validate(result),
        )
        return StageOutput(result, [("selection", made)])

    def _most(self, replayable: Sequence[ReplaySource]) -> dict[str, int]:
        """Return how many rows of each dataset are looked at: the same in every round."""
        rows = _CANDIDATES_A_ROW * self.ws.spec.train.budget_rows
        most = dict.fromkeys(pool_of(self.ws), max(_FEWEST_CANDIDATES, rows))
        most |= dict.fromkeys(free_datasets(self.ws), max(_FEWEST_FREE, rows))
        for source in replayable:
            if source.dataset in self.ws.versions:
                most.setdefault(source.dataset, MOST_SCORED)
        return most

    def _rows_in(self, most: Mapping[str, int]) -> int:
        """Return how many rows that is, as far as they are there."""
        splits = {
            name: self.ws.catalog.manifest(self.ws.versions[name], VersionMeta).meta.splits
            for name in most
        }
        return sum(min(cut, splits[name].get("train", 0)) for name, cut in most.items())

    def _own_text(self) -> OwnText:
        """Have the base's own text made, as far as it is wanted, and read it with the datasets."""
        wanted = own_text_rows(self.ws.spec, self.change.budget if self.change else None)
        if not wanted:
            return OwnText(None, 0, 0)
        said = own_text(self.ws, self.ctx.ui, self.found.base, wanted)
        if said.version is not None:
            self.ws = Resolved.of(self.ws, {**self.ws.versions, OWN_TEXT: said.version})
        return said

    def _budget(self, candidates: Candidates, replayable: Sequence[ReplaySource]) -> Budget:
        if self.change:
            return self.change.budget
        train = self.ws.spec.train
        chat = self.ws.models.chat(self.found.base)
        general = {
            source.name: own_text_rows(self.ws.spec, None)
            for source in replayable
            if source.name == OWN_TEXT
        }
        there = {
            source.name: supply_of(self.found, source, candidates, chat)
            for source in replayable
            if source.name not in general
        }
        for source in replayable:
            if source.name in general:
                continue
            if source.subject is None and not there[source.name].rows and train.replay:
                none = "no row of it has a question that can be asked, so that none is replayed"
                self.short_of[source.name] = none
        gaps = self.found.gaps()
        return first_budget(gaps, there, train.budget_rows, train.replay, general)

    def _parts(self, candidates: Candidates, budget: Budget) -> _Parts:
        readings = Readings(self.ws, self.ctx.ui, self.found.base)
        gaps = GapRows(self.ws, self.ctx.ui, candidates, readings, self.found.base)
        names = free_datasets(self.ws)
        short = [name for name, rows in budget.gap.items() if len(gaps.own(name)) < rows]
        free = None
        if names and (short or any(budget.replay.get(name) for name in names)):
            failures = {name: gaps.failures(name) for name in budget.gap}
            free = FreeRows(candidates, readings, failures)
        return _Parts(candidates, readings, gaps, free)

    def _for_gap(self, parts: _Parts, name: str, wanted: int) -> list[_Chosen]:
        rows = parts.gaps.choose(name, wanted, parts.free)
        own = self._own_answers(parts, name, rows)
        return [_Chosen(row, name, "gap", None, own.get(row.uid)) for row in rows]

    def _own_answers(self, parts: _Parts, name: str, rows: Sequence[Row]) -> Mapping[int, str]:
        """Return uid -> the base's own right answer, where these are wanted and there are some."""
        draws = self.ws.spec.train.own_answers
        if not draws or not rows:
            return {}
        found = own_right(self.ws, parts.readings, name, rows, draws)
        self.own_answers[name] = dict(found.counts)
        return found.answers

    def _replay(
        self, parts: _Parts, source: ReplaySource, wanted: int, taken: set[int]
    ) -> list[_Chosen]:
        if wanted <= 0:
            return []
        there = self._replayable(parts, source, wanted, taken)
        had = self._had(source)
        lost = self._lost(source)
        vectors = nearest = None
        if lost and wanted > len(had):
            texts = [passage_of(one.row).text for one in there]
            asked = [passage_of_item(item).text for item in lost]
            terms = Terms.of([*texts, *asked])
            vectors, nearest = terms.vectors(texts), terms.vectors(asked)
        picked = pick(there, wanted, had, vectors, nearest)
        if len(picked) < wanted:
            self.missing[source.name] = wanted - len(picked)
            self.short_of[source.name] = f"there are {len(picked)} that the base {_how(source)}"
        return [
            _Chosen(
                one.passing.row,
                source.name,
                had.get(one.passing.row.uid, "mend" if self.change else "replay"),
                one.near,
                one.passing.answer,
                one.passing.cut,
            )
            for one in picked
        ]

    def _replayable(
        self, parts: _Parts, source: ReplaySource, wanted: int, taken: set[int]
    ) -> list[PassingRow]:
        if source.name == OWN_TEXT:
            known = parts.candidates.rows(OWN_TEXT) if OWN_TEXT in self.ws.versions else []
            rows = [row for row in known if row.uid not in taken]
            return [PassingRow(row, None) for row in parts.candidates.fitting(rows, OWN_TEXT)]
        if source.subject is None:
            free = parts.free
            return free.answered(source.dataset, wanted, taken) if free else []
        there, tokens = passing(
            self.ws, self.ctx.ui, parts.candidates, source.subject, wanted, taken
        )
        parts.readings.tokens["replay"] += tokens
        return there

    def _refuse_useless(
        self, candidates: Candidates, budget: Budget, replayed: Sequence[list[_Chosen]]
    ) -> None:
        """Stop where replay is wanted and rests on a base whose own answers are all useless."""
        counts = {kind: len(candidates.aside.get(kind, ())) for kind in UNUSABLE}
        asked = sum(counts.values())
        if any(replayed) or not asked or not sum(budget.replay.values()):
            return
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        raise ModelError(
            f"none of the {asked} answers that the base gives by itself can be replayed: {told}",
            f"bases.{self.found.base}",
            "a base that answers, and ends",
            "take another base, name guards with data, or set train.replay: 0",
        )

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
        return found[:MOST_FAILURES]

    def _result(self, rows: Sequence[SelectedRow], budget: Budget, parts: _Parts) -> dict[str, Any]:
        candidates = parts.candidates
        return {
            "base": self.found.base,
            "round": self.change.round if self.change else 0,
            "rows": len(rows),
            "replay_rows": sum(row.reason != "gap" for row in rows),
            "budget": dict(budget.gap),
            "replay": dict(budget.replay),
            "parts": [asdict(part) for part in _parts(rows)],
            "near_duplicates": parts.gaps.near_duplicates,
            "leaks": {why: count for why, count in candidates.leaks.items() if count},
            "rejects": len(candidates.rejects),
            "missing": parts.gaps.missing | self.missing,
            "short_of": parts.gaps.short_of | self.short_of,
            "set_aside": {kind: len(aside) for kind, aside in candidates.aside.items()},
            "deciding_tokens": dict(parts.readings.tokens),
            **({"own_answers": self.own_answers} if self.own_answers else {}),
        }


def _how(source: ReplaySource) -> str:
    if source.subject:
        return "gets right"
    if source.name == OWN_TEXT:
        return "can be trained to say again"
    return "answers so that it can be replayed"


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
