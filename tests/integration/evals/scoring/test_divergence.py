"""KL along the earlier answers, against plain transformers and PEFT in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evals.engine.packed import PackedLM
from evals.scoring.divergence import ANSWER_TOKENS, divergence
from evals.scoring.plan import Answerer
from evals.scoring.results import Sample
from evals.tasks.capability import Item
from evals.tasks.prompts import Question
from registry.models.load import BaseSpec, load_model
from tests.support import tiny_models

ANSWERS = ("yes", "a wonderful film, warm and funny", "the answer is no " * 30)
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "saved": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.save(folder / "base", "llama")
    for seed, (name, settings) in enumerate(ADAPTERS.items()):
        tiny_models.save_adapter(folder / name, folder / "base", seed=seed, **settings)
    return folder


@pytest.fixture
def engine(root: Path) -> PackedLM:
    return PackedLM(load_model("base", BaseSpec(model="base"), root, threads=1))


def question(uid: int) -> Question:
    fields = {"input": f"question {uid}?", "output": "yes"}
    asked = Item(uid, f"{uid:064x}", fields, "yes", uid)
    return Question(asked, ({"role": "user", "content": fields["input"]},))


QUESTIONS = [question(uid) for uid in range(3)]
SAMPLES = {
    uid: Sample(uid, "", uid, f"question {uid}?", "yes", answer, 1.0, None, 5)
    for uid, answer in enumerate(ANSWERS)
}


def plain_kl(root: Path, tokenizer: Any, before: str | None, after: str | None) -> float:
    """The same with whole sequences, one at a time, in float64."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    models = []
    for name in (before, after):
        model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
        wrapped = PeftModel.from_pretrained(model, root / name) if name else model
        models.append(wrapped.double().eval())
    means = []
    for uid, answer in enumerate(ANSWERS):
        context = f"<|user|>question {uid}?<|end|><|assistant|>"
        start = len(tokenizer(context, add_special_tokens=False)["input_ids"])
        ids = tokenizer(f"{context}{answer.strip()}<|end|>", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([ids[: start + ANSWER_TOKENS]])
        with torch.no_grad():
            first, second = (
                model(ids).logits[0, start - 1 : -1].log_softmax(-1) for model in models
            )
        means.append((first.exp() * (first - second)).sum(-1).mean())
    return float(sum(means) / len(means))


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_is_what_two_plain_models_give(root: Path, engine: PackedLM, name: str) -> None:
    base = Answerer(engine.loaded.identity)
    tuned = Answerer(engine.loaded.identity, name, root / name)
    found = divergence(engine, QUESTIONS, stripped(), base, tuned)
    assert found == pytest.approx(plain_kl(root, engine.tokenizer, None, name), rel=1e-3)
    assert found is not None
    assert found > 0.01
    back = divergence(engine, QUESTIONS, stripped(), tuned, base)
    assert back == pytest.approx(plain_kl(root, engine.tokenizer, name, None), rel=1e-3)
    assert back != pytest.approx(found, rel=1e-3)


def stripped() -> dict[int, Sample]:
    """As scoring keeps answers: without spaces at the ends."""
    from dataclasses import replace

    return {uid: replace(one, answer=one.answer.strip()) for uid, one in SAMPLES.items()}


def test_two_adapters_differ_and_one_does_not_from_itself(root: Path, engine: PackedLM) -> None:
    lora, dora = (Answerer(engine.loaded.identity, n, root / n) for n in ("lora", "dora"))
    assert divergence(engine, QUESTIONS, stripped(), lora, lora) == 0
    found = divergence(engine, QUESTIONS, stripped(), lora, dora)
    assert found == pytest.approx(plain_kl(root, engine.tokenizer, "lora", "dora"), rel=1e-3)


def test_nothing_to_measure_on_is_no_divergence(engine: PackedLM) -> None:
    base = Answerer(engine.loaded.identity)
    assert divergence(engine, QUESTIONS, {}, base, base) is None


def test_the_base_alone_is_the_base_and_the_adapter_is_in_use_again(
    root: Path, engine: PackedLM
) -> None:
    pairs = [([5, 6, 7], [8, 9])]
    plain = engine.answer_logits(pairs)
    for name in ADAPTERS:
        engine.loaded.use(root / name)
        tuned = engine.answer_logits(pairs)
        assert not torch.equal(tuned, plain)
        with engine.loaded.base_alone():
            assert torch.equal(engine.answer_logits(pairs), plain)
        assert torch.equal(engine.answer_logits(pairs), tuned)
        assert not any(weight.requires_grad for weight in engine.loaded.model.parameters())
