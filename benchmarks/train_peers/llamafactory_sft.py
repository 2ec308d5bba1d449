"""LLaMA-Factory's SFT, as a side of the training benchmark.

It reads rows as its users give them, an alpaca file and a template by name, and makes the tokens
itself; the benchmark compares them with everybody's.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import tempfile
import types
from pathlib import Path

from _turns import rows, start, take_turns

os.environ |= {"DISABLE_VERSION_CHECK": "1"}


def main() -> None:
    """Train until told to end."""
    turns, given = start()
    take_out_torchaudio()
    from llamafactory.data.formatter import StringFormatter
    from llamafactory.data.template import register_template
    from llamafactory.train.tuner import run_exp

    take_turns(turns)
    register_template(
        name="bench",
        format_user=StringFormatter(slots=["<|user|>{{content}}<|end|><|assistant|>"]),
        format_assistant=StringFormatter(slots=["{{content}}<|end|>"]),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), given)
        run_exp(
            {
                "stage": "sft",
                "do_train": True,
                "model_name_or_path": given["folder"],
                "dataset": "bench",
                "dataset_dir": folder,
                "template": "bench",
                "finetuning_type": "lora",
                "lora_rank": 16,
                "lora_alpha": 32,
                "lora_dropout": 0.0,
                "lora_target": "all",
                "output_dir": f"{folder}/out",
                "learning_rate": 2e-4,
                "num_train_epochs": 1000,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "use_cpu": True,
                **given["trainer"],
            }
        )


def take_out_torchaudio() -> None:
    """Stand in for torchaudio: its import is unconditional, and text needs nothing of it."""
    name = "torchaudio"
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__version__ = "0"
    sys.modules[name] = module


def write_dataset(folder: Path, given: dict[str, object]) -> None:
    """Write the rows as an alpaca file."""
    listed = [
        {"instruction": row["user"], "input": "", "output": row["assistant"]} for row in rows(given)
    ]
    (folder / "bench.json").write_text(json.dumps(listed), "utf-8")
    (folder / "dataset_info.json").write_text('{"bench": {"file_name": "bench.json"}}', "utf-8")


if __name__ == "__main__":
    main()
