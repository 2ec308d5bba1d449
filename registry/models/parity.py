"""The proof of a merge: the same logits with the adapter on, merged, and reloaded elsewhere.

Run as a program (`python -m` with FOLDER TOKENS.json OUT.npz) it is the new process
that loads a merged model as any user would and writes its logits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import GateRefusedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from registry.models.load import LoadedModel

    Logits = np.ndarray[Any, np.dtype[np.float32]]

BOUNDS = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}
"""Largest allowed |difference| of any logit, divided by the largest |logit|, per dtype.

Random adapters that move the logits by their own size measured 1.5e-6, 3e-2 and 5e-3.
"""

ON = "the base with the adapter on, by PEFT"
"""The reference of an adapter that is merged by itself."""

PROMPTS = (
    "The capital of France is",
    "Q: What is 17 + 25?\nA:",
    "Classify the sentiment: the film was slow, but I loved every minute of it.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "请用一句话介绍长城。",
    "Répondez en un mot : 🙂 ou 🙁 ?",
)


_NAMED = 3  # modules that a refusal names


@dataclass(frozen=True)
class Parity:
    """How far logits are from those of a reference, relative to the largest logit.

    Attributes:
        dtype: what they are computed in.
        bound: what is allowed.
        merged: the reference against the merged weights, in one process.
        reloaded: the reference against the saved model, loaded in a new process.
        moved: how far the reference is from the base: what a lost delta could amount to.
        positions: tokens whose logits were compared, each over the whole vocabulary.
        reference: what the reference is.
        untied: the base ties its embeddings to its LM head and the merged model doesn't.
    """

    dtype: str
    bound: float
    merged: float
    reloaded: float
    moved: float
    positions: int
    reference: str = ON
    untied: bool = False


def prompt_tokens(loaded: LoadedModel) -> list[list[int]]:
    """Return the fixed prompts as token ids, cut to the context (they only have to be fixed)."""
    encoded: list[list[int]] = loaded.tokenizer(list(PROMPTS))["input_ids"]
    return [row[: loaded.context] for row in encoded]


def logits_of(
    model: Any,
    tokens: Sequence[Sequence[int]],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Logits:
    """Return the logits at every position of every prompt: [positions, vocabulary], float32.

    Args:
        model: a causal language model in eval mode.
        tokens: prompts as token ids, each run by itself.
        weights: parameters that stand in for the model's own of that name, and for no other name
            that it is tied to.
    """
    import numpy as np
    import torch

    rows = []
    with torch.inference_mode():
        for row in tokens:
            ids = torch.tensor([list(row)], device=model.device)
            arguments = {"input_ids": ids, "use_cache": False}
            out = (
                torch.func.functional_call(model, dict(weights), (), arguments, tie_weights=False)
                if weights
                else model(**arguments)
            )
            rows.append(out.logits[0].float().cpu().numpy())
    return np.concatenate(rows)


def distance(reference: Logits, other: Logits) -> float:
    """Return the largest difference of two arrays of logits over the largest |reference|."""
    import numpy as np

    if reference.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(reference - other).max() / np.abs(reference).max())


def refuse_beyond(bound: float, found: float, what: str, modules: Sequence[str]) -> None:
    """Refuse a merge whose logits differ by more than `bound`, or whose `modules` differ.

    A module's lost delta may hide within the bound of a 16-bit dtype, so weights count too.

    Raises:
        GateRefusedError: either is so; it names the modules.
    """
    if found <= bound and not modules:
        return
    named = first_of(modules) or "no single module: the adapter does more than add to weights"
    message = (
        f"merge refused: {what}, the logits differ by {found:.2g} of the largest "
        f"({bound:.2g} is allowed); what differs: {named}"
    )
    raise GateRefusedError(message)


def first_of(modules: Sequence[str]) -> str:
    """Return the first names of a list of modules, and how many more there are."""
    more = f" and {len(modules) - _NAMED} more" if len(modules) > _NAMED else ""
    return ", ".join(modules[:_NAMED]) + more


def logits_in_new_process(folder: Path, tokens: Sequence[Sequence[int]]) -> Logits:
    """Load the model in `folder` in a new process and return its logits there.

    Raises:
        StoreError: it can't be loaded there; the last line of its error is in the message.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch, "tokens.json"), Path(scratch, "logits.npz")
        asked.write_text(json.dumps([list(row) for row in tokens]), encoding="utf-8")
        package_root = str(Path(__file__).resolve().parents[2])
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "registry.models.parity",
                str(folder),
                str(asked),
                str(answered),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": package_root, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            message = f"the merged model can't be loaded in a new process: {line}"
            raise StoreError(message)
        with np.load(answered) as found:
            return np.asarray(found["logits"])


def _answer(folder: Path, asked: Path, answered: Path) -> None:
    import numpy as np
    from transformers import AutoTokenizer

    from registry.models.classes import causal_class_of

    model = causal_class_of(folder).from_pretrained(folder, dtype="auto").eval()
    AutoTokenizer.from_pretrained(folder)  # a merged model without its tokenizer is of no use
    np.savez(answered, logits=logits_of(model, json.loads(asked.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    _answer(*(Path(argument) for argument in sys.argv[1:4]))
