"""SmolLM2, from the GGUF file on: what holds for tiny models holds for a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.real import training_program

CHOICES = (" positive", " negative", " neither of them")
QUESTIONS = (
    "Review: a wonderful film, warm and funny.\nSentiment:",
    "Review: it was dull, and much too long.\nSentiment:",
    "Answer in one word: the capital of France is",
)
# Of a log-likelihood of up to -40, in another order of additions.
LIKELIHOOD_BOUND = 2e-3


def requests(kind: str, arguments: list[Any]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=index)
        for index, one in enumerate(arguments)
    ]


# -------------------------------------------------------------------------------- the GGUF file


def test_the_weights_are_those_that_transformers_reads(smol, smol_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from registry.models.smollm2 import smollm2_file

    file = smollm2_file()
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    ours = smol.model.state_dict()
    assert sorted(ours) == sorted(theirs.state_dict())
    assert all(torch.equal(ours[name], one) for name, one in theirs.state_dict().items())
    assert smol.identity.source == file.name
    assert smol.identity.context == 8192
    assert smol.identity.stops == (2,)
    assert (smol_folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\n---\n")


def test_digits_are_tokens_of_their_own(smol) -> None:
    text = "In 1984  12 + 30 = 42."
    tokens = smol.tokenizer.tokenize(text)
    assert [one for one in tokens if any(c.isdigit() for c in one)] == list("1984123042")
    assert smol.tokenizer.decode(smol.tokenizer(text)["input_ids"]) == text


def test_it_answers_by_its_chat_template(smol) -> None:
    from evals.engine.packed import PackedLM

    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    context = smol.chat.context(question)
    assert context.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    asked = requests("generate_until", [(context, {"until": ["\n"], "max_gen_toks": 12})])
    assert "Paris" in PackedLM(smol).generate_until(asked)[0]


def test_back_and_forth_through_gguf_it_stays_what_it_was(
    smol_folder: Path, smol, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from registry.gguf.convert import read_source, write_gguf
    from registry.gguf.file import GgufFile
    from registry.gguf.proof import export_gguf
    from registry.models.base import BaseSpec, identify, locate

    proof = export_gguf(read_source(smol_folder), tmp_path / "once.gguf", "q8_0", name="smol")
    print(f"q8_0: {proof.logits:.2e}")
    assert proof.logits < proof.bound
    assert (proof.tensors, proof.context, proof.remark) == (272, 8192, "")
    spec = BaseSpec(model="once.gguf")
    assert identify("b", spec, tmp_path).digest != smol.identity.digest
    folder = locate("b", spec, tmp_path).path
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (smol_folder / name).read_bytes()
    up = load_file(folder / "model.safetensors")["model.layers.7.mlp.up_proj.weight"]
    assert not torch.equal(up, smol.model.model.layers[7].mlp.up_proj.weight)  # it is rounded …
    write_gguf(read_source(folder), tmp_path / "twice.gguf", "q8_0", name="smol")
    once, twice = GgufFile(tmp_path / "once.gguf"), GgufFile(tmp_path / "twice.gguf")
    assert once.tensors.keys() == twice.tensors.keys()
    for name, tensor in once.tensors.items():  # … once, and never again
        assert np.array_equal(tensor.data, twice.tensors[name].data), name


# ------------------------------------------------------------------------------------- scoring


def test_scores_are_those_of_lm_eval(smol) -> None:
    from lm_eval.models.huggingface import HFLM

    from evals.engine.packed import PackedLM

    theirs = HFLM(smol.model, tokenizer=smol.tokenizer, batch_size=3, max_length=smol.context)
    ours = PackedLM(smol)
    assert ours.packed
    pairs = [(question, choice) for question in QUESTIONS for choice in CHOICES]
    asked = requests("loglikelihood", pairs)
    found = ours.loglikelihood(asked)
    wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    for mine, other in zip(found, wanted, strict=True):
        assert mine[0] == pytest.approx(other[0], abs=LIKELIHOOD_BOUND)
        assert mine[1] == other[1]
    given = {"until": ["\n"], "max_gen_toks": 8}
    prompts = requests("generate_until", [(question, given) for question in QUESTIONS])
    assert ours.generate_until(prompts) == theirs.generate_until(prompts, disable_tqdm=True)


# ------------------------------------------------------------------------------------ training


def test_packed_training_is_that_of_single_rows(smol) -> None:
    from pipeline.training import compute
    from pipeline.training.examples.encode import IGNORED, EncodedRow
    from pipeline.training.losses.attention import make_layout
    from pipeline.training.losses.loss import pack_rows

    model, rng = smol.model, np.random.default_rng(0)
    assert compute.why_not_packed(smol) is None
    rows = []
    for uid, length in enumerate((60, 40, 23, 5)):
        ids = rng.integers(20, 40_000, length).astype(np.int32)
        labels = np.where(rng.random(length) < 0.5, ids, IGNORED).astype(np.int32)
        labels[0], labels[-1] = IGNORED, ids[-1]
        rows.append(EncodedRow(uid=uid, input_ids=ids, labels=labels))
    watched = [
        model.model.layers[0].self_attn.v_proj.weight,
        model.model.layers[29].mlp.down_proj.weight,
    ]

    def gradients(of: list[EncodedRow], **layout: Any) -> list[Any]:
        """The summed loss of rows in one forward pass, and the gradients of two weights."""
        one = pack_rows(of)
        for weight in watched:
            weight.requires_grad_(requires_grad=True)
        logits = model(
            input_ids=one.input_ids,
            position_ids=one.position_ids,
            attention_mask=None,
            use_cache=False,
            **layout,
        ).logits[0]
        total = torch.zeros(())
        for part, row in zip(logits.split(one.lengths), of, strict=True):
            wanted = torch.from_numpy(row.labels[1:]).long()
            total = total + torch.nn.functional.cross_entropy(
                part[:-1], wanted, ignore_index=IGNORED, reduction="sum"
            )
        total.backward()
        found = [weight.grad.clone() for weight in watched]
        for weight in watched:
            weight.grad = None
            weight.requires_grad_(requires_grad=False)
        return [total.detach(), *found]

    with compute.packed(model):
        layout = make_layout([len(row.input_ids) for row in rows])
        together = gradients(rows, packed_layout=layout)
    each = [gradients([row]) for row in rows]
    for mine, others in zip(together, zip(*each, strict=True), strict=True):
        alone = torch.stack(others).sum(0)
        torch.testing.assert_close(mine, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


def test_an_adapter_is_one_that_peft_loads(smol, smol_folder: Path, trained) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from registry.models.parity import distance, logits_of, prompt_tokens

    tokens = prompt_tokens(smol)[:3]
    before = logits_of(smol.model, tokens)
    smol.use(trained.adapter_dir)
    ours = logits_of(smol.model, tokens)
    smol.use(None)
    base = AutoModelForCausalLM.from_pretrained(smol_folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(trained.adapter_dir)).eval()
    assert distance(ours, logits_of(theirs, tokens)) < 1e-5
    assert distance(before, ours) > 1e-3  # it has learnt something


def test_a_merge_is_proved(smol, trained, tmp_path: Path) -> None:
    from registry.merge.one import merge_adapter

    parity = merge_adapter(smol, trained.adapter_dir, tmp_path / "merged").parity
    print(f"merged {parity.merged:.1e}, reloaded {parity.reloaded:.1e}, bound {parity.bound:.0e}")
    assert parity.dtype == "fp32"
    assert max(parity.merged, parity.reloaded) <= parity.bound < 1e-3


def test_a_killed_training_ends_with_the_same_bytes(
    smol_root: Path, trained, tmp_path: Path, project_root: Path
) -> None:
    command = [sys.executable, training_program.__file__, str(smol_root), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(project_root)}
    metrics = tmp_path / "metrics.jsonl"
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None and (
        not metrics.exists() or metrics.read_text("utf-8").count("\n") < 3
    ):
        time.sleep(0.02)
    process.kill()
    assert process.wait() != 0, "it ended before it was killed"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["resumed", "2"], ["resumed", "4"])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "adapter" / name).read_bytes() == (
            trained.adapter_dir / name
        ).read_bytes()
