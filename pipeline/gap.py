"""gap: measure what the base lacks, per capability, and whether a prompt already does it.

Every capability and guard is scored without examples on dev. Where the goal is not met, each other
prompt is scored on half A of dev, and the best of them judged on half B. Test is not looked at.

`early` ends a capability's score, and that on half B, where the verdict is clear. It is for a look:
what comes after a gap needs the base's answer to every item.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.scoring.results import chance_of, scores_of
from evals.tasks.capability import GuardSpec
from evals.verdicts.anytime import FINAL, RULE, Ended, rule_for
from evals.verdicts.gap import ArmScore, GapFinding, MeasuredCapability, half_of, judge_gaps
from evals.verdicts.looks import DEV
from evals.verdicts.stats import Interval, mean_interval
from pipeline.ingest import resolve
from pipeline.measure.measure import items_of, measure, zero_shot
from pipeline.measure.taught import untaught
from pipeline.spec.subjects import measured_datasets, subjects
from pipeline.workspace.stage import StageOutput, find_outcome, run_stage, stage_key
from registry.errors import DataError, UserError
from registry.store.kinds import GapMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from evals.scoring.evaluate import EvalResult
    from evals.tasks.capability import Item
    from evals.tasks.prompts import Arm
    from evals.verdicts.anytime import EarlyRule
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

STAGE = "gap"
EARLY = "gap-early"
VERSION = 4


@dataclass(frozen=True)
class GapReport:
    """What the base lacks, and what it must not lose."""

    base: str
    findings: tuple[GapFinding, ...]
    guards: dict[str, Interval]  # guard -> the base's score on dev
    gap_id: str
    run_id: str
    cached: bool
    seconds: float
    chance: dict[str, float] = field(default_factory=dict)  # guard -> the score of guessing
    untaught: dict[str, str] = field(default_factory=dict)  # with a gap that no row teaches -> why

    def verdict(self, capability: str) -> str:
        """Return the verdict on one capability."""
        return next(f.verdict for f in self.findings if f.capability == capability)

    def gaps(self) -> dict[str, float]:
        """Return capability -> gap, for those whose verdict is `tune` and that rows can teach."""
        wanted = [f for f in self.findings if f.verdict == "tune"]
        return {f.capability: f.gap for f in wanted if f.capability not in self.untaught}

    def at_chance(self) -> dict[str, str]:
        """Return each guard whose score may be that of guessing, with a line that says so."""
        found = {}
        for name, chance in self.chance.items():
            if (score := self.guards[name]).low <= chance:
                found[name] = (
                    f"the base scores {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}], and "
                    f"guessing {chance:.3f}: what it can't do it can't be seen to lose; choose "
                    "items that it can do, or another prompt or scorer"
                )
        return found


def gap(ws: OpenWorkspace, ui: Ui, base: str | None = None, *, early: bool = False) -> GapReport:
    """Measure a base (by default that of `train:`) on dev and judge every capability.

    With `early`, scores end where the verdict is clear, unless all was scored before.

    Raises:
        UserError: the spec has no such base.
    """
    base = ws.spec.train.base if base is None else base
    if base not in ws.spec.bases:
        known = ", ".join(ws.spec.bases)
        raise UserError(f"no base is called '{base}'", "--base", f"one of {known}")
    ws.models.backend(base)  # first: no data is read for one that isn't there
    resolved = resolve(ws, ui, measured_datasets(ws.spec))
    inputs, parents = dev_inputs(resolved, base)
    early = early and not find_outcome(ws, STAGE, stage_key(STAGE, inputs, version=VERSION))
    outcome = run_stage(
        ws,
        ui,
        EARLY if early else STAGE,
        inputs | ({"early": RULE} if early else {}),
        lambda ctx: _measure_gaps(resolved, ctx, base, parents, early=early),
        version=VERSION,
        parents=parents,
        config=inputs["subjects"],
    )
    report = outcome.report(GapReport, base=base, gap_id=outcome.outputs["gap"])
    if not report.gaps():
        return report
    tuned = {n: why for n, why in untaught(resolved).items() if report.verdict(n) == "tune"}
    return replace(report, untaught=tuned)


def dev_inputs(ws: Resolved, base: str) -> tuple[dict[str, Any], list[Parent]]:
    """Return what decides every score on dev: the base, each subject's spec, dataset and own code.

    And the backend, where it isn't gapmend's own.
    """
    from evals.scoring.plan import code_digest

    described: dict[str, Any] = {}
    parents: dict[str, Parent] = {}
    for what in subjects(ws.spec):
        version = ws.versions[what.spec.data] if what.spec.data else None
        described[what.name] = {
            "role": what.role,
            "spec": what.spec.model_dump(mode="json", exclude={"replay"}),  # decides no score
            "dataset_version": version,
        }
        if (code := code_digest(what.spec, ws.root)) is not None:
            described[what.name]["code"] = code
        if (named := getattr(what.spec, "lm_eval", None)) is not None:
            from evals.tasks.installed import documents_digest

            described[what.name]["documents"] = documents_digest(named, ws.root)
        if version:
            parents[version] = Parent(version, "dataset")
    inputs = {"base": ws.models.identity(base).digest, "subjects": described}
    if (backend := ws.models.backend(base)) is not None:
        inputs["backend"] = backend
    return inputs, list(parents.values())


def _measure_gaps(
    ws: Resolved, ctx: StageContext, base: str, parents: list[Parent], *, early: bool
) -> StageOutput:
    measured: list[MeasuredCapability] = []
    guards: dict[str, Interval] = {}
    chance: dict[str, float] = {}
    used: list[Parent] = list(parents)
    family = len(ws.spec.capabilities)
    level = FINAL if early else DEV
    for what in subjects(ws.spec):
        items = items_of(ws, what, "dev")
        rule = _rule(what, items, family) if early else None
        plain = measure(ws, ctx.ui, what, base=base, items=items, split="dev", until=rule)
        used += _evals(plain)
        if isinstance(what.spec, GuardSpec):
            guards[what.name] = mean_interval(scores_of(plain.samples))
            chance[what.name] = chance_of(plain.samples)
            continue
        one = MeasuredCapability(
            capability=what.name,
            goal=what.spec.goal,
            margin=what.spec.margin,
            base=scores_of(plain.samples),
            base_prompt_tokens=plain.prompt_tokens_mean,
            ended=_ended(plain, rule),
        )
        # Where the goal is met without another prompt, the question is answered.
        if one.base_interval(level).low < one.goal - one.margin:
            tried = _try_prompts(ws, ctx.ui, what, base, items, early=early)
            one = replace(one, arms=tried.arms, unfit=tried.unfit)
            used += tried.evals
        measured.append(one)
    findings = [asdict(finding) for finding in judge_gaps(measured, level)]
    result = {
        "base": base,
        "findings": findings,
        "guards": {name: asdict(interval) for name, interval in guards.items()},
        "chance": chance,
    }
    parts = [Parent(ctx.run_id, "run"), *used]
    made = ws.store.put(
        "gap",
        None,
        identity={"run": ctx.run_id},
        parents=parts,
        meta=GapMeta.model_validate(result),
    )
    return StageOutput(result, [("gap", made)])


def _rule(what: Subject, items: list[Item], family: int = 1) -> EarlyRule | None:
    """Return when the score of a capability may end; None for a guard, whose answers are kept."""
    if isinstance(what.spec, GuardSpec):
        return None
    clusters = [item.cluster for item in items]
    return rule_for(what.spec.goal, what.spec.margin, clusters, family=family)


def _ended(result: EvalResult, rule: EarlyRule | None) -> Ended | None:
    return Ended(rule, result.of) if rule and result.of else None


def _evals(*results: EvalResult | None) -> list[Parent]:
    """Return the objects of evaluations; one that ended early has none."""
    return [Parent(one.id, "eval") for one in results if one and not one.of]


class _TriedPrompts(NamedTuple):
    arms: tuple[ArmScore, ...]
    unfit: tuple[str, ...]
    evals: list[Parent]


def _try_prompts(
    ws: Resolved, ui: Ui, what: Subject, base: str, items: list[Item], *, early: bool
) -> _TriedPrompts:
    """Score every other prompt on half A, and the best of them on half B.

    A prompt that is too long for the base can't be used, and so doesn't stop the others.
    """
    from evals.tasks.prompts import arms_of

    half_a = [item for item in items if half_of(item.cluster) == "A"]
    half_b = [item for item in items if half_of(item.cluster) == "B"]
    arms: list[Arm] = [arm for arm in arms_of(what.spec.prompts) if arm != zero_shot(what)]
    if arms and not (half_a and half_b):
        raise DataError(
            f"{what.name}: prompts are chosen on one half of dev and judged on the other, and one "
            f"half has no items ({len(items)} in all)",
            expected="more items that are no near-duplicates of each other",
            fix="add rows to dev, or take few_shot and cot out of prompts",
        )
    on_a = {arm.name: _fitting(ws, ui, what, base, half_a, arm) for arm in arms}
    fit = {name: result for name, result in on_a.items() if result is not None}
    by_score = sorted(fit.values(), key=lambda r: (-r.mean, r.prompt_tokens_mean, r.arm))
    on_b: EvalResult | None = None
    rule = _rule(what, half_b) if early else None
    for best in by_score:  # the next best, should the best not fit half B
        arm = next(arm for arm in arms if arm.name == best.arm)
        on_b = _fitting(ws, ui, what, base, half_b, arm, rule)
        if on_b is not None:
            break
        del fit[best.arm]
    scored = tuple(
        ArmScore(
            arm=name,
            half_a=scores_of(result.samples),
            half_b=scores_of(on_b.samples if on_b and on_b.arm == name else ()),
            prompt_tokens=result.prompt_tokens_mean,
            ended=_ended(on_b, rule) if on_b and on_b.arm == name else None,
        )
        for name, result in fit.items()
    )
    unfit = tuple(name for name in on_a if name not in fit)
    return _TriedPrompts(scored, unfit, _evals(*fit.values(), on_b))


def _fitting(
    ws: Resolved,
    ui: Ui,
    what: Subject,
    base: str,
    items: list[Item],
    arm: Arm,
    until: EarlyRule | None = None,
) -> EvalResult | None:
    """Score a prompt; None where it is too long for the base."""
    from evals.scoring.evaluate import TooLongError

    try:
        return measure(ws, ui, what, base=base, items=items, split="dev", arm=arm, until=until)
    except TooLongError:
        return None
