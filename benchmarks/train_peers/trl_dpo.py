"""TRL's DPOTrainer, as a side of the training benchmark."""

from __future__ import annotations

import tempfile

from _turns import rows, start, take_turns


def main() -> None:
    """Train until told to end."""
    turns, given = start()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    take_turns(turns)
    torch.manual_seed(0)
    dtype = {} if given["dtype"] is None else {"dtype": given["dtype"]}
    model = AutoModelForCausalLM.from_pretrained(given["folder"], **dtype)
    data = [
        {
            "prompt": [{"role": "user", "content": row["user"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows(given)
    ]
    with tempfile.TemporaryDirectory() as folder:
        DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=folder,
                learning_rate=2e-4,
                num_train_epochs=1000,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                **given["trainer"],
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=AutoTokenizer.from_pretrained(given["folder"]),
            peft_config=LoraConfig(
                r=16,
                lora_alpha=32,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        ).train()


if __name__ == "__main__":
    main()
