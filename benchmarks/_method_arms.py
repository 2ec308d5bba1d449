"""The arms of bench-method: which rows each trains on, put together by the product's own parts.

What touches how rows are found is in `Ground`; the arms say only which of its ways they take.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from _method_figures import even, parts
from _method_pool import POOL, Fact

from pipeline.selection.budget import Budget, budget, first_budget, label_quota
from pipeline.selection.candidates import Candidates
from pipeline.selection.choose import choose_nearest, interleave
from pipeline.selection.gap_rows import READ_A_ROW, GapRows
from pipeline.selection.judge.free import FreeRows
from pipeline.selection.judge.mislabelled import FEWEST
from pipeline.selection.judge.readings import Readings, passage_of, passage_of_item
from pipeline.selection.judge.terms import Terms
from pipeline.selection.replay import MOST_SCORED, passing, pick, sources, supply_of
from pipeline.selection.selection import SelectedRow, answer_of, put_selection
from pipeline.workspace.stage import StageOutput, run_stage
from registry.datasets.versions.read import VersionReader
from registry.store.kinds import SelectionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pipeline.gap import GapReport
    from pipeline.selection.replay import ReplaySource
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from registry.datasets.versions.row import Row

VERSION = 4
"""Raised where an arm would choose other rows."""

POOLED = "pool"


@dataclass(frozen=True)
class Chosen:
    """A row, what it is trained for and why; `answer` is the base's own, where that is trained."""

    row: Row
    name: str
    reason: Any = "gap"
    score: float | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Choice:
    """What an arm has chosen: rows for gaps, rows to replay, and the budget they were chosen by."""

    gap: list[Chosen]
    replay: list[Chosen]
    budget: Budget


class Ground:
    """A pool and a base: all that an arm may choose from, read once it asks for it."""

    def __init__(self, ws: Resolved, ui: Ui, found: GapReport) -> None:
        """Read the candidates; nothing is asked of the base yet."""
        self.ws = ws
        self.ui = ui
        self.found = found
        self.rows = ws.spec.train.budget_rows
        self.guards = [one for one in sources(ws, found) if one.subject is not None]
        most = {one.dataset: MOST_SCORED for one in self.guards} | {POOLED: 2 * POOL}
        self.candidates = Candidates(ws, most)
        self.readings = Readings(ws, ui, found.base)
        self.gap_rows = GapRows(ws, ui, self.candidates, self.readings, found.base)
        self.rng = random.Random(f"arm/{ws.spec.train.seed}")

    @cached_property
    def failures(self) -> dict[str, Any]:
        """Gap -> the dev items that the base fails."""
        return {name: self.gap_rows.failures(name) for name in self.found.gaps()}

    @cached_property
    def free(self) -> FreeRows:
        """The pool's rows by the gap they are like."""
        return FreeRows(self.candidates, self.readings, self.failures)

    @cached_property
    def facts(self) -> dict[int, Fact]:
        """Return the pool's rows by what they are."""
        return facts_of(self.ws, {row.uid for row in self.pool()})

    def pool(self) -> list[Row]:
        """Return all rows of the pool that leak nothing and fit the base."""
        return self.candidates.fitting(self.candidates.rows(POOLED), POOLED)

    def like(self, name: str, wanted: int, without: Collection[int]) -> list[Row]:
        """Return rows like a gap, those that the product would choose `wanted` among."""
        judged = max(FEWEST, math.ceil(READ_A_ROW * wanted))
        most = None if self.candidates.labels_of(name) else judged
        return self.free.like(name, most, without)

    def drawn(self, name: str, wanted: int) -> list[Chosen]:
        """Return what the product chooses for a gap."""
        return [Chosen(row, name) for row in self.gap_rows.choose(name, wanted, self.free)]

    def nearest(self, name: str, wanted: int) -> list[Chosen]:
        """Return the rows nearest to failures, of those that the product would choose among.

        Every label has its floor, of the rows nearest to its own failures. What looks wrong stands
        among what was set aside once the product has chosen.
        """
        before = set(self.gap_rows.taken)
        self.drawn(name, wanted)
        doubted = {uid for rows in self.candidates.aside.values() for uid in rows}
        there = [one for one in self.like(name, wanted, before) if one.uid not in doubted]
        labels = self.candidates.labels_of(name)
        floors = label_quota(Counter(answer_of(one) for one in there), wanted) if labels else {}
        found: dict[int, Chosen] = {}
        for label in (*sorted(floors), None):
            left = [
                one for one in there if one.uid not in found and label in {None, answer_of(one)}
            ]
            mine = [one for one in self.failures[name] if label in {None, one.expected}]
            quota = wanted - len(found) if label is None else floors[label]
            for row, near in _near(left, mine or self.failures[name], quota):
                found[row.uid] = Chosen(row, name, "gap", near)
        self.gap_rows.taken = before | set(found)
        return list(found.values())

    def replayed(self, source: ReplaySource, wanted: int, taken: Collection[int]) -> list[Chosen]:
        """Return rows of a guard that the base gets right, with its own answers."""
        assert source.subject is not None
        there, tokens = passing(self.ws, self.ui, self.candidates, source.subject, wanted, taken)
        self.readings.tokens["replay"] += tokens
        picked = pick(there, wanted, (), None, None)
        return [
            Chosen(one.passing.row, source.name, "replay", one.near, one.passing.answer)
            for one in picked
        ]


