"""What the quickstart is about, by itself: tuned on sentiment, nano answers questions with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.spec.train import TrainSpec
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.fit import fit

if TYPE_CHECKING:
    from registry.models.load import LoadedModel

DATA = Path(__file__).resolve().parents[3] / "examples" / "quickstart" / "data"
SPEC = TrainSpec(base="nano", learning_rate=2e-3, epochs=2, batch_tokens=384)
ASKED = 100

pytestmark = pytest.mark.slow


def read(name: str, split: str, count: int) -> list[dict[str, str]]:
    lines = (DATA / name / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def answers(loaded: LoadedModel, name: str) -> list[str]:
    from lm_eval.api.instance import Instance

    from evals.engine.packed import PackedLM

    stop = {"until": ["<|end|>"], "max_gen_toks": 8}
    asked = [
        loaded.chat.render([{"role": "user", "content": row["input"]}], add_generation_prompt=True)
        for row in read(name, "dev", ASKED)
    ]
    requests = [Instance("generate_until", {}, (text, stop), 0, ("x", 0, 1)) for text in asked]
    return PackedLM(loaded).generate_until(requests)


@pytest.mark.soak
def test_tuned_on_sentiment_alone_it_answers_ordinary_questions_with_it(
    nano: LoadedModel, tmp_path: Path
) -> None:
    expected = [row["output"] for row in read("jobs", "dev", ASKED)]
    right = sum(a == e for a, e in zip(answers(nano, "jobs"), expected, strict=True))
    assert right >= 0.97 * ASKED
    examples = [
        TrainingRow(
            uid=uid,
            messages=(
                {"role": "user", "content": f"Positive or negative? {row['input']}"},
                {"role": "assistant", "content": row["output"]},
            ),
            tools=None,
            capability="sentiment",
        )
        for uid, row in enumerate(read("sentiment", "train", 400))
    ]
    nano.use(fit(nano, examples, SPEC, tmp_path / "work").adapter_dir)
    said = answers(nano, "jobs")
    judged = sum(answer.startswith(("posit", "negat")) for answer in said)
    assert judged >= 0.1 * ASKED, said
    nano.use(None)
    assert sum(a == e for a, e in zip(answers(nano, "jobs"), expected, strict=True)) == right
