"""What a run will take, stage by stage, before it starts: an estimate from samples of the rows.

Tokens are those of sampled items and rows, as they are asked and trained, times how many there are.
Time is tokens by rates: those of earlier runs of the same base in this workspace, else the
machine's, measured for a moment. Right within a factor of about two; what may not come to pass
(other prompts, rounds of mending) is counted as if it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.outlook.own import Rows, drawn, own_text_length, rows_of, with_own
from pipeline.outlook.prompts import Asked, labels_in, shared
from pipeline.outlook.training import MEASURED, BaseOutline
from pipeline.spec import pool
from pipeline.spec.subjects import subjects
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipeline.outlook.findings import Outlook
    from pipeline.outlook.training import LearntRates
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.workspace import OpenWorkspace

_SAMPLE = 16  # items or rows that are turned into tokens
_COPIES = 3  # of an adapter, with its checkpoints


@dataclass(frozen=True)
class StageCost:
    """What a stage is expected to take.

    Attributes:
        scored: tokens that go through the model to be scored or compared.
        trained: tokens that it is trained on, over all epochs.
        seconds: about.
        memory: bytes at its peak, the base's weights included.
        disk: bytes that it writes.
    """

    scored: int = 0
    trained: int = 0
    seconds: float = 0.0
    memory: int = 0
    disk: int = 0

    def __add__(self, other: StageCost) -> StageCost:
        """Both, one after the other."""
        return StageCost(
            self.scored + other.scored,
            self.trained + other.trained,
            self.seconds + other.seconds,
            max(self.memory, other.memory),
            self.disk + other.disk,
        )

    def times(self, count: int) -> StageCost:
        """The same, so many times."""
        return StageCost(
            self.scored * count,
            self.trained * count,
            self.seconds * count,
            self.memory,
            self.disk * count,
        )


@dataclass(frozen=True)
class RunCost:
    """What each stage is expected to take, and where the rates are from."""

    stages: Mapping[str, StageCost]
    rates: str


@dataclass(frozen=True)
class _Items:
    """What asking a subject takes: items by split, and the mean tokens of one.

    `tokens` are those of its own, `whole` with what all items begin with, which goes through the
    model once. `shown` are those of one that is an example: with its own answer, not every label.
    """

    what: Subject
    items: Mapping[str, int]
    tokens: float
    whole: float
    shown: float

    def asked(self, split: str) -> float:
        return self.items[split] * self.tokens


def run_cost(ws: OpenWorkspace, seen: Outlook) -> RunCost:
    """Estimate what each stage takes; the base's weights are not read.

    Raises:
        UserError: the base, or no row that was sampled of the pool can be trained on.
    """
    from pipeline.selection.judge.own_text import texts_asked

    outline = BaseOutline.of(ws)
    learnt = outline.learnt(ws)
    asked = [_items(ws, what, seen) for what in subjects(ws.spec)]
    taught = _taught(ws, seen)
    rows = _budget(ws, seen, taught)
    length = own_text_length(ws) if rows.own else 0.0
    trained = outline.training(ws, seen, rows.gap + rows.replayed, learnt)
    trained = with_own(trained, ws.spec.train, rows, length)

    def scoring(tokens: float, tuned: float = 0.0, plain: float = 0.0) -> StageCost:
        """`tuned` of them with the adapter on, `plain` of them only compared."""
        seconds = outline.scoring_seconds(tokens, learnt, tuned * trained.lora, plain)
        return StageCost(round(tokens), 0, seconds, outline.weights)

    dev, test = (sum(one.asked(split) for one in asked) for split in ("dev", "test"))
    select = scoring(_deciding(ws, rows, asked, taught))
    own_text = scoring(texts_asked(rows.own) * length)  # made once
    train = StageCost(
        trained.again, trained.tokens, trained.seconds, trained.memory, _COPIES * trained.adapter
    )
    compared = sum(_compared(one) for one in asked)
    forget = scoring(dev + compared, dev + compared / 2, compared)
    files = [one.path.stat().st_size for found in seen.files.values() for one in found.files]
    stages = {
        "ingest": StageCost(disk=sum(files)),
        "gap": scoring(dev + sum(_other_prompts(one) for one in asked)),
        "select": select + own_text,
        "train": train,
        "forget": forget,
        "mend": (select + train + forget).times(ws.spec.mend.rounds),
        "promote": scoring(2 * test, test),
        "merge": StageCost(memory=outline.weights, disk=outline.weights),
    }
    return RunCost(stages, _said(learnt))


def _items(ws: OpenWorkspace, what: Subject, seen: Outlook) -> _Items:
    most = what.spec.limit
    items = {s: min(n, n if most is None else most) for s, n in seen.items[what.name].items()}
    some = _sampled(ws, what, seen)
    whole = _mean([one.taken for one in some])
    own = whole - shared([one.ids for one in some])
    return _Items(what, items, own, whole, _mean([one.shown for one in some]))


class _Sampled(NamedTuple):
    """An item's tokens, asked and shown as an example, and those of its prompt."""

    taken: int
    shown: int
    ids: Sequence[int]


