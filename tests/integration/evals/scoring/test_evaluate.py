"""Evaluations end to end: a tiny model, the engine, the store and the catalog, real files."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from evals.scoring.evaluate import EvalResult, evaluate, paired
from evals.scoring.results import scores_of
from evals.tasks.capability import CapabilitySpec, Item
from evals.tasks.prompts import Arm, arms_of, choose_shots
from evals.verdicts.anytime import batches, rule_for
from registry.catalog.catalog import Catalog
from registry.datasets.formats.content import Message
from registry.errors import GapmendError, UserError
from registry.models.load import BaseSpec, identify, load_model
from registry.store.kinds import EvalMeta
from registry.store.objects import Store
from tests.support import tiny_models

LABELS = ("yes", "yes, always", "no", "never")
CHOICE = CapabilitySpec(
    data="d",
    answer="choice",
    goal=0.5,
    labels=LABELS,
    prompts={"zero_shot": "Is it {input}?", "few_shot": [2], "cot": "Think. {input}"},
)
EXACT = CapabilitySpec(data="d", answer="exact", goal=0.5, max_new_tokens=8)


def item(uid: int, text: str = "", *, cluster: int | None = None) -> Item:
    fields = {"input": text or f"card {uid}", "output": LABELS[uid % 4]}
    cluster = uid if cluster is None else cluster
    return Item(uid, f"{uid:064x}", fields, fields["output"], cluster)


ITEMS = [item(uid) for uid in range(12)]
TRAIN = [item(uid) for uid in range(100, 120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_models.save(root / "base", "llama")
    tiny_models.save(root / "other", "llama", seed=7)
    tiny_models.save(root / "plain", "gpt2", template=False)
    tiny_models.save_adapter(root / "adapter", root / "base")
    return root


@pytest.fixture(scope="module")
def engines(folder):
    from evals.engine.packed import PackedLM

    return {
        name: PackedLM(load_model(name, BaseSpec(model=str(folder / name)), folder, threads=1))
        for name in ("base", "other", "plain")
    }


@pytest.fixture(scope="module")
def loaded(engines):
    return {name: engine.loaded for name, engine in engines.items()}


class Bench:
    """One store, and evaluations in it with defaults that a test changes one at a time."""

    def __init__(self, root: Path, folder: Path, engines: dict) -> None:
        self.store = Store(root / ".gapmend")
        self.catalog = Catalog(root / ".gapmend")
        self.root = root
        self._folder = folder
        self._engines = engines
        self.asked = 0

    def engine(self, base: str):
        def make():
            self.asked += 1
            return self._engines[base]

        return make

    def adapter(self) -> str:
        ref = self.store.put("adapter", None, identity={"name": "a"})
        self.catalog.commit([ref])
        return ref.id

    def __call__(self, **changes) -> EvalResult:
        base = changes.pop("base", "base")
        engine = self.engine(changes.pop("engine_of", base))
        identity = changes.pop("identity", None) or identify(
            base, BaseSpec(model=str(self._folder / base)), self._folder
        )
        spec = changes.get("spec", CHOICE)
        values = {
            "subject": "intent",
            "spec": spec,
            "arm": arms_of(spec.prompts)[0],
            "shots": (),
            "items": ITEMS,
            "split": "dev",
            "base": identity,
            **changes,
        }
        if values.pop("tuned", False):
            values |= {"adapter_id": self.adapter(), "adapter_path": self._folder / "adapter"}
        return evaluate(self.store, self.catalog, engine, **values)


@pytest.fixture
def bench(tmp_path, folder, engines) -> Bench:
    return Bench(tmp_path, folder, engines)


def test_a_choice_is_the_most_likely_whole_answer(bench, loaded) -> None:
    """Against a plain forward over context + label + end of turn, without engine or lm-eval."""
    import torch

    result = bench()
    model, tokenizer = loaded["base"].model, loaded["base"].tokenizer
    for sample, asked in zip(result.samples, ITEMS, strict=True):
        context = f"<|user|>Is it {asked.fields['input']}?<|end|><|assistant|>"
        start = len(tokenizer(context, add_special_tokens=False)["input_ids"])
        expected = []
        for label in LABELS:
            ids = tokenizer(f"{context}{label}<|end|>", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected.append(sum(logits[i - 1, ids[i]].item() for i in range(start, len(ids))))
        assert sample.loglikelihoods == pytest.approx(expected, abs=1e-4)
        assert sample.answer == LABELS[expected.index(max(expected))]
        assert sample.score == float(sample.answer == sample.expected)
        assert sample.prompt_tokens == start
    assert result.mean == pytest.approx(sum(s.score for s in result.samples) / 12)
    assert result.low <= result.mean <= result.high


def test_asking_again_loads_no_model(bench) -> None:
    first = bench()
    assert (first.cached, bench.asked) == (False, 1)
    again = bench()
    assert (again.cached, bench.asked) == (True, 1)
    assert again == replace(first, cached=True)


def test_a_result_that_was_never_acknowledged_is_taken_up(bench) -> None:
    first = bench()
    fresh = Catalog(bench.root / "elsewhere")
    bench.catalog = fresh
    assert bench().cached
    assert fresh.manifest(first.id, EvalMeta).meta.mean == first.mean


CHANGES: dict[str, dict[str, Any]] = {
    "base": {"base": "other"},
    "adapter": {"tuned": True},
    "scale": {"tuned": True, "scale": 0.5},
    "subject": {"subject": "mood"},
    "split": {"split": "test"},
    "tools": {"items": [*ITEMS[:-1], replace(ITEMS[-1], tools='[{"name": "t"}]')]},
    "history": {"items": [*ITEMS[:-1], replace(ITEMS[-1], history=(Message("user", "hm"),))]},
    "other column": {
        "items": [*ITEMS[:-1], replace(ITEMS[-1], fields={**ITEMS[-1].fields, "level": "3"})]
    },
    "order": {"items": ITEMS[::-1]},
    "fewer items": {"items": ITEMS[:-1]},
    "question": {"items": [*ITEMS[:-1], item(11, "changed")]},
    "expected": {"items": [*ITEMS[:-1], replace(ITEMS[-1], expected="no")]},
    "cluster": {"items": [*ITEMS[:-1], item(11, cluster=3)]},
    "row hash": {"items": [*ITEMS[:-1], replace(ITEMS[-1], row_hash="f" * 64)]},
    "template": {"arm": Arm("zero_shot", "Is {input}?", 0, None, "zero_shot")},
    "system": {"arm": Arm("zero_shot", "Is it {input}?", 0, "Be brief.", "zero_shot")},
    "arm name": {"arm": Arm("other", "Is it {input}?", 0, None, "zero_shot")},
    "label order": {"spec": CHOICE.model_copy(update={"labels": LABELS[::-1]})},
    "answer": {"spec": CHOICE.model_copy(update={"answer": "exact", "labels": None})},
    "new tokens": {
        "spec": CHOICE.model_copy(update={"answer": "exact", "labels": None, "max_new_tokens": 5})
    },
    "pattern": {
        "spec": CHOICE.model_copy(update={"answer": "regex", "labels": None, "pattern": "a"})
    },
}


def test_every_input_changes_the_key(bench) -> None:
    ids = {"nothing": bench().id}
    for name, change in CHANGES.items():
        result = bench(**change)
        assert not result.cached, name
        assert result.id not in ids.values(), name
        ids[name] = result.id
    shown = {"arm": arms_of(CHOICE.prompts)[1]}
    for seed in (0, 1):
        shots = choose_shots(TRAIN, shown["arm"], seed=seed)
        result = bench(**shown, shots=shots)
        assert result.id not in ids.values()
        ids[f"shots {seed}"] = result.id


def test_every_version_and_every_part_of_the_base_changes_the_key(
    bench, folder, tmp_path, monkeypatch
) -> None:
    ids = {bench().id}
    for version in ("ENGINE_VERSION", "SCORING_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(f"evals.scoring.plan.{version}", "another")
            ids.add(bench().id)
    for number, (name, old, new) in enumerate(
        (
            ("tokenizer.json", '"<|end|>"', '"<|End|>"'),
            ("chat_template.jinja", "<|end|>", "<|end|> "),
            ("config.json", '"rope_theta": 10000.0', '"rope_theta": 20000.0'),
            ("model.safetensors", "", ""),
        )
    ):
        copied = tmp_path / f"copy {number}"
        shutil.copytree(folder / "base", copied)
        changed = (copied / name).read_bytes()
        if not old:
            changed = changed[:-1] + bytes([changed[-1] ^ 1])
        else:
            assert old.encode() in changed, name
            changed = changed.replace(old.encode(), new.encode())
        (copied / name).write_bytes(changed)
        identity = identify("base", BaseSpec(model=str(copied)), tmp_path)
        result = bench(identity=identity)
        assert not result.cached, name
        ids.add(result.id)
    for changes in ({"dtype": "bf16"}, {"quantize": "int8"}):
        identity = identify("base", BaseSpec(model=str(folder / "base"), **changes), tmp_path)
        ids.add(bench(identity=identity).id)
    assert len(ids) == 1 + 2 + 4 + 2
    assert bench().cached


def test_own_code_is_part_of_the_key(bench) -> None:
    spec = CapabilitySpec(data="d", answer="python:own_scorer:f", goal=0.5, max_new_tokens=2)
    code = bench.root / "own_scorer.py"
    code.write_text("def f(answer, expected, fields):\n    return 0.25\n")
    first = bench(spec=spec)
    assert first.mean == 0.25
    code.write_text("def f(answer, expected, fields):\n    return 0.75 \n")
    sys.modules.pop("own_scorer")
    second = bench(spec=spec)
    assert (second.cached, second.mean) == (False, 0.75)


def test_choices_of_an_item_s_own_are_scored_as_those_of_all_are(bench) -> None:
    own = CHOICE.model_copy(update={"labels": "{options}"})
    asked = [replace(one, labels=LABELS if one.uid % 2 else LABELS[:2]) for one in ITEMS]
    asked = [replace(one, expected=one.labels[one.uid % 2]) for one in asked]
    result, shared = bench(spec=own, items=asked), bench()
    for sample, one, same in zip(result.samples, asked, shared.samples, strict=True):
        count = len(one.labels)
        assert sample.loglikelihoods == pytest.approx(same.loglikelihoods[:count], abs=1e-4)
        best = sample.loglikelihoods.index(max(sample.loglikelihoods))
        assert (sample.answer, sample.score) == (
            one.labels[best],
            float(one.labels[best] == one.expected),
        )


def test_an_adapter_changes_the_answers_and_leaves_the_base(bench) -> None:
    before = bench()
    tuned = bench(tuned=True)
    assert bench(tuned=True, scale=0.5).samples != tuned.samples
    assert tuned.samples != before.samples
    bench.store = Store(bench.root / "fresh" / ".gapmend")
    bench.catalog = Catalog(bench.root / "fresh" / ".gapmend")
    assert bench().samples == before.samples
    pairs = paired(before, tuned)
    assert pairs.n == 12
    with pytest.raises(GapmendError, match="differ in items"):
        paired(before, bench(items=ITEMS[:3]))


def test_generated_answers_are_greedy_and_end_with_the_turn(bench, loaded) -> None:
    import torch

    result = bench(spec=EXACT)
    model, tokenizer = loaded["base"].model, loaded["base"].tokenizer
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    for sample in result.samples[:4]:
        ids = tokenizer(f"<|user|>{sample.prompt}<|end|><|assistant|>", add_special_tokens=False)[
            "input_ids"
        ]
        written: list[int] = []
        while len(written) < 8:
            with torch.no_grad():
                token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token in (end, tokenizer.eos_token_id):
                break
            written.append(token)
        assert sample.answer == tokenizer.decode(written, skip_special_tokens=True).strip()
        assert sample.loglikelihoods is None


def test_few_shot_prompts_hold_the_shots_and_count_their_tokens(bench) -> None:
    arm = arms_of(CHOICE.prompts)[1]
    shots = choose_shots(TRAIN, arm, seed=0)
    few, zero = bench(arm=arm, shots=shots), bench()
    assert few.prompt_tokens_mean > 2 * zero.prompt_tokens_mean
    alone = bench(arm=arm, shots=shots, items=ITEMS[:1])
    assert alone.samples[0].loglikelihoods == pytest.approx(few.samples[0].loglikelihoods, abs=1e-4)


def test_chain_of_thought_is_scored_by_its_final_answer(bench) -> None:
    arm = arms_of(CHOICE.prompts)[3]
    short = CHOICE.model_copy(update={"max_new_tokens": 4})
    result = bench(spec=short, arm=arm, items=ITEMS[:2])
    assert all(sample.loglikelihoods is None for sample in result.samples)


def test_perplexity_is_the_likelihood_a_byte(bench) -> None:
    spec = CapabilitySpec(data="d", answer="perplexity", goal=0.5)
    text = "The quick brown fox é"
    whole = Item(1, "1" * 64, {"input": text, "output": text}, text, 1, text=text)
    result = bench(spec=spec, items=[whole, item(2)])
    for sample, written in zip(result.samples, (text, LABELS[2]), strict=True):
        assert sample.loglikelihoods is not None
        (likelihood,) = sample.loglikelihoods
        assert sample.score == pytest.approx(math.exp(likelihood / len(written.encode())))
        assert 0 < sample.score < 1


def test_a_model_without_a_template_is_asked_in_plain_text(bench) -> None:
    result = bench(base="plain")
    assert result.n == 12
    assert bench(base="plain", spec=EXACT, items=ITEMS[:3]).n == 3


def test_too_long_items_are_rejects_and_too_many_stop_it(bench) -> None:
    long = item(50, "very " * 600)
    many = [item(uid) for uid in range(200, 320)]
    result = bench(items=[*many, long])
    assert (result.n, len(result.rejects)) == (120, 1)
    (reject,) = result.rejects
    assert (reject.row_uid, reject.stage, reject.base) == (50, "eval", "base")
    assert "context of 512" in reject.reason
    assert bench(items=[*many, long]).rejects == result.rejects
    with pytest.raises(UserError, match="1 of 13 items can't be scored"):
        bench(items=[*ITEMS, long])
    assert bench(items=[*ITEMS, long], allow_rejects=0.1).n == 12
    with pytest.raises(UserError, match="1 of 1 items"):
        bench(items=[long], allow_rejects=1)


def test_an_evaluation_that_ends_early_is_not_kept_and_counts_too_long_items_of_all(bench) -> None:
    many = [item(uid) for uid in range(200, 360)]
    first = next(batches([one.cluster for one in many]))
    many[first[0]] = replace(many[first[0]], fields={"input": "very " * 600, "output": "yes"})
    rule = rule_for(0.99, 0.0, [one.cluster for one in many])
    result = bench(items=many, until=rule)
    assert (result.of, result.n, len(result.rejects)) == (160, 31, 1)  # 3% of those asked
    assert (result.low, result.high) == astuple(rule.interval(scores_of(result.samples)))[1:3]
    assert (result.id, bench.catalog.committed(EvalMeta)) == ("", [])
    with pytest.raises(UserError, match="1 of 160 items can't be scored"):
        bench(items=many, until=rule, allow_rejects=0.005)
    whole = bench(items=many)
    assert (whole.of, whole.n) == (None, 159)
    assert bench(items=many, until=rule) == replace(whole, cached=True)
    same = {sample.row_uid: sample for sample in whole.samples}
    assert [same[sample.row_uid] for sample in result.samples] == list(result.samples)


def test_an_answer_outside_the_labels_is_named_before_anything_is_loaded(bench) -> None:
    wrong = replace(ITEMS[0], expected="maybe", source_file="d.csv", source_line=7)
    with pytest.raises(UserError, match=r"d\.csv:7: .*'maybe' is not among the 4 labels"):
        bench(items=[wrong])
    with pytest.raises(UserError, match="has no items in dev"):
        bench(items=[])
    assert bench.asked == 0


def test_results_are_in_sql(bench) -> None:
    result = bench()
    found = bench.catalog.sql("SELECT subject, split, arm, items, score FROM eval_results").rows
    assert found == [("intent", "dev", "zero_shot", 12, result.mean)]
    rows = bench.catalog.sql(
        "SELECT row_uid, answer, score, prompt, len(loglikelihoods) FROM eval_samples "
        "ORDER BY row_uid"
    ).rows
    assert rows == [(s.row_uid, s.answer, s.score, s.prompt, 4) for s in result.samples]
    bench(items=[*ITEMS, item(50, "very " * 600)], allow_rejects=0.1)
    assert bench.catalog.sql("SELECT stage, base, row_uid FROM rejects").rows == [
        ("eval", "base", 50)
    ]


@pytest.mark.parametrize("spec", [CHOICE, EXACT])
def test_logits_that_are_no_numbers_are_named_by_item_and_layer(
    bench, tmp_path, monkeypatch, spec
) -> None:
    """One word's embedding is broken: only the item that has it fails, and the rest is kept."""
    import torch

    from evals.engine.journal import FOLDER, Journal
    from evals.engine.packed import PackedLM

    model = load_model("base", BaseSpec(model=str(bench._folder / "base")), tmp_path)
    (token,) = model.tokenizer("☃", add_special_tokens=False)["input_ids"][-1:]
    broken = replace(item(7, "☃"), source_file="rows.jsonl", source_line=8)
    asked = [broken if uid == 7 else item(uid, "longer, so read first") for uid in range(12)]
    weights = model.model.get_input_embeddings().weight
    kept = weights[token].clone()
    weights.data[token] = torch.nan
    monkeypatch.setitem(bench._engines, "broken", PackedLM(model, token_budget=32))
    with pytest.raises(UserError, match=r"^rows.jsonl:8: the model gives no finite number") as said:
        bench(base="base", spec=spec, items=asked, subject="nan", engine_of="broken")
    assert "embed_tokens (Embedding)" in str(said.value)
    if spec is CHOICE:  # prompts to write behind are all read first
        (journal,) = (bench.store.root / FOLDER).iterdir()
        assert Journal(journal).known > 0

    weights.data[token] = kept
    assert bench(base="base", spec=spec, items=asked, subject="nan", engine_of="broken").n == 12
    assert not list((bench.store.root / FOLDER).glob("*"))
