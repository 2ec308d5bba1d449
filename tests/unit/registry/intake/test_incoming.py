"""Adapters from outside: each thing that one may carry is refused in one line."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.intake.adapter import DeclaredBase, base_for, check_folder
from registry.models.base import BaseIdentity
from tests.unit.registry.models.test_safetensors_header import safetensors

COMMIT = "a" * 40


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
    assert check_folder(adapter(tmp_path, revision="main")) == DeclaredBase("nano", "main")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"auto_mapping": {"base_model_class": "Evil"}}, "auto_mapping makes the loader run"),
        ({"peft_type": "PROMPT_TUNING"}, "it is a PROMPT_TUNING adapter"),
        ({"target_modules": ["../../etc/passwd"]}, "target_modules is a path"),
        ({"modules_to_save": ["/etc/passwd"]}, "modules_to_save is a path"),
        ({"base_model_name_or_path": "../../elsewhere"}, "base_model_name_or_path is a path"),
        ({"megatron_config": "C:\\Users\\me"}, "megatron_config is a path"),
        ({"lora_alpha": float("nan")}, "'lora_alpha' is nan"),
        ({"lora_alpha": 1e308}, "'lora_alpha' is 1e\\+308"),
        ({"r": -1}, "'r' is -1"),
        ({"r": "4"}, "'r' is '4'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"rank_pattern": {"a" * 10_001: 3}}, "rank_pattern: a pattern of 10001 characters"),
        ({"target_modules": "(q_proj"}, "is not valid"),
        ({"lora_alpha": float("inf")}, "'lora_alpha' is inf"),
        ({"lora_alpha": 10**400}, "'lora_alpha' is 1000"),
        ({"lora_alpha": "8"}, "'lora_alpha' is '8'"),
        ({"lora_alpha": None}, "'lora_alpha' is None"),
        ({"lora_alpha": True}, "'lora_alpha' is True"),
        ({"alpha_pattern": {"r": float("nan")}}, "'r' is nan"),
        ({"alpha_pattern": ["q"]}, "alpha_pattern is no object"),
        ({"r": 0}, "'r' is 0"),
        ({"r": 4.0}, "'r' is 4.0"),
        ({"r": True}, "'r' is True"),
        ({"r": [4]}, "'r' is .4."),
        ({"rank_pattern": {"q_proj": -3}}, "'q_proj' is -3"),
        ({"exclude_modules": "a["}, "exclude_modules: the pattern 'a.' is not valid"),
        ({"rank_pattern": {"*": 3}}, "rank_pattern: the pattern '.' is not valid"),
        ({"rank_pattern": {"(?i)q": 3}}, "rank_pattern: the pattern .* is not valid"),
        ({"alpha_pattern": {"a{2,1}": 3}}, "alpha_pattern: the pattern .* is not valid"),
        ({"layers_pattern": ["h", "(h"]}, "layers_pattern: the pattern '.h' is not valid"),
        ({"target_modules": "a{99999999999}"}, "target_modules: the pattern .* is not valid"),
        ({"padding": json.loads("[" * 50 + "]" * 50)}, "it is nested too deeply"),
        ({"init_lora_weights": "pissa"}, "pissa changes the base's own weights"),
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


def test_json_without_a_bottom_is_refused(tmp_path: Path) -> None:
    (adapter(tmp_path) / "adapter_config.json").write_text('{"peft_type": ' + "[" * 100_000)
    with pytest.raises(UserError, match="adapter_config"):
        check_folder(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("what", ["pipe", "folder", "socket"])
def test_what_stands_in_the_place_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.chdir(adapter(tmp_path))
    Path(name).unlink()
    if what == "pipe":
        os.mkfifo(name)
    elif what == "folder":
        Path(name).mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    with pytest.raises(UserError, match=f"{name} is no file"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("declared", "chosen", "found"),
    [
        (DeclaredBase("nano", None), None, "nano"),
        (DeclaredBase("Qwen/Qwen3", None), None, "qwen"),
        (DeclaredBase("Qwen/Qwen3", COMMIT), None, "qwen"),
        (DeclaredBase("/data/models/nano", None), None, "nano"),
        (DeclaredBase("/data/models/other", None), "qwen", "qwen"),
        (DeclaredBase("", None), "nano", "nano"),
        # The same weights are known under many names: shapes and tokens are compared afterwards.
        (DeclaredBase("unsloth/Qwen3", None), "qwen", "qwen"),
        (DeclaredBase("Qwen/Qwen3", "b" * 40), "qwen", "qwen"),
    ],
)
def test_the_base_is_the_one_it_names(
    declared: DeclaredBase, chosen: str | None, found: str
) -> None:
    assert base_for(declared, BASES, chosen, "here", "gapmend adapter import x") == found


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (DeclaredBase("meta/Llama", None), "it was trained on meta/Llama, which is no base"),
        (DeclaredBase("Qwen/Qwen3", "b" * 40), "it was trained on Qwen/Qwen3 at bbb"),
        (DeclaredBase("", None), "it names no base"),
        (DeclaredBase("/data/models/other", None), "gapmend adapter import x --base NAME"),
    ],
)
def test_another_base_is_refused(declared: DeclaredBase, message: str) -> None:
    with pytest.raises(UserError) as raised:
        base_for(declared, BASES, None, "here", "gapmend adapter import x")
    assert message.lower() in str(raised.value).lower()
