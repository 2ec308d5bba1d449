"""A merged model as a GGUF file: written, read back, and quantised by llama.cpp where asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from registry.gguf.quantise import QUANTS
from registry.publish.use.usage import GgufUsed

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workspace.bars import Bar
    from registry.gguf.convert import GgufType
    from registry.gguf.proof import GgufProof
    from registry.gguf.quantise import Quant, QuantProof
    from registry.store.objects import Store

GgufDtype = Literal["f32", "f16", "q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"]


@dataclass(frozen=True)
class GgufWritten:
    """A GGUF file that was written, with its Modelfile beside it.

    Attributes:
        path: of the file.
        used: its name, and what of it servers can do.
        proof: of the file, or of the f16 one that it was quantised from.
        quantised: what was read back of a quantised one.
    """

    path: Path
    used: GgufUsed
    proof: GgufProof
    quantised: QuantProof | None


def is_quant(dtype: GgufDtype) -> bool:
    """Whether llama.cpp's quantiser makes files of this type."""
    return dtype in QUANTS


def write_gguf_files(
    store: Store,
    source: Path,
    draft: Path,
    dtype: GgufDtype,
    name: str,
    license_text: str | None,
    bar: Bar,
) -> GgufWritten:
    """Write the model in `source` as a GGUF file in `draft`, and a Modelfile; `bar` is told.

    Raises:
        UserError: the model is of a kind that llama.cpp reads otherwise.
        GateRefusedError: what is read back isn't what was written.
        StoreError: llama.cpp's quantiser failed.
    """
    from registry.gguf.convert import read_source, tensors_of
    from registry.gguf.ollama import find_form, modelfile
    from registry.gguf.proof import export_gguf
    from registry.gguf.quantise import prove_quantised, quantise

    model = read_source(source)
    file = draft / f"{name}-{dtype}.gguf"
    # Written and read back; of fewer bits, read back once more.
    bar.begin(tensors_of(model) * (3 if is_quant(dtype) else 2), "tensors")
    quantised = None
    if is_quant(dtype):
        quant = cast("Quant", dtype)
        with store.draft() as scratch:  # it is of no use to anyone once the other is there
            whole = scratch / "f16.gguf"
            proof = export_gguf(model, whole, "f16", name=name, advance=bar.advance)
            quantise(whole, file, quant)
            quantised = prove_quantised(model, whole, file, quant, bar.advance)
    else:
        kind = cast("GgufType", dtype)
        proof = export_gguf(model, file, kind, name=name, advance=bar.advance)
    text = modelfile(model, file.name, license_text)
    (draft / "Modelfile").write_text(text, encoding="utf-8")
    used = GgufUsed(file.name, proof.context, in_ollama=find_form(model) is not None)
    return GgufWritten(file, used, proof, quantised)
