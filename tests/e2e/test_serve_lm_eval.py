"""lm-eval asks a served adapter by its API, and gets what was scored before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.called import forked
from tests.support.served import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One server for both.
pytestmark = pytest.mark.xdist_group("lm-eval's API")

ITEMS = 40
# What colours, a guard of the quickstart, was answered by the champion on test, and asked as.
SCORED = f"""
SELECT prompt, answer, expected FROM eval_samples
WHERE subject = 'colours' AND split = 'test' AND arm = 'zero_shot'
  AND adapter_id = (SELECT target FROM aliases WHERE name = 'champion' AND "current")
ORDER BY row_uid LIMIT {ITEMS}
"""
GREEDY = {"until": ["<|end|>"], "max_gen_toks": 8, "do_sample": False}


@pytest.fixture(scope="module")
def served(quickstart: Path) -> Iterator[Served]:
    with serving(quickstart) as made:
        yield made


@pytest.fixture(scope="module")
def scored(quickstart: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = forked("sql", SCORED, "-C", quickstart, "--json").json()
    assert len(found) == ITEMS
    return found


def by_lm_eval(
    model: Any, told: dict[str, Any] | None, task: dict[str, Any], folder: Path, **more: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What lm-eval makes of a task: its samples and results."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    data = {"data_files": {"test": str(folder / "items.jsonl")}, "cache_dir": str(folder)}
    made = ConfigurableTask(
        config={"task": "asked", "dataset_path": "json", "dataset_kwargs": data, **task}
    )
    if told is not None:
        told = {"num_concurrent": 8, "max_retries": 1, **told}
    done: dict[str, Any] = simple_evaluate(
        model=model,
        model_args=told,
        tasks=[made],
        # Without, every run begins with reading lm-eval's 14,000 task files.
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        **more,
    )
    samples = sorted(done["samples"]["asked"], key=lambda one: int(one["doc_id"]))
    return samples, done["results"]["asked"]


def write(folder: Path, items: list[dict[str, Any]]) -> None:
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def test_in_a_conversation_it_gets_the_answers_that_were_scored(
    served: Served, scored: list[dict[str, str]], tmp_path: Path
) -> None:
    write(tmp_path, [{"question": one["prompt"], "expected": one["expected"]} for one in scored])
    samples, results = by_lm_eval(
        "local-chat-completions",
        {"base_url": f"{served.address}/v1/chat/completions", "model": "champion"},
        {
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{expected}}",
            "generation_kwargs": GREEDY,
            "metric_list": [{"metric": "exact_match"}],
        },
        tmp_path,
        apply_chat_template=True,
    )
    assert [one["resps"][0][0] for one in samples] == [one["answer"] for one in scored]
    right = sum(one["answer"] == one["expected"] for one in scored)
    assert results["exact_match,none"] == pytest.approx(right / ITEMS)


def test_of_a_choice_it_gets_the_likelihoods_of_the_engine(
    served: Served, scored: list[dict[str, str]], quickstart: Path, tmp_path: Path
) -> None:
    from evals.engine.packed import PackedLM
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.base import nano_folder

    choices = sorted({one["expected"] for one in scored})
    write(tmp_path, [{"question": one["prompt"], "right": one["expected"]} for one in scored[:8]])
    task = {
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\n",
        "doc_to_choice": choices,
        "doc_to_target": "{{right}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    address = {"base_url": f"{served.address}/v1/completions", "model": "champion"}
    tokens = {"tokenizer": str(nano_folder()), "tokenizer_backend": "huggingface"}
    theirs, _ = by_lm_eval("local-completions", {**address, **tokens}, task, tmp_path)
    ws = OpenWorkspace.open(quickstart)
    engine = PackedLM(ws.models.get("nano"))
    engine.use(ws.store.get("adapter", str(ws.catalog.alias("champion"))).path)
    ours, _ = by_lm_eval(engine, None, task, tmp_path)
    for one, two in zip(theirs, ours, strict=True):
        for (got,), (known,) in zip(one["resps"], two["resps"], strict=True):
            assert float(got[0]) == pytest.approx(float(known[0]), abs=1e-3)
            assert str(got[1]) == str(known[1])
