"""The answers of a quantised GGUF file, beside those of the model that it was made of.

llama.cpp answers the dev items of every capability and guard that the adapter was measured on, in
the same way: what is generated greedily, a choice by the likelihood of its labels. Scores are kept
as any other, under the file's own digest.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from evals.verdicts.forgetting import GuardFinding, PairedScores, judge_guards
from evals.verdicts.stats import PairedItems
from pipeline.forget import MET_MAX_DROP
from pipeline.ingest import resolve
from pipeline.measure.measure import TunedModel, items_of, labels_of_subject, measure, zero_shot
from pipeline.spec.subjects import errors_at, measured_datasets, subjects
from pipeline.verbs.elsewhere.usage import base_in_spec
from registry.store.kinds import ForgettingMeta, WeightsMeta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.scoring.evaluate import EvalResult
    from evals.tasks.capability import Item
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.gguf.quantise import QuantProof
    from registry.models.base import BaseIdentity
    from registry.store.manifest import Manifest, Meta


@dataclass(frozen=True)
class Answers:
    """What one capability or guard came to in the file.

    Attributes:
        finding: lost and gained, with the paired test over all; a capability's largest drop is
            that of one that the base met.
        before: the evaluation of the adapter.
        after: the evaluation of the file.
    """

    finding: GuardFinding
    before: str
    after: str

    def as_json(self) -> dict[str, Any]:
        """Return it for a manifest; which items they are, the evaluations say."""
        told = asdict(self.finding)
        del told["lost_uids"], told["gained_uids"]
        return {**told, "before_eval": self.before, "after_eval": self.after}


def answers_of(
    ws: OpenWorkspace, ui: Ui, model: Manifest[Meta], file: Path, proof: QuantProof
) -> tuple[Answers, ...]:
    """Score a quantised file of `model` on dev, and pair it with what the adapter scored.

    Nothing where the adapter was not measured on dev, where the model is of several, or where its
    base is not in the spec as it was: there is nothing to compare with.
    """
    adapter, known = model.of(WeightsMeta).meta.adapter_id, base_in_spec(ws, model)
    if adapter is None or known is None:
        return ()
    measured = ws.catalog.find(
        ForgettingMeta, adapter=adapter, split="dev", scale=1.0, against=None
    )
    if measured is None:
        return ()
    resolved = resolve(ws, ui, measured_datasets(ws.spec))
    asked = [one for one in subjects(ws.spec) if one.name in measured.meta.changes]
    base, tuned = known.identity.name, TunedModel(adapter)
    items = {one.name: items_of(resolved, one, "dev") for one in asked}
    before = {
        one.name: measure(
            resolved, ui, one, base=base, items=items[one.name], split="dev", tuned=tuned
        )
        for one in asked
    }
    after = _scored(resolved, ui, asked, items, file, known.identity, proof)
    pairs = [_pairs(one, before[one.name], after[one.name]) for one in asked]
    findings = judge_guards(pairs)
    return tuple(
        Answers(finding, before[one.name].id, after[one.name].id)
        for one, finding in zip(asked, findings, strict=True)
    )


def _scored(
    ws: Resolved,
    ui: Ui,
    asked: Sequence[Subject],
    items: dict[str, list[Item]],
    file: Path,
    base: BaseIdentity,
    proof: QuantProof,
) -> dict[str, EvalResult]:
    """Ask the file; to whom it belongs is kept as a base of its own."""
    from evals.engine.llama_cpp import LlamaCppLM
    from evals.scoring.evaluate import evaluate
    from registry.store.hashing import digest, file_digest

    own = replace(base, name=file.stem, digest=digest({"gguf": file_digest(file)}))
    chat = ws.models.chat(base.name)
    ws.models.close()
    found = {}
    with closing(LlamaCppLM(file, chat, proof.context)) as engine:
        for one in asked:
            name = f"{one.name} · dev · {proof.dtype} by llama.cpp"
            with errors_at(one), ui.progress(name, total=len(items[one.name])) as bar:
                engine.progress = bar.update
                found[one.name] = evaluate(
                    ws.store,
                    ws.catalog,
                    engine,
                    subject=one.name,
                    spec=one.spec,
                    arm=zero_shot(one),
                    shots=(),
                    items=items[one.name],
                    split="dev",
                    base=own,
                    backend=proof.made_by,
                    labels=labels_of_subject(ws, one),
                    allow_rejects=1.0,  # a file's context may be shorter: what it answers counts
                )
    return found


def _pairs(one: Subject, before: EvalResult, after: EvalResult) -> PairedScores:
    """Pair the items that both answered."""
    later = {sample.row_uid: sample.score for sample in after.samples}
    both = [sample for sample in before.samples if sample.row_uid in later]
    pairs = PairedItems(
        before=tuple(sample.score for sample in both),
        after=tuple(later[sample.row_uid] for sample in both),
        clusters=tuple(sample.cluster for sample in both),
    )
    drop = getattr(one.spec, "max_drop", MET_MAX_DROP)
    return PairedScores(one.name, tuple(sample.row_uid for sample in both), pairs, drop)
