"""GGUF files as others make them: of any type, with other figures, without some tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from registry.gguf.convert import read_source, write_gguf


def written(folder: Path, target: Path) -> Path:
    """Write a model's folder as a GGUF file of f32."""
    write_gguf(read_source(folder), target, "f32", name="tiny")
    return target


def changed(
    path: Path,
    target: Path,
    kind: str = "F32",
    *,
    figures: Mapping[str, Any] | None = None,
    dropped: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a file again, its matrices as `kind`.

    Args:
        path: a file of f32.
        target: the new one.
        kind: a type of ggml; one that its library can't write gets blocks drawn at random.
        figures: to be added or changed; None takes one out.
        dropped: tensors that are left out.
        more: tensors that are added.
    """
    import gguf

    reader = gguf.GGUFReader(path)
    told = dict(figures or {})
    arch = told.get("general.architecture", reader.fields["general.architecture"].contents())
    with closing(gguf.GGUFWriter(target, arch)) as writer:
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name == "general.architecture" or name in told:
                continue
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
        for name, value in told.items():
            if value is not None and name != "general.architecture":
                _add(writer, name, value)
        for tensor in reader.tensors:
            if tensor.name in dropped:
                continue
            data = tensor.data
            if data.ndim < 2:
                writer.add_tensor(tensor.name, data)
                continue
            wanted = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(tensor.name, _as(data, wanted), raw_dtype=wanted)
        for name, data in (more or {}).items():
            writer.add_tensor(name, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return target


def _add(writer: Any, name: str, value: Any) -> None:
    import gguf

    kinds = gguf.GGUFValueType
    kind = {bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}
    writer.add_key_value(name, value, kind[type(value)])


def _as(data: Any, kind: Any) -> Any:
    import gguf

    try:
        return gguf.quants.quantize(data, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.random.default_rng(0).integers(
            0, 256, (*data.shape[:-1], data.shape[-1] // block, size), dtype=np.uint8
        )
        # Wherever a type has its scales, in f16: no infinity, and none that is large.
        scale = np.array([0.001], dtype=np.float16).view(np.uint8)
        for place in (0, 2, size - 2, size - 4):
            blocks[..., place : place + 2] = scale
        return blocks.reshape(*data.shape[:-1], -1)
