"""lm-eval asks a served adapter by `local-chat-completions`, and gets the answers scored before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.called import forked
from tests.support.served import serving

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = 40
# What colours, a guard of the quickstart, was answered by the champion on test, and asked as.
SCORED = f"""
SELECT prompt, answer, expected FROM eval_samples
WHERE subject = 'colours' AND split = 'test' AND arm = 'zero_shot'
  AND adapter_id = (SELECT target FROM aliases WHERE name = 'champion' AND "current")
ORDER BY row_uid LIMIT {ITEMS}
"""


def answers(address: str, items: list[dict[str, str]], folder: Path) -> tuple[list[str], float]:
    """What lm-eval gets as answers to these questions, and its own score of them."""
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask

    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    task = ConfigurableTask(
        config={
            "task": "colours",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder)},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{expected}}",
            "generation_kwargs": {"until": ["<|end|>"], "max_gen_toks": 8, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        }
    )
    told = f"base_url={address}/v1/chat/completions,model=champion,num_concurrent=8,max_retries=1"
    done: dict[str, Any] = simple_evaluate(
        model="local-chat-completions",
        model_args=told,
        tasks=[task],
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(done["samples"]["colours"], key=lambda one: int(one["doc_id"]))
    return [one["resps"][0][0] for one in samples], done["results"]["colours"]["exact_match,none"]


@pytest.mark.soak
def test_lm_eval_gets_the_answers_that_were_scored(quickstart: Path, tmp_path: Path) -> None:
    scored = forked("sql", SCORED, "-C", quickstart, "--json").json()
    assert len(scored) == ITEMS
    items = [{"question": one["prompt"], "expected": one["expected"]} for one in scored]
    with serving(quickstart) as served:
        got, score = answers(served.address, items, tmp_path)
    assert got == [one["answer"] for one in scored]
    assert score == pytest.approx(sum(o["answer"] == o["expected"] for o in scored) / ITEMS)
