"""What no base's config.json has is refused before any library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.models.base_config import indexed, read_config

REAL: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "max_position_embeddings": 262_144,
    "vocab_size": 262_208,
    "sliding_window": None,
    "layer_types": ["full_attention"] * 64,
    "time_step_limit": [0.0, float("inf")],
    "rope_scaling": {"factor": 4.0},
    "vision_config": {"num_hidden_layers": 27, "_attn_implementation": "sdpa"},
    "_attn_implementation": "flash_attention_2",
    "attn_implementation": None,
}


def folder(place: Path, **changes: Any) -> Path:
    (place / "config.json").write_text(json.dumps(REAL | changes), "utf-8")
    return place


def test_what_models_have_is_read(tmp_path: Path) -> None:
    assert read_config(folder(tmp_path), "here") == REAL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_attn_implementation": "someone/kernel"}, "_attn_implementation is 'someone/kernel'"),
        ({"attn_implementation": {"": "sdpa", "text_config": "a/b@v1:f"}}, "attn_implementation"),
        (
            {"vision_config": {"_attn_implementation": "someone/kernel"}},
            "vision_config._attn_implementation is 'someone/kernel'; expected one of",
        ),
        ({"layers": [{"_attn_implementation": "a/b"}]}, "layers._attn_implementation is 'a/b'"),
        ({"experts_implementation": "a/b"}, "experts_implementation is 'a/b'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected 10000 at most"),
        ({"n_layer": 10**9}, "n_layer is 1000000000"),
        ({"text_config": {"num_hidden_layers": 10**30}}, "text_config.num_hidden_layers is 10000"),
        ({"vocab_size": 1 << 40}, "vocab_size is 1099511627776"),
        ({"num_local_experts": 1 << 40}, "num_local_experts is 1099511627776"),
        (
            {"max_position_embeddings": "many"},
            "max_position_embeddings is 'many'; expected",
        ),
        ({"text_config": [1]}, "text_config is [1]; expected an object"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is no list of names"),
        ({"padding": json.loads("[" * 50 + "]" * 50)}, "is nested too deeply"),
    ],
)
def test_what_no_model_has_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        read_config(folder(tmp_path, **changes), "bases.b")
    assert message in str(raised.value)
    assert str(raised.value).startswith("bases.b: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[", "[]", "[" * 100_000])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"^bases\.b: ") as raised:
        read_config(tmp_path, "bases.b")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "names", [["../../secret.safetensors"], ["a\\b.safetensors"], ["x.bin"], [3], []], ids=str
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, names: list[object]) -> None:
    index: dict[str, Any] = {"weight_map": dict(enumerate(names)) if names else ["a"]}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(UserError, match="weight_map names no files"):
        indexed(tmp_path)
