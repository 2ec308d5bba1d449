"""Adapters in the store: canonical, clean of paths and tokens, no pickles."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.catalog.catalog import Catalog
from registry.errors import StoreError, UserError
from registry.models.adapters import adapter_path, move_alias, publish
from registry.models.base import BaseIdentity
from registry.models.files import TOKENIZER_FILES
from registry.models.safetensors import canonical_safetensors
from registry.models.tokenizer import save_tokenizer
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from registry.store.objects import Store

BASE = BaseIdentity("nano", "nano", "ab" * 32, 1000, 2048, "LlamaForCausalLM", "fp32")
HUB = BaseIdentity("q", "Qwen/Qwen3-0.6B@" + "c" * 40, "cd" * 32, 1000, 2048, "Qwen3", "bf16")
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


class Tokenizer:
    """Writes what a tokenizer loaded from a folder of this machine writes."""

    def save_pretrained(self, folder: str) -> None:
        root = Path(folder)
        root.mkdir()
        (root / "tokenizer.json").write_text('{"model": {"vocab": {"/usr/bin": 1}}}')
        private = {"name_or_path": "/home/me/model", "token": "hf_" + "x" * 30, "eos_token": "</s>"}
        (root / "tokenizer_config.json").write_text(json.dumps(private))
        (root / "chat_template.jinja").write_text("{{ messages }}")
        (root / "training_args.bin").write_bytes(b"secret")


def peft_folder(
    folder: Path, *, order: int = 1, metadata: dict[str, str] | None = None, **changes: Any
) -> Path:
    folder.mkdir(parents=True)
    targets = ["q_proj", "k_proj", "v_proj"][::order]
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "base_model_name_or_path": "/home/me/models/nano",
        "target_modules": targets,
        "auto_mapping": None,
        "revision": None,
        **changes,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(dict(list(config.items())[::order])))
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {
        A: rng.normal(size=(4, 8)).astype(np.float32),
        B: rng.normal(size=(8, 4)).astype(np.float16),
    }
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata=metadata)
    (folder / "training_args.bin").write_bytes(pickle.dumps({"token": "hf_secret"}))
    (folder / "README.md").write_text("trained in /home/me")
    return folder


def put(store: Store, folder: Path, base: BaseIdentity = BASE, **meta: Any):
    return publish(store, folder, base=base, tokenizer=Tokenizer(), meta=meta, parents=())


def test_only_what_is_needed_is_published_and_nothing_of_this_machine(tmp_path) -> None:
    store = Store(tmp_path / "store")
    made = put(store, peft_folder(tmp_path / "a"), rows=3)
    names = {path.name for path in made.path.iterdir()} - {"manifest.json"}
    assert names == {
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    for name in names - {ADAPTER_WEIGHTS, "tokenizer.json"}:
        text = (made.path / name).read_text()
        assert "/home/me" not in text
        assert "hf_" not in text
    config = json.loads((made.path / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == "nano"
    assert config["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    meta = store.manifest(made)["meta"]
    assert (meta["base"], meta["rank"], meta["rows"]) == ("nano", 4, 3)
    assert adapter_path(store, made.id) == made.path


def test_every_file_that_decides_tokens_travels_with_the_adapter(tmp_path) -> None:
    class EveryFile:
        def save_pretrained(self, folder: str) -> None:
            Path(folder).mkdir()
            for name in TOKENIZER_FILES:
                (Path(folder) / name).write_text("{}")

    save_tokenizer(EveryFile(), tmp_path)
    assert "spiece.model" in TOKENIZER_FILES
    assert {path.name for path in tmp_path.iterdir()} == set(TOKENIZER_FILES)


def test_the_scanner_of_this_test_sees_what_it_looks_for(tmp_path) -> None:
    Tokenizer().save_pretrained(str(tmp_path / "t"))
    assert "/home/me" in (tmp_path / "t" / "tokenizer_config.json").read_text()
    assert "/home/me" in (peft_folder(tmp_path / "a") / ADAPTER_CONFIG).read_text()


def test_the_same_weights_have_the_same_id_whoever_wrote_them(tmp_path) -> None:
    store = Store(tmp_path / "store")
    first = put(store, peft_folder(tmp_path / "a"))
    again = put(store, peft_folder(tmp_path / "b", order=-1, metadata={"path": "/home/me"}), rows=9)
    assert again.id == first.id
    other = put(store, peft_folder(tmp_path / "c", lora_alpha=16))
    assert other.id != first.id
    assert put(store, peft_folder(tmp_path / "d"), HUB).id != first.id


def test_weights_are_the_same_after_they_are_made_canonical(tmp_path) -> None:
    folder = peft_folder(tmp_path / "a", metadata={"path": "/home/me"})
    (tmp_path / "canonical").write_bytes(canonical_safetensors(folder / ADAPTER_WEIGHTS))
    before, after = load_file(folder / ADAPTER_WEIGHTS), load_file(tmp_path / "canonical")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert np.array_equal(tensor, after[name])
    assert b"/home/me" in (folder / ADAPTER_WEIGHTS).read_bytes()
    assert b"/home/me" not in (tmp_path / "canonical").read_bytes()


def test_a_base_of_the_hub_is_named_with_its_commit(tmp_path) -> None:
    made = put(Store(tmp_path / "store"), peft_folder(tmp_path / "a"), HUB)
    config = json.loads((made.path / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == "Qwen/Qwen3-0.6B"
    assert config["revision"] == "c" * 40


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layers_pattern": "/home/me/x"}, "layers_pattern is a path"),
        ({"layers_pattern": "~/x"}, "path"),
        ({"layers_pattern": "C:\\Users\\me"}, "path"),
        ({"eva_config": {"key": ["hf_" + "A1b2" * 8]}}, "eva_config.key holds an access token"),
        ({"auto_mapping": {"base_model_class": "X"}}, "auto_mapping"),
    ],
)
def test_a_configuration_that_gives_something_away_is_refused(tmp_path, changes, why) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match=why):
        put(store, peft_folder(tmp_path / "a", **changes))
    assert not list(store.manifests())


def test_pickled_weights_are_refused_unread(tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    folder = peft_folder(tmp_path / "a")
    (folder / ADAPTER_WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="pickle"):
        put(Store(tmp_path / "store"), folder)
    (folder / "adapter_model.bin").rename(folder / ADAPTER_WEIGHTS)
    with pytest.raises(UserError, match="not a well-formed safetensors"):
        put(Store(tmp_path / "store"), folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_damaged_weights_are_refused(tmp_path, damage) -> None:
    folder = peft_folder(tmp_path / "a")
    data = (folder / ADAPTER_WEIGHTS).read_bytes()
    damaged = {"cut": data[:-4], "header": b"\xff" * 8 + data[8:], "empty": b""}[damage]
    (folder / ADAPTER_WEIGHTS).write_bytes(damaged)
    with pytest.raises(UserError, match="not a well-formed safetensors"):
        put(Store(tmp_path / "store"), folder)


def test_an_alias_moves_only_from_where_it_is_expected(tmp_path) -> None:
    store, catalog = Store(tmp_path / "store"), Catalog(tmp_path / "store")
    first, second = (
        put(store, peft_folder(tmp_path / "a")),
        put(store, peft_folder(tmp_path / "b", r=8)),
    )
    catalog.commit([first, second])
    move_alias(store, catalog, "champion", first.id, expect=None, reason="first")
    with pytest.raises(StoreError, match="moved meanwhile"):
        move_alias(store, catalog, "champion", second.id, expect=None, reason="late")
    assert catalog.alias("champion") == first.id
    move_alias(store, catalog, "champion", second.id, expect=first.id, reason="better")
    assert catalog.alias("champion") == second.id
    with pytest.raises(UserError, match="can't be an alias"):
        move_alias(store, catalog, "../Champion", first.id, expect=None, reason="")
    with pytest.raises(StoreError):
        move_alias(store, catalog, "other", "0" * 64, expect=None, reason="")
