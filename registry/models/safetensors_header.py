"""The header of a safetensors file, read and checked before any library opens the file.

The format: 8 bytes with the header's length, the header (JSON: tensor -> dtype, shape and place,
beside notes), the tensors' bytes. A file from outside may lie about each of these.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOST_HEADER_BYTES = 16 << 20  # 100,000 tensors take about 12 MiB
_LENGTH = struct.Struct("<Q")
_LARGEST_SIDE = 1 << 48  # of a tensor
_MOST_SIDES = 16
_NOTES = "__metadata__"


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor: its dtype by the format's name (`BF16`), and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Tensor]:
    """Return name -> tensor of a file whose header fits it to the byte.

    Raises:
        UserError: the header is too long, not JSON, or doesn't fit the file (as after an
            interrupted download); or tensors' bytes overlap.
    """
    try:
        text = _header(path)
        header = json.loads(text)
        notes = header.pop(_NOTES, {})
        if not all(isinstance(note, str) for note in notes.values()):
            raise ValueError("its metadata are no texts")  # noqa: TRY301 - one way out for all
        if not all(_fills(one) for one in header.values()):
            raise ValueError("a tensor's shape doesn't fit its bytes")  # noqa: TRY301
        spans = sorted(tuple(one["data_offsets"]) for one in header.values())
        ends = [0, *(end for _, end in spans)]
        whole = _LENGTH.size + len(text) + ends[-1] == path.stat().st_size
        if [start for start, _ in spans] != ends[:-1] or not whole:
            raise ValueError("its tensors don't fill the file")  # noqa: TRY301
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_whole(path, error) from None
    return {name: Tensor(one["dtype"], tuple(one["shape"])) for name, one in header.items()}


def header_text(path: Path) -> str:
    """Return the header as it stands in the file, for a look through its texts.

    Raises:
        UserError: it is longer than the file, or than any that is read.
    """
    try:
        return _header(path).decode("utf-8", errors="replace")
    except ValueError as error:
        raise _not_whole(path, error) from None


def _header(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise ValueError(f"it has {size} bytes")
        (length,) = _LENGTH.unpack(start)
        if length > min(size - _LENGTH.size, MOST_HEADER_BYTES):
            raise ValueError(f"its header claims {length} bytes")
        return file.read(length)


def _fills(tensor: Mapping[str, Any]) -> bool:
    """Whether a tensor's shape takes just its bytes."""
    sides, offsets = tensor["shape"], tensor["data_offsets"]
    whole = [*sides, *offsets]
    if len(offsets) != 2 or len(sides) > _MOST_SIDES:  # noqa: PLR2004 - start and end
        return False
    if any(type(one) is not int or not 0 <= one < _LARGEST_SIDE for one in whole):
        return False
    dtype = re.match(r"(?:[A-Z]+?)([0-9]+)(?:_|$)", tensor["dtype"])  # F32, BF16, F8_E4M3
    bits = 8 if tensor["dtype"] == "BOOL" else int(dtype[1]) if dtype else 0
    return bits > 0 and math.prod(sides) * bits == 8 * (offsets[1] - offsets[0])


def _not_whole(path: Path, error: Exception) -> UserError:
    return ModelError(
        f"not a whole safetensors file: {error}",
        str(path),
        expected="weights as save_pretrained writes them",
        fix="download or save it again",
    )
