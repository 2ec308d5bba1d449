"""The read-back of a GGUF file with nothing but the file: config, weights and tokenizer.

Run as a program (`python -m registry.gguf.readback FILE ASKED.json OUT.npz`) it is the new process
that makes a model of the file and writes its logits on token ids, and the ids that the file's
vocabulary makes of texts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from registry.gguf.file import ROPE_FACTORS, GgufFile
from registry.gguf.tokens import ids_of
from registry.models.parity import logits_of


def model_of(file: GgufFile) -> Any:
    """Return a model of transformers in float32 with the weights of a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(file.config(), dtype=torch.float32)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in file.state(model):
            parameters[name].copy_(torch.tensor(weight))
        if ROPE_FACTORS in file.tensors:
            factors = torch.tensor(file.weight(ROPE_FACTORS))
            model.model.rotary_emb.inv_freq /= factors
    return model.eval()


def _answer(path: Path, asked: Path, answered: Path) -> None:
    import numpy as np

    file = GgufFile(path)
    questions = json.loads(asked.read_text(encoding="utf-8"))
    ids = json.dumps(ids_of(file, questions["texts"]))
    logits = logits_of(model_of(file), questions["tokens"])
    np.savez(answered, logits=logits, ids=np.array(ids))


if __name__ == "__main__":
    _answer(*(Path(argument) for argument in sys.argv[1:4]))
