"""A GGUF file as a base: read as what it says, kept once, and refused in one line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.gguf import unpack
from registry.gguf.architectures import unpermute
from registry.gguf.file import GgufFile
from registry.gguf.proof import TEXTS
from registry.gguf.readback import model_of
from registry.intake.base import check_base
from registry.models.base import BaseSpec, identify, locate
from registry.models.from_gguf import notes_on
from registry.models.license import license_of_base
from registry.models.load import load_model
from registry.models.parity import distance, logits_of
from registry.store.objects import Store
from registry.upkeep.gc import find_waste, remove_waste
from tests.integration.registry.gguf import test_gguf
from tests.support import tiny_models
from tests.support.gguf_files import changed, written

TOKENS = test_gguf.TOKENS
SPEC = BaseSpec(model="tiny.gguf")
# llama.cpp stops at tokens of that name by itself; the file names </s> alone.
NOTES = [
    "its weights are those of the file, float32",
    "answers end at <|end|> too, as its chat template says",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose rows are as long as a block of a K-quant."""
    folder = tmp_path_factory.mktemp("source")
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "head_dim": 64,
    }
    return tiny_models.save(folder, "llama", bos=True, **sizes)


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(source, tmp_path_factory.mktemp("plain") / "tiny.gguf")


@pytest.fixture
def root(plain: Path, tmp_path: Path) -> Path:
    """A workspace with the file of f32."""
    (tmp_path / ".gapmend").mkdir()
    shutil.copyfile(plain, tmp_path / "tiny.gguf")
    return tmp_path


