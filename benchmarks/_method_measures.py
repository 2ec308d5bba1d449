"""What an arm of bench-method came to: scores on test, what was lost, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _method_arms import facts_of

from evals.tasks.capability import GuardSpec
from pipeline.measure.changes import divergence_of
from pipeline.measure.measure import TunedModel, items_of, measure
from pipeline.selection.replay import PASSES
from pipeline.selection.selection import read_selection
from pipeline.selection.validation import training_set
from pipeline.spec.subjects import Subject, subjects
from pipeline.training.examples.encode import encode_rows
from registry.store.kinds import SelectionMeta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.scoring.evaluate import EvalResult
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui

PROMPTS = "alpaca"
NEW_TOKENS = 32


def tokens_of(ws: Resolved, ui: Ui, selection_id: str) -> int:
    """Return the tokens of a selection's rows: of one pass over them."""
    rows: Any = training_set(ws, ui, selection_id).rows
    encoded = encode_rows(
        ws.models.get(ws.spec.train.base), rows, allow_rejects=ws.spec.train.allow_rejects
    )
    return sum(row.tokens for row in encoded.rows)


def scores(ws: Resolved, ui: Ui, adapter_id: str) -> dict[str, Any]:
    """Ask every test item of base and tuned model; a 0 or 1 for each, in the order of the hashes.

    And how far the tuned model's words are from the base's on prompts that nothing measures.
    """
    tuned = TunedModel(adapter_id)
    base = ws.spec.train.base
    found: dict[str, Any] = {"capabilities": {}, "replayed": {}, "witnesses": {}}
    for what in subjects(ws.spec):
        items = items_of(ws, what, "test")
        before, after = (
            measure(ws, ui, what, base=base, items=items, split="test", tuned=one)
            for one in (None, tuned)
        )
        one: dict[str, Any] = {"base": bits(before), "tuned": bits(after)}
        if what.role == "capability":
            goal = getattr(what.spec, "goal", 0.0)
            one |= {"mean": after.mean, "goal": goal, "reached": after.mean >= goal}
            found["capabilities"][what.name] = one
        else:
            group = "witnesses" if what.name in ws.spec.witnesses else "replayed"
            found[group][what.name] = one
    return found | {"kl": _kl(ws, ui, tuned)}


def bits(result: EvalResult) -> str:
    """Return a 1 for each item that is right and a 0 for each other."""
    samples = sorted(result.samples, key=lambda sample: (sample.row_hash, sample.row_uid))
    return "".join("1" if sample.score >= PASSES else "0" for sample in samples)


def chosen(ws: Resolved, selection_id: str, deciding: Mapping[str, int] | None) -> dict[str, Any]:
    """Return how many rows a selection has, which of them are wrong, and what deciding took.

    `deciding` is of the run that chose them; without it, of the first that chose the same.
    """
    rows = read_selection(ws.store, selection_id)
    gap = [row.row_uid for row in rows if row.reason == "gap"]
    facts = facts_of(ws, gap)
    meta = ws.catalog.manifest(selection_id, SelectionMeta).meta
    kinds = [fact.kind for fact in facts.values()]
    deciding = meta.deciding_tokens if deciding is None else dict(deciding)
    return {
        "rows": len(rows),
        "gap_rows": len(gap),
        "budget": meta.budget,
        "replay": meta.replay,
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "wrong_share": kinds.count("wrong") / max(1, len(gap)),
        "deciding": deciding,
        "deciding_tokens": sum(deciding.values()),
        "set_aside": meta.set_aside,
    }


def trained(ws: Resolved, adapters: Sequence[str]) -> dict[str, int]:
    """Return the tokens that runs took, one for each adapter: of the last, and of all."""
    tokens = [
        int(ws.catalog.manifest(one).meta.as_json()["tokens"]) for one in dict.fromkeys(adapters)
    ]
    return {"tokens": tokens[-1], "all_tokens": sum(tokens), "runs": len(tokens)}


def _kl(ws: Resolved, ui: Ui, tuned: TunedModel) -> float | None:
    spec = GuardSpec(data=PROMPTS, answer="contains", max_new_tokens=NEW_TOKENS)
    what = Subject(PROMPTS, "guard", spec)
    base = ws.spec.train.base
    items = items_of(ws, what, "dev")
    before = measure(ws, ui, what, base=base, items=items, split="dev")
    return divergence_of(ws, ui, what, base=base, items=items, before=before, tuned=tuned)
