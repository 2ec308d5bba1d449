"""GGUF files of fewer bits, made by llama.cpp's own quantiser and read back (the extra `quants`).

llama.cpp decides tensor by tensor: where a row is no multiple of 256, a K-quant falls back to
blocks of 32 with more bits. What stands in the file is counted.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from registry.errors import GateRefusedError, StoreError
from registry.extras import require_extra
from registry.gguf.file import GgufFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.gguf.convert import ModelFolder

Quant = Literal["q4_0", "q4_k_m", "q5_k_m", "q6_k"]
QUANTS: tuple[Quant, ...] = get_args(Quant)

QUANT_BOUNDS: dict[Quant, float] = {"q4_0": 0.2, "q4_k_m": 0.2, "q5_k_m": 0.1, "q6_k": 0.05}
"""Largest allowed distance of any matrix from its original, as a share of that, per type: about
twice what a matrix of normally distributed weights loses. Beyond it something else is wrong."""

# What says how the file is written, and not what the model is.
_OF_THE_FILE = ("general.file_type", "general.quantization_version", "quantize.")


@dataclass(frozen=True)
class QuantProof:
    """What was read back of a quantised file.

    Attributes:
        dtype: as it was asked for.
        bound: what is allowed of `error`.
        error: the largest distance of a matrix from its original, as a share of that.
        worst: that matrix.
        types: ggml's type -> how many tensors are of it.
        texts: how many gave the same token ids in llama.cpp.
        otherwise: texts that llama.cpp reads otherwise than the tokenizer.
        context: the longest context that the file gives, in tokens.
        made_by: the quantiser and its version.
    """

    dtype: str
    bound: float
    error: float
    worst: str
    types: dict[str, int]
    texts: int
    otherwise: tuple[str, ...]
    context: int
    made_by: str


def require_quantiser(where: str) -> None:
    """Check that llama.cpp's quantiser is installed.

    Raises:
        UserError: it isn't; the line says what installs it.
    """
    require_extra("quants", where)


def quantise(source: Path, target: Path, dtype: Quant) -> None:
    """Write the GGUF file `source` (f16 or f32) as `target` with fewer bits, on the disk on return.

    Raises:
        StoreError: llama.cpp can't; it says no more than that.
    """
    llama_cpp = quiet_llama_cpp()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{dtype.upper()}")
    settings.nthread = os.cpu_count() or 1
    said = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(settings)
    )
    if said != 0 or not target.is_file():
        message = f"llama.cpp can't write {dtype}: its quantiser ended with {said}"
        raise StoreError(message)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def prove_quantised(
    model: ModelFolder,
    source: Path,
    target: Path,
    dtype: Quant,
    advance: Callable[[int], None] = lambda _: None,
) -> QuantProof:
    """Compare a quantised file with the one that it was made from, and with the tokenizer.

    Raises:
        GateRefusedError: another figure, another tensor, one too far off, or no number.
    """
    before, after = GgufFile(source), GgufFile(target)
    _refuse_other_figures(before, after)
    worst, error = _furthest(before, after, advance)
    if not error <= QUANT_BOUNDS[dtype]:
        message = (
            f"export refused: read back, {worst} is {error:.2g} of itself from its original "
            f"({QUANT_BOUNDS[dtype]:.2g} is allowed)"
        )
        raise GateRefusedError(message)
    read, otherwise = _read_by_llama_cpp(model, target)
    kinds = Counter(tensor.tensor_type.name for tensor in after.tensors.values())
    return QuantProof(
        dtype=dtype,
        bound=QUANT_BOUNDS[dtype],
        error=error,
        worst=worst,
        types=dict(sorted(kinds.items())),
        texts=read,
        otherwise=otherwise,
        context=int(after.figure("context_length")),
        made_by=f"llama_cpp {quiet_llama_cpp().__version__}",
    )


@cache
def quiet_llama_cpp() -> Any:
    """Return the library, which says what it does on stderr unless it is told not to."""
    import llama_cpp

    @llama_cpp.llama_log_callback
    def nothing(_level: int, _text: bytes, _data: Any) -> None:
        pass

    llama_cpp.llama_log_set(nothing, ctypes.c_void_p(0))
    llama_cpp.gapmend_log = nothing  # C holds it, and Python has to as well
    llama_cpp.llama_backend_init()
    return llama_cpp


def _refuse_other_figures(before: GgufFile, after: GgufFile) -> None:
    def told(file: GgufFile) -> dict[str, Any]:
        own = {k: v for k, v in file.figures.items() if not k.startswith(("GGUF.", *_OF_THE_FILE))}
        return own | {"tensors": {n: t.shape.tolist() for n, t in file.tensors.items()}}

    one, two = told(before), told(after)
    other = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    if other:
        message = f"export refused: the quantised file has another {other[0]}"
        raise GateRefusedError(message)


def _furthest(
    before: GgufFile, after: GgufFile, advance: Callable[[int], None]
) -> tuple[str, float]:
    """Return the tensor that is furthest from its original, and how far, as a share of that."""
    import numpy as np

    worst, error = "", 0.0
    for name in before.tensors:
        original, found = before.weight(name), after.weight(name)
        size = float(np.linalg.norm(original))
        far = float(np.linalg.norm(found - original)) / (size or 1.0)
        if not far <= error:  # NaN too
            worst, error = name, far
        advance(1)
    return worst, error


def _read_by_llama_cpp(model: ModelFolder, file: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many texts llama.cpp makes the tokenizer's ids of, and the others."""
    from registry.gguf.proof import TEXTS

    llama = quiet_llama_cpp().Llama(str(file), vocab_only=True, verbose=False)
    try:
        found = {text: list(llama.tokenize(text.encode(), special=True)) for text in TEXTS}
    finally:
        llama.close()
    others = tuple(t for t in TEXTS if found[t] != list(model.tokenizer(t)["input_ids"]))
    return len(TEXTS) - len(others), others