def cached(root: Path) -> list[str]:
    folder = root / ".gapmend" / "cache" / "gguf"
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_file_of_f32_is_the_model_it_was_made_of(root: Path, source: Path) -> None:
    identity = identify("b", SPEC, root)
    check_base("b", SPEC, root, identity)
    loaded = load_model("b", SPEC, root)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source)
    assert distance(logits_of(theirs, TOKENS), logits_of(loaded.model, TOKENS)) < 1e-6
    assert (identity.source, identity.public_name) == ("tiny.gguf", "tiny.gguf")
    assert (identity.context, identity.dtype, identity.stops) == (512, "fp32", (1, 6))
    assert identity.architecture == "LlamaForCausalLM"
    assert identity.parameters == sum(one.numel() for one in theirs.parameters())
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    for text in (*TEXTS, "<|user|>a b<|end|><|assistant|>"):
        ids = loaded.tokenizer(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        assert loaded.tokenizer.decode(ids) == tokenizer.decode(ids)
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(loaded.tokenizer, name) == getattr(tokenizer, name)
    assert notes_on(root / "tiny.gguf", root, "bases.b") == NOTES


# How far the logits are from the original's: these are weights drawn at random, on which rounding
# shows more than on trained ones.
@pytest.mark.parametrize(
    ("kind", "least", "most", "stored"),
    [
        ("F16", 1e-5, 3e-2, "float16"),
        ("BF16", 1e-4, 0.1, "bfloat16"),
        ("Q8_0", 1e-3, 0.2, "float32"),
        ("Q5_0", 1e-2, 1, "float32"),
        ("Q5_1", 1e-2, 1, "float32"),
        ("Q4_0", 1e-2, 1, "float32"),
        ("Q4_1", 1e-2, 1, "float32"),
        ("Q4_K", 0, None, "float32"),
        ("Q6_K", 0, None, "float32"),
    ],
)
def test_each_type_is_read_exactly(
    root: Path, source: Path, kind: str, least: float, most: float | None, stored: str
) -> None:
    import gguf
    from safetensors.torch import load_file

    path = changed(root / "tiny.gguf", root / "other.gguf", kind)
    folder = locate("b", BaseSpec(model="other.gguf"), root).path
    found = load_file(folder / "model.safetensors")
    tensors = {one.name: one for one in gguf.GGUFReader(path).tensors}
    wanted = {
        name: gguf.quants.dequantize(one.data, one.tensor_type) for name, one in tensors.items()
    }
    up = found["model.layers.1.mlp.up_proj.weight"]
    key = found["model.layers.0.self_attn.k_proj.weight"]
    assert str(up.dtype) == f"torch.{stored}"
    assert np.array_equal(up.float().numpy(), wanted["blk.1.ffn_up.weight"])
    assert np.array_equal(key.float().numpy(), unpermute(wanted["blk.0.attn_k.weight"], 2))
    notes = notes_on(path, root, "bases.b")
    assert (f"16 as {kind}; what is left of them is kept in float32, exactly" in notes[0]) == (
        stored == "float32"
    )
    if most is not None:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(source)
        ours = load_model("b", BaseSpec(model="other.gguf"), root)
        assert least < distance(logits_of(theirs, TOKENS), logits_of(ours.model, TOKENS)) < most


@pytest.mark.parametrize("kind", test_gguf.CONFIGS)
def test_each_architecture_is_a_base(kind: str, tmp_path: Path) -> None:
    folder = test_gguf.save(tmp_path / "model", test_gguf.CONFIGS[kind])
    path = written(folder, tmp_path / "tiny.gguf")
    loaded = load_model("b", SPEC, tmp_path)
    wanted = logits_of(model_of(GgufFile(path)), TOKENS)
    assert distance(wanted, logits_of(loaded.model, TOKENS)) < 1e-5
    assert notes_on(path, tmp_path, "b") == NOTES


def test_a_sentencepiece_like_tokenizer_is_read(tmp_path: Path) -> None:
    folder = test_gguf.sentencepiece(tmp_path / "model")
    written(folder, tmp_path / "tiny.gguf")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_model("b", SPEC, tmp_path).tokenizer
    for text in (*TEXTS, "a</s> b <unk>"):
        # It says nothing of what stands in front of a text: llama.cpp puts bos there.
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.decode(ours("two words")["input_ids"]) == "two words"


def test_it_is_the_bytes_of_the_file_that_decide(root: Path) -> None:
    before = identify("b", SPEC, root).digest
    (root / "tiny.gguf").rename(root / "other.gguf")
    shutil.rmtree(root / ".gapmend" / "cache")
    assert identify("c", BaseSpec(model="other.gguf"), root).digest == before
    changed(root / "other.gguf", root / "q.gguf", "Q8_0")
    digests = {before, identify("b", BaseSpec(model="q.gguf"), root).digest}
    digests.add(identify("b", BaseSpec(model="q.gguf", dtype="bf16"), root).digest)
    assert len(digests) == 3


def test_it_is_unpacked_once_and_again_where_it_is_damaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, run = identify("b", SPEC, root), subprocess.run
    folder = locate("b", SPEC, root).path
    for left in ("draft", "old"):  # by one that was killed
        (folder.parent / f"{folder.name}.{left}" / "x").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        assert identify("b", SPEC, root) == before
        (folder / "model.safetensors").write_bytes(b"damaged")
        with pytest.raises(TypeError):
            identify("b", SPEC, root)
    assert run is subprocess.run
    for name in ("config.json", "made.kept"):
        whole = (folder / "config.json").read_bytes()
        (folder / name).write_bytes(b"{}")
        assert identify("b", SPEC, root) == before
        assert (folder / "config.json").read_bytes() == whole or name == "config.json"
        assert load_model("b", SPEC, root).identity == before
    assert cached(root) == [folder.name]


def test_what_was_collected_is_unpacked_again(root: Path) -> None:
    before = identify("b", SPEC, root)
    store, catalog = Store(root / ".gapmend"), Catalog(root / ".gapmend")
    waste = find_waste(store, catalog, busy=False)
    assert "cache/gguf" in {one.path for one in waste}
    remove_waste(store, catalog, waste)
    assert not (root / ".gapmend" / "cache" / "gguf").exists()
    assert identify("b", SPEC, root) == before


def test_a_large_one_is_rounded_and_kept_in_parts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(root / "tiny.gguf", root / "q.gguf", "Q8_0")
    monkeypatch.setattr(unpack, "FP32_UP_TO_PARAMETERS", 1000)
    monkeypatch.setattr(unpack, "_SHARD", 500_000)
    (root / "large").mkdir()
    notes = unpack.unpack(path, root / "large")
    assert "16 as Q8_0; what is left of them is kept rounded to bfloat16" in notes[0]
    parts = sorted(one.name for one in (root / "large").glob("*.safetensors"))
    assert len(parts) == 5
    assert parts[0] == "model-00001-of-00005.safetensors"
    loaded = load_model("b", BaseSpec(model="large", dtype="fp32"), root)
    exact = load_model("b", BaseSpec(model="q.gguf"), root)
    up = exact.model.model.layers[1].mlp.up_proj.weight
    rounded = loaded.model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(up.bfloat16().float(), rounded)
    assert not torch.equal(up, rounded)
    norm = exact.model.model.norm.weight
    assert torch.equal(norm, loaded.model.model.norm.weight)
    assert identify("b", BaseSpec(model="large"), root).parameters == exact.identity.parameters


def test_a_licence_that_the_file_names_is_known(root: Path) -> None:
    assert license_of_base("b", SPEC, root) is None
    changed(root / "tiny.gguf", root / "l.gguf", figures={"general.license": "apache-2.0"})
    assert license_of_base("b", BaseSpec(model="l.gguf"), root) == "apache-2.0"


@pytest.mark.parametrize(
    ("figures", "note"),
    [
        ({"tokenizer.chat_template": None}, "it has no chat template: the base is asked in plain"),
        ({"tokenizer.chat_template.tools": "x"}, "its chat template 'tools' isn't used"),
        ({"tokenizer.ggml.pre": None}, "its pre-tokenizer is not named: text is cut as gpt-2 does"),
        (
            {"tokenizer.ggml.pre": "blob"},
            "its pre-tokenizer is 'blob', which isn't known here: text is cut as gpt-2 does",
        ),
        ({"tokenizer.ggml.token_type": None}, "it doesn't say which tokens are special"),
        ({"llama.attention.scale": 2.0}, "its figure llama.attention.scale isn't read"),
    ],
)
def test_what_is_lost_or_guessed_is_said(root: Path, figures: dict[str, Any], note: str) -> None:
    path = changed(root / "tiny.gguf", root / "n.gguf", figures=figures)
    notes = notes_on(path, root, "bases.b")
    (new,) = [one for one in notes if one not in NOTES]
    assert new.startswith(note)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"figures": {"general.architecture": "rwkv6"}}, "architecture 'rwkv6' isn't"),
    "no tokenizer": (
        {"figures": {"tokenizer.ggml.tokens": None, "tokenizer.ggml.token_type": None}},
        "tiny.gguf can't be a base: it has no tokenizer",
    ),
    "no merges": ({"figures": {"tokenizer.ggml.merges": None}}, "its tokenizer has no merges"),
    "kind": ({"figures": {"tokenizer.ggml.model": "t5"}}, "a tokenizer of the kind 't5' isn't"),
    "experts": ({"figures": {"llama.expert_count": 8}}, "'llama' with experts isn't read"),
    "rope": ({"figures": {"llama.rope.scaling.type": "yarn"}}, "a rope scaled by yarn isn't read"),
    "partial rope": ({"figures": {"llama.rope.dimension_count": 8}}, "rope.dimension_count is 8"),
    "figure": ({"figures": {"llama.block_count": None}}, "the figure llama.block_count is missing"),
    "layers": ({"figures": {"llama.block_count": 10**9}}, "block_count is 1000000000, and there"),
    "vocabulary": (
        {"figures": {"tokenizer.ggml.bos_token_id": "x"}},
        "can't be a base: ValueError",
    ),
    "missing": (
        {"dropped": ["blk.1.ffn_up.weight"]},
        "tensors are missing, the first is blk.1.",
    ),
    "embedding": ({"dropped": ["token_embd.weight"]}, "the tensor token_embd.weight is missing"),
    "others": ({"more": {"blk.0.x": np.ones(4, np.float32)}}, "1 tensors aren't known, the first"),
    "shape": ({"figures": {"llama.feed_forward_length": 128}}, "has the shape (256, 256)"),
    "factors": ({"more": {"rope_freqs.weight": np.full(32, 3, np.float32)}}, "isn't that of Llama"),
    "adapter": ({"figures": {"general.type": "adapter"}}, "this GGUF file is of type adapter"),
    "split": ({"figures": {"split.count": 3}}, "this GGUF file is one part of several"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_base_is_one_line(root: Path, plain: Path, case: str) -> None:
    changes, said = BAD[case]
    changed(plain, root / "tiny.gguf", **changes)
    assert said in refused(root)


@pytest.mark.parametrize("part", [0, 0.00001, 0.001, 0.02, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_one_line(root: Path, plain: Path, part: float) -> None:
    whole = plain.read_bytes()
    (root / "tiny.gguf").write_bytes(whole[: int(len(whole) * part)])
    assert "tiny.gguf can't be a base: not a whole GGUF file" in refused(root)


def test_what_is_no_gguf_at_all_is_one_line(root: Path) -> None:
    (root / "tiny.gguf").write_text("version https://git-lfs.github.com/spec/v1\n" * 9)
    assert "not a whole GGUF file: GGUF magic invalid" in refused(root)


def test_what_is_not_there_is_one_line(root: Path) -> None:
    assert refused(root, model="no.gguf").startswith("bases.b.model: no file no.gguf")
    assert refused(root, revision="main").startswith("bases.b.revision: tiny.gguf is a file and")
    assert "ame the file itself: model: …/tiny.gguf" in refused(root, model=".")


def refused(root: Path, **spec: Any) -> str:
    with pytest.raises(UserError) as caught:
        identify("b", BaseSpec(**{"model": "tiny.gguf", **spec}), root)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("bases.b")
    if (root / ".gapmend" / "cache" / "gguf").is_dir():
        assert cached(root) == []
    return line
