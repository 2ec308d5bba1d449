"""An account of an adapter, made up: two trainings, a guard that was lost and filled in again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evals.verdicts.forgetting import GuardFinding, SubjectChange
from evals.verdicts.gap import ClosedFinding, GapFinding
from evals.verdicts.stats import Interval
from pipeline.measure.rounds import Round
from pipeline.pages.account import Account, Measured, Spent, Training, VersionUsed
from registry.lineage.adapter_facts import AdapterBasics
from registry.lineage.graph import Edge, Lineage, Node
from registry.store.kinds import MergeMeta, PartRows, PromotionMeta, SelectionMeta

FIRST, SECOND = "a" * 64, "b" * 64


def finding(name: str, mean: float, verdict: Any, prompt: float | None = None) -> GapFinding:
    return GapFinding(
        capability=name,
        goal=0.8,
        margin=0.02,
        base=around(mean),
        gap=0.8 - mean,
        gap_low=0.75 - mean,
        gap_high=0.85 - mean,
        best_prompt=None if prompt is None else "few_shot_5",
        best_prompt_interval=None if prompt is None else around(prompt),
        prompt_tokens=300.0,
        base_prompt_tokens=50.0,
        verdict=verdict,
        p_value=0.0,
        p_holm=0.0,
        items_to_settle=700 if verdict == "inconclusive" else None,
        reason="",
    )


def around(mean: float, n: int = 100) -> Interval:
    return Interval(mean, max(0.0, mean - 0.05), min(1.0, mean + 0.05), n)


def measured(split: str, after: float, *, lost: int, verdict: Any) -> Measured:
    difference = Interval(after - 0.9, after - 0.95, after - 0.85, 100)
    kept = GuardFinding(
        guard="colours",
        n=100,
        before=0.9,
        after=after,
        lost=lost,
        gained=1,
        lost_uids=(),
        gained_uids=(),
        difference=difference,
        max_drop=0.03,
        p_midp=0.5,
        p_bh=0.5,
        verdict=verdict,
        items_to_settle=None,
        accepted=False,
        reason="",
        witness=True,
    )
    closed = ClosedFinding(0.8, 0.02, around(0.9), "closed", None, "")
    change = SubjectChange(100, 0.9, after, lost, 1, difference, 0.25, 0.1, kl=0.5)
    return Measured("f" * 64, split, (kept,), {"moods": closed}, {"colours": change})


def training(number: int, adapter: str, found: Measured, **parts: int) -> Training:
    return Training(
        number=number,
        selection_id="c" * 64,
        chosen=SelectionMeta(
            base="tiny",
            round=number,
            rows=sum(parts.values()),
            replay_rows=0,
            budget={"moods": 40},
            parts=tuple(
                PartRows(capability=name, reason="gap" if name == "moods" else "mend", rows=rows)
                for name, rows in parts.items()
            ),
            set_aside={"mislabelled": 3},
            leaks={"13-gram": 2},
            deciding_tokens={"losses": 1000},
        ),
        near={"mend": (0.2, 0.4)} if number else {},
        adapter_id=adapter,
        weights={"method": "lora", "steps": 60, "tokens": 5000, "seconds": 12.0, "loss": 0.25},
        curves={"loss": ((1, 2.0), (2, 1.0)), "learning_rate": ((1, 0.1), (2, 0.0))},
        measured=found,
        mended=Round(
            number=number,
            adapter_id=adapter,
            selection_id="c" * 64,
            rows=40,
            replay_rows=0,
            added={"colours": 20} if number else {},
            closed={"moods": "closed"},
            kept={"colours": "kept" if number else "forgotten"},
            lost={"colours": 0 if number else 60},
            gained={"colours": 1},
            scale=1.0 if number else None,
            curve={"1": {"colours": 0.3}, "0.5": {"colours": 0.8}} if not number else {},
        ),
    )


def account(**changed: Any) -> Account:
    """Return the account, with other values where they are given."""
    first = measured("dev", 0.3, lost=60, verdict="forgotten")
    second = measured("dev", 0.91, lost=0, verdict="kept")
    facts = AdapterBasics(
        adapter_id=SECOND,
        created_at="2026-01-02T03:04:05+00:00",
        base="tiny",
        revision=None,
        base_digest="d" * 64,
        config={},
        meta={},
        bytes=1000,
        aliases=("champion",),
        settings={"train.rank": 16},
    )
    gates = ({"name": "kept:colours", "passed": True, "reason": "colours is kept on test"},)
    whole = Account(
        base="tiny",
        gap_id="e" * 64,
        gap=(finding("moods", 0.4, "tune", 0.5), finding("forms", 0.2, "prompt", 0.95)),
        guards={},
        trainings=(
            training(0, FIRST, first, moods=40),
            training(1, SECOND, second, moods=40, colours=20),
        ),
        facts=facts,
        promotion=(
            "9" * 64,
            PromotionMeta(
                base="tiny",
                adapter_id=SECOND,
                promoted=True,
                split="test",
                tests={},
                gates=gates,
                looks=1,
            ),
        ),
        tested=measured("test", 0.9, lost=1, verdict="kept"),
        merge=(
            "8" * 64,
            MergeMeta(
                base="tiny", path="", dtype="fp32", bound=1e-4, scale=1.0, max_difference=2e-6
            ),
        ),
        versions=(VersionUsed("moods", "7" * 64, 300, 100, 100, 100, "CC0-1.0"),),
        spent=(Spent("gap", 1, 61.0), Spent("train", 2, 24.0)),
        lineage=Lineage(
            SECOND,
            "up",
            (
                Node(SECOND, "adapter", "tiny lora"),
                Node("c" * 64, "selection", "60 rows"),
                Node("1" * 64, "run", "train"),
                Node("7" * 64, "dataset_version", "moods"),
            ),
            (
                Edge(SECOND, "1" * 64, "run"),
                Edge("1" * 64, "c" * 64, "selection"),
                Edge("c" * 64, "7" * 64, "dataset"),
            ),
        ),
        hardware={"cores": 2},
        environment={"python": "3.11", "packages": {"torch": "2"}},
    )
    return replace(whole, **changed)