def _near(rows: Sequence[Row], items: Sequence[Any], quota: int) -> list[tuple[Row, float]]:
    """Return the rows nearest to items, each with how near it is."""
    texts = [passage_of(row).text for row in rows]
    asked = [passage_of_item(item).text for item in items]
    terms = Terms.of([*texts, *asked])
    picks = choose_nearest(terms.vectors(texts), terms.vectors(asked), quota)
    return [(rows[one.position], one.score) for one in picks]


def _random(ground: Ground) -> Choice:
    rows = ground.rng.sample(ground.pool(), ground.rows)
    return Choice([Chosen(row, POOLED) for row in rows], [], Budget({POOLED: ground.rows}, {}))


def _balanced(ground: Ground) -> Choice:
    """Take the rows of each gap by what they are: as many of each, labels of a choice too."""
    names = list(ground.found.gaps())
    shares = dict(zip(names, parts(ground.rows, len(names)), strict=True))
    gap: list[Chosen] = []
    for name, wanted in shares.items():
        facts = ground.facts
        mine = [row for row in ground.pool() if _is_of(facts[row.uid], name)]
        ground.rng.shuffle(mine)
        labels = ground.candidates.labels_of(name)
        taken = even(mine, [answer_of(row) if labels else "" for row in mine], wanted)
        gap = interleave(gap, [Chosen(row, name) for row in taken])
    return Choice(gap, [], Budget(shares, {}))


def _is_of(fact: Fact, name: str) -> bool:
    return fact.task == name and fact.kind in {"gap", "wrong"}


def _gap_only(ground: Ground) -> Choice:
    """Draw among all rows that are like any gap."""
    like = [
        Chosen(row, name)
        for name in ground.found.gaps()
        for row in ground.like(name, ground.rows, ())
    ]
    drawn = ground.rng.sample(like, min(ground.rows, len(like)))
    counts = {name: sum(one.name == name for one in drawn) for name in ground.found.gaps()}
    return Choice(drawn, [], Budget(counts, {}))


def _by_gap(rows: Mapping[str, int], way: Callable[[str, int], list[Chosen]]) -> list[Chosen]:
    chosen: list[Chosen] = []
    for name, wanted in rows.items():
        chosen = interleave(chosen, way(name, wanted))
    return chosen


def _random_in_gap(ground: Ground) -> Choice:
    shares = budget(ground.found.gaps(), ground.rows)
    return Choice(_by_gap(shares, ground.drawn), [], Budget(shares, {}))


def _nearest(ground: Ground) -> Choice:
    shares = budget(ground.found.gaps(), ground.rows)
    return Choice(_by_gap(shares, ground.nearest), [], Budget(shares, {}))


