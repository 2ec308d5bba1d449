"""Adapters from outside: each thing that one may carry is refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.identity import BaseIdentity
from registry.incoming import MOST_HEADER_BYTES, Declared, base_for, check_folder, check_header

COMMIT = "a" * 40


def safetensors(header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


WHOLE = safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4)


def adapter(folder: Path, weights: bytes = WHOLE, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    given = {"peft_type": "LORA", "base_model_name_or_path": "nano", "r": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(given), "utf-8")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def base(name: str, source: str) -> BaseIdentity:
    return BaseIdentity(name, source, f"digest of {source}", 1, 1, "LlamaForCausalLM", "fp32")


BASES = {"nano": base("nano", "nano"), "qwen": base("qwen", f"Qwen/Qwen3@{COMMIT}")}


def test_a_whole_one_says_its_base(tmp_path: Path) -> None:
    assert check_folder(adapter(tmp_path, revision="main")) == Declared("nano", "main")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"auto_mapping": {"base_model_class": "Evil"}}, "auto_mapping makes the loader run"),
        ({"peft_type": "PROMPT_TUNING"}, "it is a PROMPT_TUNING adapter"),
        ({"target_modules": ["../../etc/passwd"]}, "target_modules is a path"),
        ({"modules_to_save": ["/etc/passwd"]}, "modules_to_save is a path"),
        ({"base_model_name_or_path": "../../elsewhere"}, "base_model_name_or_path is a path"),
        ({"megatron_config": "C:\\Users\\me"}, "megatron_config is a path"),
    ],
)
def test_a_configuration_that_reaches_out_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check_folder(adapter(tmp_path, **config))
    assert "\n" not in str(raised.value)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (adapter(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is a pickle"):
        check_folder(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WHOLE)
    folder = adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to(secret)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is a link"):
        check_folder(folder)


def test_a_configuration_of_megabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config\.json has \d+ bytes"):
        check_folder(adapter(tmp_path, padding="x" * (2 << 20)))


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
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        check_header(path)


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MOST_HEADER_BYTES + 1))
        file.truncate(MOST_HEADER_BYTES * 4)  # a sparse file: it takes no disk
    with pytest.raises(UserError, match="its header claims"):
        check_header(path)


@pytest.mark.parametrize(
    ("declared", "chosen", "found"),
    [
        (Declared("nano", None), None, "nano"),
        (Declared("Qwen/Qwen3", None), None, "qwen"),
        (Declared("Qwen/Qwen3", COMMIT), None, "qwen"),
        (Declared("/data/models/nano", None), None, "nano"),
        (Declared("/data/models/other", None), "qwen", "qwen"),
        (Declared("", None), "nano", "nano"),
    ],
)
def test_the_base_is_the_one_it_names(declared: Declared, chosen: str | None, found: str) -> None:
    assert base_for(declared, BASES, chosen, "here") == found


@pytest.mark.parametrize(
    ("declared", "chosen", "message"),
    [
        (Declared("meta/Llama", None), None, "it was trained on meta/Llama, which is no base"),
        (Declared("meta/Llama", None), "nano", "it was trained on meta/Llama, which is no base"),
        (Declared("Qwen/Qwen3", "b" * 40), None, "it was trained on Qwen/Qwen3 at bbb"),
        (Declared("", None), None, "it names no base"),
        (Declared("/data/models/other", None), None, "name the base with --base"),
    ],
)
def test_another_base_is_refused(declared: Declared, chosen: str | None, message: str) -> None:
    with pytest.raises(UserError) as raised:
        base_for(declared, BASES, chosen, "here")
    assert message.lower() in str(raised.value).lower()
