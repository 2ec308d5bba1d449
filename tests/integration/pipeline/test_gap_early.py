"""`gap --early` asks no more where the verdict is clear, and nothing is ever asked twice."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from evals.engine.journal import Journal
from evals.verdicts.anytime import EarlyRule
from pipeline.gap import GapReport, gap
from pipeline.workspace.stage import WouldRunError
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.store.kinds import EvalMeta, RunMeta
from tests.support import tiny_models
from tests.support.called import forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evals.verdicts.stats import Scores

pytestmark = pytest.mark.slow

ITEMS = 160
SPEC = """
bases: {tiny: {model: base}, other: {model: base, dtype: bf16}}
datasets:
  mood: {path: {train: train.jsonl, dev: mood.jsonl, test: test.jsonl}}
  close: {path: {dev: close.jsonl, test: test.jsonl}}
  word: {path: {dev: word.jsonl, test: test.jsonl}}
capabilities:
  mood: {data: mood, answer: choice, goal: 0.95, labels: [up, down],
         prompts: {zero_shot: "Mood? {input}", few_shot: [1]}}
  close: {data: close, answer: choice, goal: 0.5, margin: 0.0, labels: [up, down]}
guards:
  word: {data: word, answer: choice, labels: [up, down], max_drop: 0.5}
train: {base: tiny, pool: [mood]}
"""


def _write(root: Path, name: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(2000)]
    lines = (
        {"input": " ".join(rng.sample(words, 6)), "output": ("up", "down")[number % 2]}
        for number in range(count)
    )
    (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@contextmanager
def asked(before: Counter[str] | None = None) -> Iterator[Counter[str]]:
    """Count what a model answered, by evaluation and request; on with what was `before`."""
    counted: Counter[str] = Counter() if before is None else before
    add = Journal.add

    def count(self: Journal, key: str, answer: Any) -> None:
        counted[f"{self.path.name} {key}"] += 1
        add(self, key, answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "add", count)
        yield counted


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    root = tmp_path_factory.mktemp("early")
    tiny_models.save(root / "base", "llama")
    for seed, name in enumerate(("mood", "close", "word", "train", "test")):
        _write(root, name, ITEMS if seed < 3 else 24, seed)
    (root / "gapmend.yaml").write_text(SPEC)
    return OpenWorkspace.open(root)


def test_a_clear_verdict_saves_items_and_the_rest_is_asked_later(
    ws: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ui, settled = Ui(as_json=True), EarlyRule.settled

    def stopped(_rule: EarlyRule, _scores: Scores) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(EarlyRule, "settled", stopped)
    with asked() as requests, pytest.raises(KeyboardInterrupt):
        gap(ws, ui, early=True)
    assert sum(requests.values()) == 2 * 32  # a label each; between two looks

    monkeypatch.setattr(EarlyRule, "settled", settled)
    with asked(requests):
        found = gap(ws, ui, early=True)
    mood, close = found.findings
    assert (mood.verdict, close.verdict) == ("tune", "inconclusive")
    assert mood.base_of == ITEMS
    assert 32 <= mood.base.n < ITEMS / 2
    prompt, half_b = mood.best_prompt_interval, mood.best_prompt_of
    assert prompt is not None
    assert half_b is not None
    assert 32 <= prompt.n < half_b
    assert (close.base.n, close.base_of, found.guards["word"].n) == (ITEMS, None, ITEMS)
    items = mood.base.n + 2 * (ITEMS - half_b) + prompt.n + 2 * ITEMS  # two prompts on half A
    assert sum(requests.values()) == 2 * items
    assert len(ws.catalog.committed(EvalMeta)) == 4  # what was asked whole

    # The loop doesn't take it for the gap, and asks what is missing.
    with pytest.raises(WouldRunError, match="gap would run: has not run yet"):
        gap(replace(ws, dry=True), ui)
    other = gap(ws, ui, "other", early=True)
    _command_line_says_it(ws, found, other)
    with asked(requests):
        whole = gap(ws, ui)
        assert gap(ws, ui, early=True).gap_id == whole.gap_id  # all is there: nothing to save
    assert (whole.findings[0].base.n, whole.findings[0].base_of) == (ITEMS, None)
    assert [one.verdict for one in whole.findings] == ["tune", "inconclusive"]
    assert sum(requests.values()) == 2 * (3 * ITEMS + 2 * (ITEMS - half_b) + half_b)
    assert set(requests.values()) == {1}
    assert Counter(run.meta.stage for run in ws.catalog.committed(RunMeta))["gap-early"] == 2


def _command_line_says_it(ws: OpenWorkspace, found: GapReport, other: GapReport) -> None:
    told = forked("gap", "--early", "--base", "tiny,other", "-C", ws.root)
    assert told.code == 0, told.err
    said = " ".join(told.out.split())
    assert "bases" in said
    for report in (found, other):
        n = report.findings[0].base.n
        assert f"mood: ended after {n} of {ITEMS} items: the verdict was clear" in said
    as_json = forked("gap", "--early", "--json", "-C", ws.root).json()
    (mood, close) = as_json["findings"]
    assert (mood["base_of"], close["base_of"]) == (ITEMS, None)
    assert f"] after {mood['base']['n']} of {ITEMS} items is below the goal 0.95" in mood["reason"]