def _replay(ground: Ground) -> Choice:
    """Draw as the product does, and replay of guards alone a fifth of all; no rows of the pool."""
    chat = ground.ws.models.chat(ground.found.base)
    there = {
        one.name: supply_of(ground.found, one, ground.candidates, chat) for one in ground.guards
    }
    shared = first_budget(ground.found.gaps(), there, ground.rows, ground.ws.spec.train.replay)
    gap = _by_gap(shared.gap, ground.drawn)
    replayed: list[Chosen] = []
    for source in ground.guards:
        wanted = shared.replay.get(source.name, 0)
        if wanted:
            rows = ground.replayed(source, wanted, ground.gap_rows.taken)
            replayed = interleave(replayed, rows)
    return Choice(gap, replayed, shared)


COMPOSED: dict[str, Callable[[Ground], Choice]] = {
    "random": _random,
    "balanced": _balanced,
    "gap_only": _gap_only,
    "random_in_gap": _random_in_gap,
    "nearest": _nearest,
    "replay": _replay,
}
"""Arm -> how its rows are chosen, where `select` doesn't."""

SELECTED: dict[str, dict[str, Any]] = {
    "self_replay": {},
    "kl": {"kl": 0.5},
    "own_answers": {"own_answers": 4},
    "shipped": {},
    "mended": {},
}
"""Arm -> what its `train:` has beside the spec's, where `select` chooses the rows."""

ARMS = (*COMPOSED, *SELECTED)


def composed(ws: Resolved, ui: Ui, found: GapReport, arm: str) -> str:
    """Return the id of the selection of an arm that `select` doesn't make; made once."""
    train = ws.spec.train
    inputs = {
        "bench": arm,
        "gap": found.gap_id,
        "versions": dict(ws.versions),
        "budget_rows": train.budget_rows,
        "replay": train.replay,
        "seed": train.seed,
    }
    parents = [Parent(found.gap_id, "gap"), Parent(ws.versions[POOLED], "dataset")]

    def work(ctx: StageContext) -> StageOutput:
        ground = Ground(ws, ctx.ui, found)
        choice = COMPOSED[arm](ground)
        rows = _rows(interleave(choice.gap, choice.replay))
        meta = SelectionMeta(
            base=found.base,
            round=0,
            rows=len(rows),
            replay_rows=len(choice.replay),
            budget=dict(choice.budget.gap),
            replay=dict(choice.budget.replay),
            set_aside={kind: len(one) for kind, one in ground.candidates.aside.items()},
            deciding_tokens=dict(ground.readings.tokens),
        )
        made = put_selection(
            ws.store,
            rows,
            ground.candidates.all_rejects(),
            base_digest=ws.models.identity(found.base).digest,
            parents=[Parent(ctx.run_id, "run"), *parents],
            meta=meta,
        )
        return StageOutput({"rows": len(rows)}, [("selection", made)])

    done = run_stage(ws, ui, "select", inputs, work, version=VERSION, parents=parents)
    return done.outputs["selection"]


def changed(ws: Resolved, **train: Any) -> Resolved:
    """Return the workspace with other values in `train:`; its models stay loaded."""
    spec = ws.spec.model_copy(
        update={
            "train": type(ws.spec.train).model_validate({**ws.spec.train.model_dump(), **train})
        }
    )
    return replace(ws, spec=spec)


def facts_of(ws: Resolved, uids: Collection[int]) -> dict[int, Fact]:
    """Return what rows of the pool are; those of other datasets are left out."""
    lines = [Fact(*one) for one in json.loads((ws.root / "facts.json").read_text("utf-8"))]
    reader = VersionReader(ws.store, ws.versions[POOLED], POOLED)
    return {row.uid: lines[row.source_line - 1] for row in reader.rows(set(uids), {"train"})}


def _rows(chosen: Sequence[Chosen]) -> list[SelectedRow]:
    return [
        SelectedRow(c.row.uid, c.row.row_hash, c.name, c.reason, c.score, rank, c.answer)
        for rank, c in enumerate(chosen)
    ]
