"""Which base it is: every part that decides an answer changes the digest, nothing else does."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import StoreError, UserError
from registry.models.base import BaseSpec, identify, locate, nano_folder
from registry.store.kept import kept
from registry.store.objects import Store

BASE = pytest.mark.usefixtures("base")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 77}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    write_weights(folder / "model.safetensors", (3, 5), b"\1")
    return folder


def write_weights(path: Path, shape: tuple[int, ...], fill: bytes) -> None:
    """A safetensors file with one fp32 tensor, written by hand."""
    count = 4
    for size in shape:
        count *= size
    tensor = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, count]}
    header = json.dumps({"w": tensor, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + fill * count)


def named(root: Path, **changes) -> str:
    return identify("b", BaseSpec(model="base", **changes), root).digest


@BASE
def test_what_an_identity_says(tmp_path: Path) -> None:
    found = identify("mine", BaseSpec(model="base"), tmp_path)
    assert (found.name, found.source, found.dtype) == ("mine", "base", "fp32")
    assert (found.parameters, found.context) == (15, 77)
    assert found.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_each_file_decides(base: Path, tmp_path: Path, file: str) -> None:
    before = named(tmp_path)
    (base / file).write_text((base / file).read_text() + " ")
    assert named(tmp_path) != before


def test_a_changed_weight_decides(base: Path, tmp_path: Path) -> None:
    before = named(tmp_path)
    write_weights(base / "model.safetensors", (3, 5), b"\2")
    assert named(tmp_path) != before


@BASE
def test_dtype_and_quantisation_decide(tmp_path: Path) -> None:
    digests = {named(tmp_path), named(tmp_path, dtype="bf16"), named(tmp_path, quantize="nf4")}
    assert len(digests) == 3
    assert named(tmp_path, dtype="fp32") == named(tmp_path)  # what it is computed in by default


def test_name_place_and_unread_files_do_not(base: Path, tmp_path: Path) -> None:
    before = named(tmp_path)
    (base / "README.md").write_text("a card")
    (base / "modeling_x.py").write_text("print()")  # never run without trust_remote_code
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.move(base, other / "base")
    assert identify("another", BaseSpec(model="base"), other).digest == before


def test_code_decides_where_it_may_run(base: Path, tmp_path: Path) -> None:
    before = named(tmp_path, trust_remote_code=True)
    (base / "modeling_x.py").write_text("print()")
    assert named(tmp_path, trust_remote_code=True) != before


def test_hashes_of_large_files_are_kept(base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("registry.store.hashing.REMEMBER_FROM_BYTES", 0)
    monkeypatch.setattr("registry.store.hashing.SETTLED_NS", -1)
    before = named(tmp_path)
    hashes = kept(tmp_path / ".gapmend" / "cache" / "hashes.kept")
    assert len(json.loads(hashes or b"")) == 1
    assert named(tmp_path) == before
    write_weights(base / "model.safetensors", (3, 5), b"\3")
    assert named(tmp_path) != before


def refused(root: Path, model: str = "base", **changes) -> str:
    with pytest.raises(UserError) as caught:
        identify("b", BaseSpec(model=model, **changes), root)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("bases.b")
    return line


def test_no_weights(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    assert "no weights" in refused(tmp_path)


def test_pickled_weights(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    line = refused(tmp_path)
    assert "pickled" in line
    assert "pytorch_model.bin" in line


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_weights_that_are_cut_short(base: Path, tmp_path: Path, keep: int) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="not a whole safetensors file") as caught:
        named(tmp_path)
    assert "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_another_file(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        named(tmp_path)


def test_a_merged_model_with_a_flipped_bit_is_no_base(base: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / ".gapmend")
    with store.draft() as draft:
        shutil.copytree(base, draft, dirs_exist_ok=True)
        model = store.put("model", draft, identity={"files": 1})
    spec = BaseSpec(model=f"merged:{model.id[:8]}")
    assert identify("merged", spec, tmp_path).parameters == 15
    weights = model.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\3")
    with pytest.raises(StoreError, match=r"model\.safetensors.*SHA-256"):
        identify("merged", spec, tmp_path)


def test_an_adapter_is_no_base(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")
    assert "no weights" in refused(tmp_path)


@pytest.mark.parametrize(
    "copy", ["consolidated.safetensors", "original/model.safetensors", "model.fp16.safetensors"]
)
@pytest.mark.parametrize("split", [False, True])
def test_second_copies_of_the_weights_do_not_count(
    base: Path, tmp_path: Path, copy: str, split: bool
) -> None:
    if split:
        parts = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
        (base / "model.safetensors").unlink()
        for part in parts:
            write_weights(base / part, (3, 5), b"\1")
        index = {"weight_map": dict(zip("ab", parts, strict=True))}
        (base / "model.safetensors.index.json").write_text(json.dumps(index))
    before = identify("b", BaseSpec(model="base"), tmp_path)
    assert before.parameters == (30 if split else 15)
    (base / "original").mkdir()
    write_weights(base / copy, (3, 5), b"\3")
    assert identify("b", BaseSpec(model="base"), tmp_path) == before


def test_weights_under_a_name_of_their_own_are_found(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "weights.safetensors")
    assert identify("b", BaseSpec(model="base"), tmp_path).parameters == 15


def test_no_folder(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path, "./absent/folder/here")


def test_a_hub_id_that_is_nowhere(tmp_path: Path) -> None:
    assert "neither a folder nor in the Hub's cache" in refused(tmp_path, "nobody/nothing-at-all")


def test_no_config(base: Path, tmp_path: Path) -> None:
    (base / "config.json").unlink()
    assert "config.json" in refused(tmp_path)


@BASE
def test_a_revision_of_a_folder(tmp_path: Path) -> None:
    assert "revision" in refused(tmp_path, revision="main")


def test_a_hub_snapshot_is_its_commit(base: Path, tmp_path: Path, monkeypatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    repo = cache / "models--me--tiny"
    (repo / "snapshots").mkdir(parents=True)
    shutil.copytree(base, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    by_branch = identify("b", BaseSpec(model="me/tiny"), tmp_path)
    by_commit = identify("b", BaseSpec(model="me/tiny", revision=commit), tmp_path)
    assert by_branch.source == f"me/tiny@{commit}"
    assert by_branch == by_commit
    assert by_branch.digest != named(tmp_path)
    (repo / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(UserError):
        locate("b", BaseSpec(model="me/tiny"), tmp_path, weights=True)


@BASE
def test_identifying_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from registry.models.base import BaseSpec, identify\n"
        f"identify('b', BaseSpec(model='base'), Path({str(tmp_path)!r}))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_built_in_base_is_in_the_package() -> None:
    assert nano_folder().parent.name == "registry"
