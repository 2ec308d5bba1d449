"""lm-eval tasks as guards, installed and the user's own: local files, a tiny model, the store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from evals.scoring.evaluate import EvalResult, evaluate
from evals.tasks.capability import GuardSpec, Item
from evals.tasks.prompts import arms_of
from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.models.load import BaseSpec, identify, load_model
from registry.store.objects import Store
from tests.support import tiny_models

LABELS = ("yes", "yes, always", "no", "never")
DATA = """
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
"""
CHOICE = (
    DATA
    + """
task: {name}
output_type: multiple_choice
doc_to_text: "Is it {{{{question}}}}?"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{right}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
)
WRITTEN = """
include: shared.yaml
task: mine
output_type: generate_until
doc_to_text: "Is it {{question}}?"
doc_to_target: "yes"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
"""
OWN = "process_results: !function utils.score\n"
SCORE = "def score(doc, results):\n    return {{'own': {score}}}\n"
METRIC = "metric_list:\n  - {%s, aggregation: mean, higher_is_better: true}\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from evals.engine.packed import PackedLM

    root = tmp_path_factory.mktemp("models")
    tiny_models.save(root / "base", "llama")
    spec = BaseSpec(model=str(root / "base"))
    return PackedLM(load_model("base", spec, root, threads=1)), identify("base", spec, root)


class Bench:
    """A workspace with a task's folder, and evaluations of guards in it."""

    def __init__(self, root: Path, engine) -> None:
        self.root = root
        self.folder = root / "tasks" / "mine"
        self.folder.mkdir(parents=True)
        self.data = self.folder / "docs.jsonl"
        docs = ({"question": f"{i}", "choices": LABELS, "right": i % 4} for i in range(30))
        self.data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        self.write("shared.yaml", DATA.format(data=self.data))
        self.write("mine.yaml", WRITTEN + OWN)
        self.write("utils.py", SCORE.format(score="float(results[0] == 'no')"))
        self._store = Store(root / ".gapmend")
        self._catalog = Catalog(root / ".gapmend")
        self._engine, self._base = engine
        self.asked = 0

    def write(self, name: str, text: str) -> None:
        """Write a file, later than whatever was there: Python's bytecode goes by whole seconds."""
        path = self.folder / name
        after = path.stat().st_mtime + 2 if path.exists() else None
        path.write_text(text)
        if after:
            os.utime(path, (after, after))

    def items(self, named: str = "tasks/mine/mine.yaml", **options) -> list[Item]:
        from evals.tasks.installed import installed_items

        return installed_items(named, self.root, options.pop("split", "dev"), **options)

    def __call__(self, items: list[Item] | None = None, shots: int = 0, **spec) -> EvalResult:
        guard = GuardSpec(**(spec or {"lm_eval": "tasks/mine/mine.yaml", "allow_code": True}))

        def make():
            self.asked += 1
            return self._engine

        return evaluate(
            self._store,
            self._catalog,
            make,
            subject="guard",
            spec=guard,
            arm=replace(arms_of(guard.prompts)[0], name=f"{shots} more", shots=shots),
            shots=(),
            items=self.items(str(guard.lm_eval)) if items is None else items,
            split="dev",
            base=self._base,
        )


@pytest.fixture
def bench(tmp_path, engine, monkeypatch) -> Bench:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return Bench(tmp_path, engine)


def test_an_installed_lm_eval_task_is_a_guard(bench, monkeypatch) -> None:
    from evals.tasks import installed, task_files

    for module in (installed, task_files):
        monkeypatch.setattr(module, "installed_tasks", lambda: bench.root / "tasks")
    bench.write("choice.yaml", CHOICE.format(name="choice", data=bench.data))
    spec = {"lm_eval": "choice"}
    dev, test = bench.items("choice"), bench.items("choice", split="test")
    assert len(dev) + len(test) == 30
    assert not {one.uid for one in dev} & {one.uid for one in test}
    result = bench(dev, **spec)
    assert [sample.row_uid for sample in result.samples] == [one.uid for one in dev]
    assert {sample.answer for sample in result.samples} <= set(LABELS)
    for sample in result.samples:
        assert f"Is it {sample.row_uid}?" in sample.prompt
        assert sample.score == float(sample.answer == LABELS[sample.row_uid % 4])
    again = bench(dev[3:6], **spec).samples
    for one, same in zip(again, result.samples[3:6], strict=True):
        assert one.loglikelihoods == pytest.approx(same.loglikelihoods, abs=1e-4)
    assert bench(dev, **spec).cached
    with pytest.raises(UserError, match="lm-eval has no task nothing"):
        bench.items("nothing")


