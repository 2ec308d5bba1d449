"""Safetensors headers: what lies about its length, its shapes or its bytes is refused unread."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.models.safetensors_header import MOST_HEADER_BYTES, Tensor, header_text, read_header


def safetensors(header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "I8", "BOOL", "F8_E4M3", "C64", "F4"])
def test_every_kind_of_number_has_its_size(tmp_path: Path, dtype: str) -> None:
    size = {"F64": 16, "F32": 8, "BF16": 4, "C64": 16, "F4": 1}.get(dtype, 2)
    path = tmp_path / "adapter_model.safetensors"
    header = {"a": {"dtype": dtype, "shape": [2, 1], "data_offsets": [0, size]}}
    path.write_bytes(safetensors(header, b"\0" * size))
    read_header(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04" + b"\0" * 100,  # a zip, which is what torch.save writes
        safetensors({}, b"", length=2**63),
        safetensors(b"{" + b" " * 50, b""),
        safetensors(b"[" * 100_000, b""),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 3),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 5),
        safetensors(
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            b"\0" * 4,
        ),
        safetensors({"a": 3}, b""),
        safetensors({"__metadata__": {"a": 3}}, b""),
        safetensors({"__metadata__": ["a"]}, b""),
        *(
            safetensors({"a": {"dtype": dtype, "shape": shape, "data_offsets": ends}}, b"\0" * 4)
            for dtype, shape, ends in (
                ("F32", [-1, -1], [0, 4]),
                ("F32", [1.0], [0, 4]),
                ("F32", [True], [0, 4]),
                ("F32", ["1"], [0, 4]),
                ("F32", [1 << 40, 1 << 40], [0, 4]),
                ("F32", [2], [0, 4]),
                ("F16", [1], [0, 4]),
                ("F32", [1] * 99, [0, 4]),
                ("F32", [1], [0, 4.0]),
                ("F32", [1], [0, 4, 4]),
                ("what", [1], [0, 4]),
                (32, [1], [0, 4]),
            )
        ),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}, b""),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_header(path)


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MOST_HEADER_BYTES + 1))
        file.truncate(MOST_HEADER_BYTES * 4)  # a sparse file: it takes no disk
    with pytest.raises(UserError, match="its header claims"):
        read_header(path)
    with pytest.raises(UserError, match="its header claims"):
        header_text(path)


def test_a_whole_one_says_its_tensors_and_its_text(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"note": "as it stands"},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
        "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    }
    path.write_bytes(safetensors(header, b"\0" * 16))
    assert read_header(path) == {"a": Tensor("F32", ()), "b": Tensor("BF16", (2, 3))}
    assert json.loads(header_text(path)) == header
