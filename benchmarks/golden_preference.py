"""Write tests/golden/preference.json: losses, log-probabilities and gradients of TRL itself.

Needs an environment of its own (TRL is no part of this project), in the repository's root:

    python -m venv VENV && VENV/bin/pip install torch==2.13.0 trl==1.16.0 transformers peft datasets
    PYTHONPATH=. VENV/bin/python benchmarks/golden_preference.py tests/golden/preference.json

The model is the tests' tiny Llama with LoRA matrices from a seed, which the test that reads the
file builds again; the rows are token ids, so no tokenizer or template has a part in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.utils import DPODataCollatorWithPadding

from tests.support import tiny_models

# Of the matrices; with the second one KTO's estimate is above 0, where it is not clamped.
SEED, OTHER_SEED = 11, 18
BETA, GOOD_WEIGHT, BAD_WEIGHT = 0.3, 1.5, 0.7
# Tokens of question, better and worse answer; the first two and the last two questions are one.
SHAPES = ((40, 12, 9), (40, 5, 20), (23, 8, 8), (9, 3, 14), (30, 1, 6), (30, 17, 2))
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}


def rows() -> list[dict[str, list[int]]]:
    """Questions and answers as token ids."""
    rng = np.random.default_rng(7)
    made: list[dict[str, list[int]]] = []
    for number, (asked, *answers) in enumerate(SHAPES):
        chosen, rejected = (rng.integers(7, 512, count).tolist() for count in answers)
        again = number in (1, 5)
        prompt = made[-1]["prompt"] if again else rng.integers(7, 512, asked).tolist()
        made.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return made


def fill(model: torch.nn.Module, seed: int = SEED) -> None:
    """Give the LoRA matrices values from a seed, B as well, by name."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def settings(**own: Any) -> dict[str, Any]:
    """What the three trainers' configurations have in common."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": len(SHAPES),
        "beta": BETA,
        **own,
    }


def parts(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What the three trainers are made of, apart from their configuration."""
    return {
        "model": tiny_models.model("llama"),
        "processing_class": tiny_models.tokenizer(),
        "train_dataset": Dataset.from_dict(columns),
        "peft_config": LoraConfig(task_type="CAUSAL_LM", **LORA),
    }


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, float]:
    """Norm of the gradient of each trained matrix."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name.split("model.model.")[-1]: float(parameter.grad.norm())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and ".lora_" in name
    }


def summed(model: torch.nn.Module, inputs: dict[str, torch.Tensor], kl: str = "") -> list[float]:
    """TRL's log-probability of each completion."""
    labels = inputs[f"{kl}input_ids"].masked_fill(inputs[f"{kl}completion_mask"] == 0, -100)
    with torch.no_grad():
        output = model(
            input_ids=inputs[f"{kl}input_ids"],
            attention_mask=inputs[f"{kl}attention_mask"],
            labels=labels,
            fused_lm_head=True,
        )
    return output.log_probs.sum(-1).tolist()


def dpo(data: list[dict[str, list[int]]]) -> dict[str, Any]:
    """DPOTrainer's sigmoid loss."""
    columns = {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}
    trainer = DPOTrainer(args=DPOConfig(**settings()), **parts(columns))
    fill(trainer.model)
    examples = [
        {"prompt_ids": row["prompt"], "chosen_ids": row["chosen"], "rejected_ids": row["rejected"]}
        for row in data
    ]
    inputs = trainer.data_collator(examples)
    loss = trainer.compute_loss(trainer.model, inputs)
    policy = summed(trainer.model, inputs)
    reference = [part.tolist() for part in trainer.compute_ref_log_probs(trainer.model, inputs)]
    return {
        "loss": float(loss),
        "chosen": policy[: len(data)],
        "rejected": policy[len(data) :],
        "reference_chosen": reference[0],
        "reference_rejected": reference[1],
        "gradients": gradients(trainer.model, loss),
    }


def orpo(data: list[dict[str, list[int]]]) -> dict[str, Any]:
    """ORPOTrainer's loss."""
    columns = {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}
    trainer = ORPOTrainer(args=ORPOConfig(**settings()), **parts(columns))
    fill(trainer.model)
    examples = []
    for row in data:
        example: dict[str, list[int]] = {}
        for side in ("chosen", "rejected"):
            ids = row["prompt"] + row[side]
            example[f"{side}_input_ids"] = ids
            example[f"{side}_attention_mask"] = [1] * len(ids)
            example[f"{side}_labels"] = [-100] * len(row["prompt"]) + row[side]
        examples.append(example)
    inputs = DPODataCollatorWithPadding(pad_token_id=2)(examples)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, inputs)
    chosen, rejected, *_, nll = trainer.concatenated_forward(trainer.model, inputs)
    return {
        "loss": float(loss),
        "chosen": chosen.tolist(),
        "rejected": rejected.tolist(),
        "nll": float(nll),
        "gradients": gradients(trainer.model, loss),
    }


def kto(data: list[dict[str, list[int]]], seed: int) -> dict[str, Any]:
    """KTOTrainer's loss with its own mismatched pairs; better and worse answers take turns."""
    given = {
        "prompt": ["a"] * len(data), "completion": ["b"] * len(data), "label": [True, False] * 3
    }  # fmt: skip
    weights = {"desirable_weight": GOOD_WEIGHT, "undesirable_weight": BAD_WEIGHT}
    trainer = KTOTrainer(args=KTOConfig(**settings(**weights)), **parts(given))
    fill(trainer.model, seed)
    good = [number % 2 == 0 for number in range(len(data))]
    answers = [
        row["chosen" if is_good else "rejected"] for row, is_good in zip(data, good, strict=True)
    ]
    examples = [
        {
            "prompt_ids": row["prompt"],
            "completion_ids": answers[number],
            "KL_completion_ids": answers[number - 1],
            "label": good[number],
        }
        for number, row in enumerate(data)
    ]
    inputs = trainer.data_collator(examples)
    loss = trainer.compute_loss(trainer.model, inputs)
    reference, reference_kl = trainer.compute_ref_log_probs(trainer.model, inputs)
    return {
        "loss": float(loss),
        "seed": seed,
        "good": good,
        "policy": summed(trainer.model, inputs),
        "reference": reference.tolist(),
        "policy_kl": summed(trainer.model, inputs, "KL_"),
        "reference_kl": reference_kl.tolist(),
        "kl": trainer._metrics["train"]["kl"][-1],  # noqa: SLF001  it is told nowhere else
        "gradients": gradients(trainer.model, loss),
    }


def main() -> None:
    """Write the file named on the command line."""
    from importlib import metadata

    data = rows()
    versions = {name: metadata.version(name) for name in ("trl", "torch", "transformers", "peft")}
    golden = {
        "versions": versions,
        "seed": SEED,
        "beta": BETA,
        "good_weight": GOOD_WEIGHT,
        "bad_weight": BAD_WEIGHT,
        "lora": LORA,
        "rows": data,
        "dpo": dpo(data),
        "orpo": orpo(data),
        "kto": [kto(data, seed) for seed in (SEED, OTHER_SEED)],
    }
    Path(sys.argv[1]).write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