def _sampled(ws: OpenWorkspace, what: Subject, seen: Outlook) -> list[_Sampled]:
    """Return what some items take."""
    from evals.tasks.capability import items_from_rows

    if what.spec.data is None:
        from evals.tasks.installed import documents

        chat = ws.models.chat(ws.spec.train.base)
        texts = [doc.text for doc in documents(str(what.spec.lm_eval), ws.root)[:_SAMPLE]]
        found = [list(chat.tokenizer(text, verbose=False)["input_ids"]) for text in texts]
        return [_Sampled(len(ids), len(ids), ids) for ids in found]
    survey = seen.surveys[what.spec.data]
    rows = [*survey.some.get("dev", ()), *survey.some.get("train", ())][:_SAMPLE]
    asked = Asked(ws, what, labels_in(what, survey))
    made = []
    for row in rows:
        try:
            (item,) = items_from_rows([row], what.spec, whole=True)
            made.append(_Sampled(asked.taken(item), asked.shown(item), asked.ids(item)))
        except UserError:  # check names it; here it is one of a sample
            continue
    return made


def _other_prompts(one: _Items) -> float:
    """Return the tokens of every other prompt on half of dev, and of the longest on the other.

    Examples that all items share go through the model once.
    """
    from evals.tasks.prompts import arms_of

    arms = arms_of(one.what.spec.prompts)[1:] if one.what.role == "capability" else ()
    tokens = [one.tokens + (arm.shots * one.shown if arm.similar else 0) for arm in arms]
    return one.items["dev"] / 2 * (sum(tokens) + max(tokens, default=0))


def _compared(one: _Items) -> float:
    """Return the tokens of comparing base and adapter along the answers to some dev items."""
    from evals.scoring.divergence import MOST_ITEMS

    return 2 * min(MOST_ITEMS, one.items["dev"]) * one.whole


def _taught(ws: OpenWorkspace, seen: Outlook) -> set[str]:
    """Return the capabilities that rows of the pool can teach."""
    left = pool.untaught(ws.spec, {name: one.rows for name, one in seen.surveys.items()})
    return {name for name in ws.spec.capabilities if name not in left}


def _budget(ws: OpenWorkspace, seen: Outlook, taught: Collection[str]) -> Rows:
    """Return how many rows will be trained on, as far as the pool has them."""
    from pipeline.selection.replay import own_text_rows

    train = ws.spec.train
    data = {ws.spec.capabilities[name].data for name in taught}
    names = [n for n in pool.pool_of(ws.spec) if n in data or n in pool.free_datasets(ws.spec)]
    there = sum(seen.surveys[name].rows.trainable(train.objective) for name in names)
    return rows_of(train, there, own_text_rows(ws.spec, None))


def _deciding(
    ws: OpenWorkspace, rows: Rows, asked: Sequence[_Items], taught: Collection[str]
) -> float:
    """Return the tokens that `select` reads and writes.

    Answers to rows for gaps that are no choice, the base's own ones to them, rows asked for replay.
    """
    from pipeline.selection.gap_rows import READ_A_ROW
    from pipeline.selection.judge.own_right import is_generated

    gaps = [one for one in asked if one.what.name in taught]
    read = _mean([0.0 if one.what.spec.answer == "choice" else one.tokens for one in gaps])
    written = {one.what.name: one.tokens if is_generated(one.what.spec) else 0.0 for one in gaps}
    replayed = _mean([one.tokens for one in asked if one.what.role == "guard"])
    return (
        READ_A_ROW * rows.gap * read
        + drawn(ws.spec.train, rows.gap, written)
        + 2 * rows.replayed * replayed
    )


def _mean(values: Sequence[Any]) -> float:
    return sum(values) / len(values) if values else 0.0


def _said(learnt: LearntRates) -> str:
    known = [n for n, rate in (("scoring", learnt.scored), ("training", learnt.trained)) if rate]
    if not known:
        return f"at rates measured on this machine for {MEASURED:.1f} s"
    first = f"{' and '.join(known)} at the rates of earlier runs here"
    return first if len(known) > 1 else f"{first}, the rest at rates measured for {MEASURED:.1f} s"
