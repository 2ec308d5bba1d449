"""`python -m registry.nano.recipe --out DIR`: make nano from nothing but a seed."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from registry.nano.recipe.train import Progress, TrainingBudget


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, and write the model folder."""
    from registry.nano.recipe.train import TrainingBudget

    parser = argparse.ArgumentParser(prog="python -m registry.nano.recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=TrainingBudget().steps, help="training steps")
    given = parser.parse_args(arguments)
    make(given.out, TrainingBudget(steps=given.steps), given.seed)


def make(out: Path, plan: TrainingBudget, seed: int) -> Progress:
    """Make the model and write it to `out`; the same seed gives the same corpus and order."""
    from registry.nano.recipe import tokenizer, train

    tokens = tokenizer.build(seed)
    model = train.new_model(tokens, seed)
    done = train.train(model, tokens, plan, seed, _report)
    save(model, tokens, out)
    record = {
        "seed": seed,
        "plan": asdict(plan),
        "loss": done.loss,
        "tokens": done.tokens,
        "seconds": round(done.seconds),
        "machine": platform.machine(),
    }
    (out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return done


def save(model: LlamaForCausalLM, tokens: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bf16), configuration, tokenizer and chat template to `out`."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokens.save_pretrained(out)


def _report(progress: Progress) -> None:
    speed = progress.tokens / max(progress.seconds, 1e-9)
    sys.stdout.write(
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.3f}  "
        f"{progress.tokens / 1e6:.2f} M tokens  {progress.seconds:.0f} s  {speed:.0f} tokens/s\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
