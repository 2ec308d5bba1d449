"""A base's own text: what it says to plain instructions and to nothing, as rows to be replayed.

It stands for all that no guard asks, and for a guard without rows of its own (an lm-eval task).
Rows are made once for a base, by a stage of their own, as a dataset version like any other: each
has a uid, and where it came from. Instructions are answered greedily; to an empty turn the base's
own distribution is drawn from, with a seed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pipeline.ingest import alone
from pipeline.selection.judge.answers import UNUSABLE, why_unusable
from pipeline.selection.judge.readings import Readings
from pipeline.spec.pool import OWN_TEXT
from pipeline.workspace.stage import StageOutput, find_outcome, run_stage, stage_key
from registry.chat.chat import TurnRefusedError
from registry.chat.form import answer_form
from registry.chat.tokens import TextTokens
from registry.datasets.spec import DatasetSpec, SplitSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.load import LoadedModel

VERSION = 1

_EMPTY_EACH = 3
"""Of so many texts, one is drawn after an empty turn."""

_FEWEST, _TO_SPARE = 24, 1.5
_MOST = 1536


@dataclass(frozen=True)
class OwnText:
    """What a base's own text came to; `version` is None where none of it can be replayed."""

    version: str | None
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Said:
    question: str
    text: str


@lru_cache(maxsize=1)
def instructions() -> tuple[str, ...]:
    """Return the instructions that come with gapmend, in an order that mixes their kinds."""
    text = files("pipeline.selection.judge").joinpath("instructions.txt").read_text("utf-8")
    return tuple(sorted(text.splitlines(), key=lambda line: hashlib.sha256(line.encode()).digest()))


def questions(count: int) -> list[str]:
    """Return what a base is asked for `count` texts; a larger count begins with the same."""
    left = iter(instructions())
    return [
        "" if place % _EMPTY_EACH == _EMPTY_EACH - 1 else next(left, "") for place in range(count)
    ]


def texts_asked(wanted: int) -> int:
    """Return how many texts are asked for `wanted` rows: 24 times a power of two, at most 1,536.

    Steps, so that a few rows more in a later round find the same texts again.
    """
    asked = _FEWEST
    while asked < _TO_SPARE * wanted and asked < _MOST:
        asked *= 2
    return asked


def decided_by(ws: OpenWorkspace, base: str, wanted: int) -> dict[str, Any]:
    """Return what decides the rows: the base, how it is spoken to, what computes it, and asked."""
    from evals.engine.limits import ENGINE_VERSION
    from registry.models.license import license_of_base

    chat = ws.models.chat(base)
    form = chat.context([_user("?")])  # as the spec wants it spoken to
    found: dict[str, Any] = {
        "base": ws.models.identity(base).digest,
        "form": form,
        "engine": [ENGINE_VERSION, ws.models.backend(base)],
        "asked": questions(texts_asked(wanted)),
        "license": license_of_base(base, ws.spec.bases[base], ws.root),
    }
    # What most bases haven't got, and what was once left out of account: without it, nothing new.
    if led := TextTokens(chat.tokenizer).led(form):
        found["led"] = led
    if (end := answer_form(chat).end) not in chat.texts_of(chat.stops):
        found["end"] = end
    return found


def own_text(ws: Resolved, ui: Ui, base: str, wanted: int) -> OwnText:
    """Return the base's own text, made now or earlier, of about `wanted` rows and more."""
    inputs = decided_by(ws, base, wanted)
    done = find_outcome(ws, OWN_TEXT, stage_key(OWN_TEXT, inputs, version=VERSION))
    if done is None:
        readings = Readings(ws, ui, base)
        said, unusable = _usable(readings, inputs["asked"])
        kept = _trainable(ws.models.get(base), said)
        if len(kept) < len(said):
            unusable["that can't be trained on"] = len(said) - len(kept)
        label = f"{OWN_TEXT} of base {inputs['base'][:12]}"
        spec = DatasetSpec(
            path={"train": label}, license=inputs["license"], split=SplitSpec(dev=0, test=0)
        )
        facts = {"unusable": unusable, "tokens": readings.tokens.total()}
        with alone(ws):  # a text must not get two uids
            done = run_stage(
                ws,
                ui,
                OWN_TEXT,
                inputs,
                lambda ctx: _put(ws, ctx, kept, spec, facts),
                version=VERSION,
            )
    result = done.result
    asked, rows = len(inputs["asked"]), result["rows"]
    if rows < wanted:
        told = ", ".join(f"{count} {kind}" for kind, count in result["unusable"].items())
        many = f"{rows} of the {asked}" if rows else f"none of the {asked}"
        ui.log(f"{OWN_TEXT} of base '{base}': {many} texts can be replayed ({told})")
    return OwnText(done.outputs.get("version"), rows, result["tokens"])


