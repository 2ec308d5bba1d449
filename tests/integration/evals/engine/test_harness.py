"""`gapmend lm-eval`: lm-eval's own program scores a task the same with its model and with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_models
from tests.support.called import MAIN, Called, fork
from tests.support.loaded import with_models

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
num_fewshot: 0
metadata: {{version: 1}}
"""
CHOICE = """output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITTEN = """output_type: generate_until
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
"""
# Each call indexes lm-eval's own 14,000 tasks, in ten seconds: the long test alone does.
NO_OTHERS = """
from lm_eval.tasks._index import TaskIndex
from pipeline.cli.main import main
build = TaskIndex.build
TaskIndex.build = staticmethod(lambda paths: build([p for p in paths if p.name != "tasks"]))
main()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("harness")
    tiny_models.save(root / "model", "llama")
    rows = [
        {
            "question": f"Question {i}: what is {i} plus {i % 7}? Answer:",
            "choices": [f" {i}", f" it is {i + 1} or so", " maybe never", " card"],
            "gold": i % 4,
        }
        for i in range(24)
    ]
    data = root / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind in (("ours_choice", CHOICE), ("ours_written", WRITTEN)):
        (root / f"{name}.yaml").write_text(TASK.format(name=name, data=data) + kind)
    return root


def called(*arguments: str, cwd: Path, whole: bool = False) -> Called:
    program = [MAIN] if whole else ["-c", NO_OTHERS]
    return fork([*program, *arguments], loaded=with_models, cwd=cwd)


def results(folder: Path, model: str, arguments: str) -> dict[str, Any]:
    out = folder / model
    asked = ["lm-eval", "run", "--tasks", "ours_choice,ours_written", "--log_samples"]
    asked += ["--batch_size", "4"]
    asked += ["--model", model, "--model_args", arguments]
    asked += ["--include_path", str(folder), "--output_path", str(out)]
    done = called(*asked, cwd=folder)
    assert done.code == 0, done.err[-3000:]
    (path,) = out.rglob("results_*.json")
    found = {
        task: dict(metrics) for task, metrics in json.loads(path.read_text())["results"].items()
    }
    found["answers"] = {
        sample["doc_id"]: sample["resps"]
        for file in out.rglob("samples_ours_written_*.jsonl")
        for sample in map(json.loads, file.read_text().splitlines())
    }
    return found


def test_the_scores_are_those_of_lm_evals_own_model(folder: Path) -> None:
    theirs = results(folder, "hf", "pretrained=model,dtype=float32")
    ours = results(folder, "gapmend", "pretrained=model,dtype=float32")
    assert ours == theirs


def test_its_own_help_is_reached(folder: Path) -> None:
    done = called("lm-eval", "run", "--help", cwd=folder)
    assert done.code == 0, done.err
    assert "--model_args" in done.out


@pytest.mark.soak
def test_a_base_that_is_not_there_is_one_line(folder: Path) -> None:
    done = called(
        *("lm-eval", "run", "--model", "gapmend", "--model_args", "pretrained=./gone"),
        *("--include_path", str(folder), "--tasks", "ours_choice"),
        cwd=folder,
        whole=True,
    )
    assert done.code == 2
    assert "no folder ./gone" in done.err
    assert "Traceback" not in done.err


def test_a_task_that_it_has_not_is_one_line(folder: Path) -> None:
    asked = ("lm-eval", "run", "--model", "gapmend", "--tasks", "no_such_task")
    done = called(*asked, cwd=folder)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("gapmend: lm-eval: Tasks not found")
    assert "Traceback" not in done.err