def test_data_that_is_not_there_is_one_line(bench) -> None:
    bench.write("lost.yaml", CHOICE.format(name="lost", data=bench.root / "gone.jsonl"))
    with pytest.raises(UserError, match=r"lost\.yaml can't be loaded: FileNotFoundError: .*gone"):
        bench.items("tasks/mine/lost.yaml")


def test_a_task_file_of_one_s_own_is_a_guard(bench) -> None:
    result = bench()
    assert result.n == len(bench.items())
    for sample in result.samples:
        assert f"Is it {sample.row_uid}?" in sample.prompt
        assert sample.score == float(sample.answer == "no")
    assert (bench().cached, bench.asked) == (True, 1)
    assert len(bench.items(limit=3)) == 3
    bench.write("all.yaml", "group: all\ntask: [mine]\n")
    with pytest.raises(UserError, match=r"all\.yaml is a group of lm-eval tasks"):
        bench.items("tasks/mine/all.yaml")


def test_a_change_beside_the_task_is_scored_anew(bench) -> None:
    seen = [bench().id]
    bench.write("utils.py", SCORE.format(score=0.25))
    changed = bench()
    assert (changed.cached, changed.mean) == (False, 0.25)
    seen.append(changed.id)
    bench.write("mine.yaml", WRITTEN.replace("Is it", "Would it be") + OWN)
    changed = bench()
    assert changed.samples[0].prompt.startswith("<|user|>Would it be")
    seen.append(changed.id)
    bench.write("shared.yaml", DATA.format(data=bench.data) + "doc_to_target: 'no'\n")
    seen.append(bench().id)
    assert len(set(seen)) == 4
    assert bench().cached


def test_the_examples_of_a_task_are_part_of_the_key(bench) -> None:
    from evals.tasks import installed

    shown = bench.root / "shown.jsonl"
    shown.write_text('{"question": "red"}\n')
    files = DATA.replace("{{test: {data}}}", "{{test: {data}, train: {shown}}}")
    text = files.format(data=bench.data, shown=shown)
    bench.write("shared.yaml", text + "fewshot_split: train\nnum_fewshot: 1\n")
    first = bench()
    assert "Is it red?<|end|><|assistant|>yes" in first.samples[0].prompt
    shown.write_text('{"question": "blue"}\n')
    installed._own.cache_clear()  # another process
    second = bench()
    assert (second.cached, second.id == first.id) == (False, False)


IMPORTING = "import evaluate\ndef score(doc, results):\n    return evaluate.load('rouge')\n"
LACKING = "def score(doc, results):\n    import no_such_package\n"
TAGGING = (
    "import nltk\ndef score(doc, results):\n    nltk.data.path[:] = []\n"
    "    return nltk.word_tokenize(results[0])\n"
)


