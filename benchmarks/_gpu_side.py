"""One side of gpu_train.py: a process that trains one model of random weights, step by step."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "train_peers")]

import _train_flops  # noqa: E402  it and its imports are found by the line above

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-0.6b": (
        "qwen3",
        {
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3-8b": (
        "llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        },
    ),
    "tiny": (
        "qwen3",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "tie_word_embeddings": True,
        },
    ),
}
REAL = ["qwen3-0.6b", "llama-3-8b"]
BATCH = 4096
RANK = 16
WARM_UP = 3
ROWS = 256
LONGEST = 2048
OUT_OF_MEMORY = 3


@dataclass
class Steps:
    """Writes a line for each optimizer step, and ends the process after the last one."""

    path: Path
    count: int
    said: dict[str, Any]
    device: torch.device
    config: Any
    _began: float = field(default=0.0)
    _done: int = 0

    def begin(self) -> None:
        """The next step begins."""
        self._synchronise()
        self._began = time.perf_counter()

    def end(self, *, lengths: Sequence[int], trained: int, loss: float) -> None:
        """A step has been made of rows of these lengths."""
        self._synchronise()
        seconds = time.perf_counter() - self._began
        pairs = sum(n * (n + 1) / 2 for n in lengths)
        flops = _train_flops.training_flops(
            self.config, tokens=sum(lengths), pairs=pairs, trained=trained, rank=RANK
        )
        step = {"tokens": sum(lengths), "seconds": seconds, "flops": flops, "loss": loss}
        self.write(**step, peak_gib=self._peak())
        self._done += 1
        if self._done == self.count + WARM_UP:
            # Saving what was trained is not measured.
            sys.stdout.flush()
            os._exit(0)
        self.begin()

    def write(self, **measured: Any) -> None:
        """Add a line to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.said | measured) + "\n")

    def _synchronise(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _peak(self) -> float | None:
        import torch

        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def main() -> None:
    """Measure one side on one shape."""
    given = arguments()
    if given.wheels:
        unpack(given.wheels)
    import torch

    device = torch.device(given.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    said = {"shape": given.shape, "side": given.side, "device": name}
    said |= {"attention": "", "checkpointing": given.checkpointing, "torch": torch.__version__}
    steps = Steps(given.steps_file, given.steps, said, device, config_of(given.shape))
    try:
        {"rate": rate, "ours": ours, "trl": trl}[given.side](
            steps, checkpointing=given.checkpointing
        )
    except torch.OutOfMemoryError as error:
        print(f"{given.shape} {given.side}: out of memory: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)


def unpack(wheels: Path) -> None:
    """Make the wheels importable behind what is installed.

    Unpacked, because packages read files that lie beside their modules.
    """
    folder = tempfile.mkdtemp()
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    sys.path.append(folder)


def config_of(shape: str) -> Any:
    """Return the configuration of a shape."""
    from transformers import AutoConfig

    kind, sizes = SHAPES[shape]
    return AutoConfig.for_model(kind, max_position_embeddings=8192, **sizes)


def model_of(steps: Steps, attention: str) -> Any:
    """Return a model with weights drawn on the device, in bf16, none of which is trained."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with steps.device:
        model = AutoModelForCausalLM.from_config(
            steps.config, dtype=torch.bfloat16, attn_implementation=attention
        )
    return model.requires_grad_(requires_grad=False)


def rows(vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Return (ids, labels) of random rows, a quarter of each being the prompt."""
    rng = random.Random(0)
    made = []
    for _ in range(ROWS):
        length = max(16, min(LONGEST, round(rng.lognormvariate(5.3, 0.9))))
        ids = [rng.randrange(3, vocabulary) for _ in range(length)]
        asked = length // 4
        made.append((ids, [-100] * asked + ids[asked:]))
    return made


def rate(steps: Steps, *, checkpointing: bool) -> None:
    """Measure the device's bf16 rate in the products of the model's linear layers and head."""
    del checkpointing
    import torch

    on = {"dtype": torch.bfloat16, "device": steps.device}
    made = [
        (torch.randn(BATCH, i, **on), torch.randn(BATCH, o, **on), torch.randn(o, i, **on), times)
        for (i, o), times in _train_flops.products(steps.config).items()
    ]

    def multiply() -> float:
        done = 0.0
        for x, grad, weight, times in made:
            for _ in range(times):
                torch.nn.functional.linear(x, weight)
                grad @ weight
                done += 4.0 * BATCH * weight.numel()
        return done

    found = []
    for _ in range(WARM_UP + 5):
        steps.begin()
        began = time.perf_counter()
        done = multiply()
        if steps.device.type == "cuda":
            torch.cuda.synchronize()
        found.append(done / (time.perf_counter() - began))
    steps.write(rate=sorted(found[WARM_UP:])[2])


def ours(steps: Steps, *, checkpointing: bool) -> None:
    """Train with our trainer: below `fit()`, which would want a tokenizer."""
    import numpy as np

    from pipeline.spec.train import TrainSpec
    from pipeline.training import compute, trainer
    from pipeline.training.examples.encode import EncodedRow
    from pipeline.training.examples.packing import plan_batches
    from pipeline.training.losses import objective
    from pipeline.training.methods import methods
    from registry.models.load import LoadedModel

    made = [
        EncodedRow(uid, np.array(ids, np.int32), np.array(labels, np.int32))
        for uid, (ids, labels) in enumerate(rows(steps.config.vocab_size))
    ]
    spec = TrainSpec(
        base="random",
        rank=RANK,
        epochs=20,
        batch_tokens=BATCH,
        checkpoint_steps=10**6,
        activation_checkpointing=checkpointing,
    )
    plan = plan_batches(
        [row.tokens for row in made], epochs=spec.epochs, seed=spec.seed, budget=spec.batch_tokens
    )
    model = model_of(steps, "sdpa")
    identity: Any = SimpleNamespace(name="random")
    tokenizer: Any = None
    loaded = LoadedModel(model, tokenizer, identity, steps.device, model.dtype, LONGEST)
    why_not = compute.why_not_packed(loaded)
    steps.said["attention"] = f"one row at a time: {why_not}" if why_not else "packed rows"

    def on_step(step: Any) -> None:
        lengths = [made[row].tokens for row in plan[step.step - 1].rows]
        steps.end(lengths=lengths, trained=step.trained_tokens, loss=step.loss)

    with (
        tempfile.TemporaryDirectory() as folder,
        compute.seeded(spec.seed),
        compute.packing(model, wanted=why_not is None),
        methods.trained_weights(loaded, spec) as trained,
    ):
        run = trainer.Run(
            spec=spec,
            objective=objective.Answers(made, steps.device),
            plan=plan,
            ways=objective.ForwardMode(packed=why_not is None, share=False),
            root=Path(folder),
            fingerprint="bench",
            on_step=on_step,
            log=lambda text: steps.said.update(note=text),  # a batch that didn't fit, say
        )
        steps.begin()
        trainer.train(trained.model, run, None)


def trl(steps: Steps, *, checkpointing: bool) -> None:
    """Train with TRL's SFTTrainer."""
    from _turns import IGNORED, rows_of
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    attention = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    steps.said["attention"] = attention
    made = [{"input_ids": i, "labels": labels} for i, labels in rows(steps.config.vocab_size)]
    settings = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )

    class Measured(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            batch.clear()
            batch.extend(len(row) for row in rows_of(inputs, pad=0))
            batch_trained.append(int((inputs["labels"] != IGNORED).sum()))
            batch_loss.append(super().training_step(model, inputs, *args, **kwargs))
            return batch_loss[-1]

        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            # Called when a step, optimizer included, is done.
            trained, loss = batch_trained[-1], float(batch_loss[-1])
            steps.end(lengths=list(batch), trained=trained, loss=loss)
            super()._maybe_log_save_evaluate(*args, **kwargs)

    batch: list[int] = []
    batch_trained: list[int] = []
    batch_loss: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Measured(
            model=model_of(steps, attention),
            args=SFTConfig(
                output_dir=folder,
                packing=True,
                max_length=BATCH,
                per_device_train_batch_size=1,
                gradient_checkpointing=checkpointing,
                bf16=True,
                learning_rate=2e-4,
                num_train_epochs=20,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=steps.device.type == "cpu",
            ),
            train_dataset=Dataset.from_list(made),
            processing_class=tokenizer(),
            peft_config=settings,
        )
        steps.begin()
        trainer.train()


def tokenizer() -> Any:
    """Return a tokenizer that TRL asks for and nothing uses."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1, "<unk>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),  # noqa: S106
        **dict(zip(("pad_token", "eos_token", "unk_token"), words, strict=True)),
    )


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("side", choices=("rate", "ours", "trl"))
    parser.add_argument("steps_file", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--checkpointing", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
