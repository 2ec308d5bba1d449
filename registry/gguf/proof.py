"""The proof of a GGUF file: read back in a new process, it answers as the folder does.

Three things are compared: every tensor with the one it was made from, the logits on the prompts of
`registry.models.parity`, and the token ids that the file's vocabulary makes of texts.
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
from registry.gguf.convert import original_tensors, stored_type, write_gguf
from registry.gguf.file import GgufFile
from registry.models.classes import causal_class_of
from registry.models.parity import PROMPTS, distance, logits_of
from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.gguf.architectures import Array
    from registry.gguf.convert import GgufType, ModelFolder
    from registry.models.parity import Logits

GGUF_BOUNDS: dict[GgufType, float] = {"f32": 1e-4, "f16": 1e-2, "q8_0": 1e-1}
"""Largest allowed |difference| of any logit, divided by the largest |logit|, per type."""

TEXTS = (
    *PROMPTS,
    "",
    "  two  spaces,\ttab\n\n and 1234567, but it isn't — I'M, we'll, x 's\r\n",
    "$3.50 + 20% = 4,20 € (approx.); e-mail: a_b@c.d, #tag, C:\\dir\\*.txt, <b>x</b>",
)
"""What both vocabularies must make the same ids of, besides a short conversation."""

QUOTED = "One word of 'so', 'them', 'remark', 'dare', 'mild', 'very' and 'llama'."
"""The same, unless the vocabulary says that it is read otherwise."""


@dataclass(frozen=True)
class GgufProof:
    """How far a GGUF file's model is from the folder's, both computed in float32.

    Attributes:
        dtype: of the matrices.
        bound: what is allowed of `logits`.
        logits: the largest difference over the largest logit, the file read in a new process.
        positions: tokens whose logits were compared, each over the whole vocabulary.
        tensors: how many were compared, each with what its rounding allows.
        texts: how many gave the same token ids.
        context: the longest context that the file gives, in tokens.
        remark: which texts llama.cpp reads otherwise all the same; empty where none.
    """

    dtype: str
    bound: float
    logits: float
    positions: int
    tensors: int
    texts: int
    context: int
    remark: str


def export_gguf(
    source: ModelFolder,
    target: Path,
    dtype: GgufType,
    *,
    name: str,
    advance: Callable[[int], None] = lambda _: None,
) -> GgufProof:
    """Write a model to the GGUF file `target` and prove it; every tensor is told of twice.

    Raises:
        UserError: the model or its tokenizer is of a kind that llama.cpp reads otherwise.
        GateRefusedError: what is read back isn't what was written; names tensors or texts.
    """
    write_gguf(source, target, dtype, name=name, advance=advance)
    return prove(source, target, dtype, advance)


def prove(
    source: ModelFolder,
    path: Path,
    dtype: GgufType,
    advance: Callable[[int], None] = lambda _: None,
) -> GgufProof:
    """Compare a GGUF file with the folder that it was made from.

    Raises:
        GateRefusedError: they differ beyond the bounds.
        StoreError: the file can't be read in a new process.
    """
    file = GgufFile(path)
    context = int(file.figure("context_length"))
    texts = _texts(source)
    wanted: list[list[int]] = [list(source.tokenizer(text)["input_ids"]) for text in texts]
    tokens = [row[:context] for row in wanted[: len(PROMPTS)]]
    found, ids = _read_elsewhere(path, tokens, texts)
    for text, ours, theirs in zip(texts, wanted, ids, strict=True):
        if ours != theirs:
            message = f"export refused: the file's vocabulary makes other tokens of {text[:60]!r}"
            raise GateRefusedError(message)
    wrong = unlike_source(source, file, dtype, advance)
    far = distance(_logits_of_folder(source.folder, tokens), found)
    _refuse_beyond(GGUF_BOUNDS[dtype], far, wrong)
    return GgufProof(
        dtype=dtype,
        bound=GGUF_BOUNDS[dtype],
        logits=far,
        positions=len(found),
        tensors=len(file.tensors),
        texts=len(texts),
        context=context,
        remark=source.vocabulary.remark,
    )


def unlike_source(
    source: ModelFolder,
    file: GgufFile,
    dtype: GgufType,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Return the tensors that differ from their original by more than their type rounds."""
    import numpy as np

    wrong, seen = [], set()
    for name, weight in original_tensors(source):
        seen.add(name)
        advance(1)
        stored = file.tensors.get(name)
        if stored is None or tuple(reversed(stored.shape.tolist())) != weight.shape:
            wrong.append(name)
            continue
        allowed = _rounding(weight, stored_type(name, weight.shape, dtype).name)
        if (np.abs(file.weight(name) - weight) > allowed).any():
            wrong.append(name)
    return [*wrong, *sorted(file.tensors.keys() - seen)]


def _rounding(weight: Array, kind: str) -> Array | float:
    """Return by how much each element may differ once it is stored as `kind`."""
    import numpy as np

    if kind == "F32":
        return 0.0
    if kind == "F16":  # half of the last of 11 bits; below 2^-14, of the smallest step
        return np.asarray(np.abs(weight) * 2.0**-11 + 2.0**-25, dtype=np.float32)
    blocks = np.abs(weight).reshape(-1, 32).max(axis=1, keepdims=True)
    # Half a step of 1/127 of the block's largest, and the step itself is rounded to f16.
    steps = np.broadcast_to(blocks * (0.501 / 127 + 2.0**-11) + 2.0**-17, (len(blocks), 32))
    allowed: Array = steps.astype(np.float32).reshape(weight.shape)
    return allowed


def _texts(source: ModelFolder) -> list[str]:
    from jinja2 import TemplateError

    texts = list(TEXTS) if source.vocabulary.remark else [*TEXTS, QUOTED]
    if source.tokenizer.chat_template:
        chat = [
            {"role": "user", "content": "How much is 12 plus 30?"},
            {"role": "assistant", "content": "It is 42."},
            {"role": "user", "content": " Why? "},
        ]
        try:
            said = source.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:  # one that takes other conversations
            return texts
        texts.append(str(said))
    return texts


def _logits_of_folder(folder: Path, tokens: Sequence[Sequence[int]]) -> Logits:
    import torch
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet_libraries():
            model = causal_class_of(folder).from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True
            )
    finally:
        if shown:
            logging.enable_progress_bar()
    return logits_of(model.eval(), tokens)


def _read_elsewhere(
    path: Path, tokens: Sequence[Sequence[int]], texts: Sequence[str]
) -> tuple[Logits, list[list[int]]]:
    """Return logits on `tokens` and ids of `texts` from a new process that has the file alone."""
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch, "asked.json"), Path(scratch, "answers.npz")
        asked.write_text(json.dumps({"tokens": tokens, "texts": texts}), encoding="utf-8")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "registry.gguf.readback",
                *map(str, (path.resolve(), asked, answered)),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": _package_root(), "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            message = f"the GGUF file can't be read in a new process: {line}"
            raise StoreError(message)
        with np.load(answered) as found:
            ids: Any = json.loads(str(found["ids"]))
            return np.asarray(found["logits"]), ids


def _package_root() -> str:
    return str(Path(__file__).resolve().parent.parent.parent)


def _refuse_beyond(bound: float, found: float, tensors: Sequence[str]) -> None:
    if found <= bound and not tensors:
        return
    named = ", ".join(tensors[:3]) or "no single tensor: a figure of the model"
    more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""  # noqa: PLR2004
    message = (
        f"export refused: read back, the logits differ by {found:.2g} of the largest "
        f"({bound:.2g} is allowed); what differs: {named}{more}"
    )
    raise GateRefusedError(message)