def _usable(readings: Readings, asked: Sequence[str]) -> tuple[list[_Said], dict[str, int]]:
    """Return what the base said that may be replayed, and kind -> how many may not."""
    put = [question for question in asked if question]
    turns = [[_user(question)] for question in put]
    found = list(zip(put, readings.own_answers(turns, OWN_TEXT), strict=True))
    try:
        drawn = readings.drawn([_user("")], len(asked) - len(put), OWN_TEXT)
        found += [("", one) for one in drawn]
    except TurnRefusedError:  # a template that wants something asked
        found += [("", None)] * (len(asked) - len(put))
    kept, unusable = [], Counter[str]()
    for question, one in found:
        if one is None:
            unusable["that can't be asked"] += 1
            continue
        why_not = why_unusable(one.text, question, ended=one.ended)
        if why_not is None:
            kept.append(_Said(question, one.text.strip()))
        else:
            unusable[why_not] += 1
    order = [kind for kind in (*UNUSABLE, "that can't be asked") if kind in unusable]
    return kept, {kind: unusable[kind] for kind in order}


def _trainable(loaded: LoadedModel, said: Sequence[_Said]) -> list[_Said]:
    """Return what the base's template and context take as a row: its own words may be refused."""
    from pipeline.training.examples.encode import RowRejectedError, TrainingRow, encode_each

    rows = [
        TrainingRow(
            place,
            (_user(one.question), {"role": "assistant", "content": one.text}),
            None,
            OWN_TEXT,
        )
        for place, one in enumerate(said)
    ]
    outcomes = zip(said, encode_each(loaded, rows), strict=True)
    return [one for one, outcome in outcomes if not isinstance(outcome, RowRejectedError)]


def _user(said: str) -> dict[str, object]:
    return {"role": "user", "content": said}


def _put(
    ws: Resolved,
    ctx: StageContext,
    kept: Sequence[_Said],
    spec: DatasetSpec,
    facts: Mapping[str, Any],
) -> StageOutput:
    """Put the texts as a dataset version, all of it for training."""
    from registry.datasets.formats.content import Content, Message
    from registry.datasets.formats.format import Format
    from registry.datasets.formats.shapes import Shape
    from registry.datasets.sources.resolve import SourceFile, Sources
    from registry.datasets.versions.make import VersionRequest, make_version
    from registry.store.kinds import ErasureMeta, RowsMeta

    def read(parts: Mapping[str, Any]) -> Content:
        turns = Message("user", parts["question"]), Message("assistant", parts["text"])
        return Content("sft", turns)

    if not kept:
        return StageOutput({"rows": 0, **facts})
    path = ctx.workdir / "own-text.jsonl"
    lines = (json.dumps({"question": one.question, "text": one.text}) for one in kept)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    shape = Shape({"question": "question", "text": "text"}, ("question", "text"), read)
    (label,) = spec.places.values()
    sources = Sources((SourceFile(path, label, "train"),), Format(shape))
    there = ws.catalog.committed_of(RowsMeta, ErasureMeta)
    wanted = VersionRequest(
        OWN_TEXT,
        spec,
        sources,
        None,
        earlier=(),
        key=stage_key(OWN_TEXT, {"texts": [[one.question, one.text] for one in kept]}, version=1),
        rows=there["rows"],
        erasures=there["erasure"],
    )
    made = make_version(ws.store, ws.catalog, wanted, lambda _rows: None)
    *contents, version = made.written.objects
    rows = [(f"rows {number}", ref) for number, ref in enumerate(contents, 1)]
    places = [] if made.written.places is None else [("places", made.written.places)]
    return StageOutput({"rows": len(made.hashes), **facts}, [*rows, ("version", version), *places])