@pytest.mark.parametrize(
    ("yaml", "code", "line"),
    [
        (METRIC % "metric: rouge", "", r"metric rouge of .* is fetched from the Hugging Face Hub"),
        (METRIC % "metric: exact_match, hf_evaluate: true", "", "metric exact_match of .* fetched"),
        (OWN, IMPORTING, r"task mine can't score an answer: \w+Error: .*'rouge'"),
        (OWN, LACKING, r"can't score .*No module named 'no_such_package'; .* Install it into"),
        (OWN, "import no_such_package\n", "mine.yaml can't be loaded: ModuleNotFoundError"),
        (OWN, TAGGING, "can't score an answer: LookupError: Resource 'punkt_tab' not f"),
        (OWN, SCORE.format(score="results[0][0]"), "can't score an answer: IndexError"),
        (
            METRIC % "metric: !function utils.broken",
            "def broken(references, predictions):\n    return 1 / len(predictions[0])\n",
            "can't score an answer by broken: ZeroDivisionError",
        ),
        (OWN, SCORE.format(score=100.0), r"metric own of lm-eval task mine is 100\.0 for a doc"),
        (OWN, "def score(doc, results):\n    return {}\n", "metric None of lm-eval task mine"),
        (METRIC % "metric: bleu", "", r"metric bleu of lm-eval task mine is \['yes', ''\] for"),
        (
            "output_type: loglikelihood\n" + METRIC % "metric: perplexity",
            "",
            r"metric perplexity of lm-eval task mine is -1\.0 for a document",
        ),
        (
            "output_type: loglikelihood_rolling\n" + METRIC % "metric: word_perplexity",
            "",
            r"metric word_perplexity of lm-eval task mine is \(-1\.0, 1\) for a document",
        ),
        ("unsafe_code: true\n" + OWN, SCORE.format(score=0.5), "marked as unsafe"),
    ],
)
def test_what_cannot_score_is_found_before_the_model_is_asked(
    bench, monkeypatch, yaml, code, line
) -> None:
    bench.write("mine.yaml", WRITTEN + yaml)  # of a key that is repeated the last counts
    bench.write("utils.py", code)
    with pytest.raises(UserError, match=line) as raised:
        bench.items()
    assert "\n" not in str(raised.value)
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        monkeypatch.setattr(bench._engine, name, lambda _: pytest.fail("the model was asked"))
    with pytest.raises(UserError, match=line):
        bench([Item(0, "0" * 64, {}, "yes", 0)])


def test_a_score_that_only_an_answer_shows_is_still_refused(bench) -> None:
    bench.write("utils.py", SCORE.format(score="100.0 * bool(results[0])"))
    items = bench.items()
    with pytest.raises(UserError, match=r"metric own of lm-eval task mine is 100\.0 for a doc"):
        bench(items)


def test_a_task_can_be_asked_with_more_examples_of_its_own(bench) -> None:
    """As lost items are asked again: from a split that isn't asked, and part of the key."""
    from evals.scoring.installed import with_reminders

    named = "tasks/mine/choice.yaml"
    own = {"lm_eval": named, "allow_code": True}
    bench.write("choice.yaml", CHOICE.format(data=bench.data, name="choice"))
    assert (
        with_reminders(bench.items(named), named, bench.root) is None
    )  # nothing but what is asked

    shown = bench.folder / "shown.jsonl"

    def write(word: str) -> None:
        docs = ({"question": f"{word} {i}", "choices": LABELS, "right": 1} for i in range(9))
        shown.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        files = f"{{train: {shown}, test: {bench.data}}}"
        text = CHOICE.format(data=bench.data, name="choice")
        text = text.replace(f"{{test: {bench.data}}}", files)
        bench.write("choice.yaml", text + f"training_split: train\n# {word}\n")

    write("old")
    plain = bench(**own)
    items = with_reminders(bench.items(named), named, bench.root)
    assert items is not None
    asked = bench(items, shots=2, **own)
    assert [s.prompt.count("Is it old") for s in asked.samples] == [2] * asked.n
    assert [s.prompt.count("Is it") for s in plain.samples] == [1] * plain.n
    some = bench(items[:3], shots=2, **own)
    assert [s.prompt for s in some.samples] == [s.prompt for s in asked.samples[:3]]
    assert bench(items, shots=2, **own).cached

    write("new")
    items = with_reminders(bench.items(named), named, bench.root)
    again = bench(items, shots=2, **own)
    assert not again.cached
    assert all("Is it new" in sample.prompt for sample in again.samples)


def test_a_task_that_cannot_score_a_real_answer_is_named_with_it(bench) -> None:
    score = "def score(doc, results):\n    return {'own': 0.0 if not results[0] else doc['none']}\n"
    bench.write("utils.py", score)
    with pytest.raises(UserError, match=r"document \d+: lm-eval task mine can't score the answer"):
        bench()


def test_a_task_s_documents_decide_what_is_asked(bench) -> None:
    from evals.tasks.installed import documents_digest

    named = "tasks/mine/mine.yaml"
    before = documents_digest(named, bench.root)
    assert documents_digest(named, bench.root) == before
    bench.data.write_text(bench.data.read_text().replace('"question": "7"', '"question": "seven"'))
    bench.write("mine.yaml", WRITTEN + OWN + "# read again\n")  # a process reads a task once
    assert documents_digest(named, bench.root) != before
