"""Safetensors files, checked and rewritten without loading them into a framework."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from registry.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def canonical_safetensors(path: Path) -> bytes:
    """Return the tensors of `path` as a safetensors file whose bytes depend on them alone.

    Tensors are ordered by name, and the metadata is replaced by {"format": "pt"}, so neither the
    writer's order nor what it noted in the header (a path, for instance) stays.

    Raises:
        UserError: the file is not well-formed safetensors (a pickle or a zip is not).
    """
    import safetensors

    data = path.read_bytes()
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ModelError(
            f"not a well-formed safetensors file: {error}",
            where=str(path),
            fix="save the weights as safetensors",
        ) from error
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    chunks: list[bytes] = []
    end = 0
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        start, end = end, end + len(tensor["data"])
        header[name] = {
            "dtype": tensor["dtype"],
            "shape": list(tensor["shape"]),
            "data_offsets": [start, end],
        }
        chunks.append(bytes(tensor["data"]))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((struct.pack("<Q", len(text)), text, *chunks))
