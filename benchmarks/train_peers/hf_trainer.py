"""transformers' own Trainer with PEFT's LoRA, as a side of the training benchmark."""

from __future__ import annotations

import tempfile

from _turns import rows, start, take_turns


def main() -> None:
    """Train until told to end."""
    turns, given = start()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    take_turns(turns)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(given["folder"], **dtype_of(given))
    settings = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    data = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows(given)]
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=get_peft_model(model, settings),
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=2e-4,
                num_train_epochs=1000,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                **given["trainer"],
            ),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(given["folder"])),
        ).train()


def dtype_of(given: dict[str, object]) -> dict[str, object]:
    """Return how the model is to be loaded; as it comes, if nothing is asked for."""
    return {} if given["dtype"] is None else {"dtype": given["dtype"]}


if __name__ == "__main__":
    main()
