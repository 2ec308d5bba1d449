"""GGUF files: read back by us, by transformers, and refused where they would say something else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline.verbs.export import export
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import GateRefusedError, UserError
from registry.gguf import convert, proof
from registry.gguf.architectures import permute, unpermute
from registry.gguf.convert import ModelFolder, read_source, write_gguf
from registry.gguf.file import GgufFile
from registry.gguf.ollama import find_form, go_template, modelfile
from registry.gguf.proof import GGUF_BOUNDS, QUOTED, TEXTS, prove, unlike_source
from registry.gguf.readback import model_of
from registry.gguf.tokens import ids_of
from registry.models.files import TOKENIZER_FILES
from registry.models.load import nano_folder
from registry.models.parity import distance, logits_of
from tests.support import tiny_models

TOKENS = [[5, 9, 300, 41, 7, 120, 33, 208, 64, 2, 17, 90, 411, 3, 255], [0, 88, 19]]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
PERIOD_6 = ["sliding_attention"] * 5 + ["full_attention"]
SIZES: dict[str, Any] = {**tiny_models._COMMON, "hidden_size": 64, "head_dim": 16}
WINDOW = {"sliding_window": 8, "query_pre_attn_scalar": 16}
CONFIGS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(**SIZES),
    "llama with all": transformers.LlamaConfig(
        **SIZES,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rope_parameters=LLAMA3,
    ),
    "linear rope": transformers.LlamaConfig(**SIZES, rope_parameters=LINEAR),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=15),
    "qwen2": transformers.Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}),
    "qwen3": transformers.Qwen3Config(**SIZES),
    "gemma": transformers.GemmaConfig(**SIZES),
    "gemma2": transformers.Gemma2Config(
        **SIZES,
        **WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma3": transformers.Gemma3TextConfig(
        **SIZES | {"num_hidden_layers": 6}, **WINDOW, layer_types=PERIOD_6
    ),
}


def save(folder: Path, config: Any, *, bos: bool = False, template: str | None = None) -> Path:
    """A model whose norms and biases matter as much as its matrices do."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn_like(weight)
            weight.copy_(noise * 0.12 if weight.dim() == 2 else weight + noise * 0.1)
    model.save_pretrained(folder)
    tokenizer = tiny_models.tokenizer(bos=bos)
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> ModelFolder:
    return read_source(save(tmp_path_factory.mktemp("llama"), CONFIGS["llama"], bos=True))


def logits(folder: Path, tokens: list[list[int]]) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return logits_of(model.eval(), tokens)


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_architecture_is_read_back_from_the_file_alone(kind, tmp_path) -> None:
    source = read_source(save(tmp_path / "model", CONFIGS[kind]))
    wanted = logits(source.folder, TOKENS)
    for dtype, bound in GGUF_BOUNDS.items():
        write_gguf(source, tmp_path / dtype, dtype, name=kind)
        file = GgufFile(tmp_path / dtype)
        assert unlike_source(source, file, dtype) == []
        far = distance(wanted, logits_of(model_of(file), TOKENS))
        print(f"{kind} {dtype}: {far:.2e}")
        assert far <= bound
        # Each rounds more than the one before: no type is written for another.
        assert far > {"f32": -1, "f16": 1e-5, "q8_0": 2e-3}[dtype]


# Of Qwen3 it doesn't read the length of a head, of Mistral and Gemma 1 not the architecture.
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_transformers_own_reader_finds_the_same_model(kind, tmp_path) -> None:
    source = read_source(save(tmp_path / "model", CONFIGS[kind]))
    write_gguf(source, tmp_path / "model.gguf", "f32", name=kind)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    assert distance(logits(source.folder, TOKENS), logits_of(model.eval(), TOKENS)) < 1e-5
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    text = "How much is 12 plus 30?"
    assert theirs(text)["input_ids"] == source.tokenizer(text)["input_ids"]


def test_rows_are_put_in_the_order_of_neighbouring_pairs_and_back() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)  # two heads of 4: halves (0 1)(2 3), …
    assert permute(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(unpermute(permute(rows, 2), 2), rows)


def test_a_context_never_reaches_beyond_the_window_that_llama_cpp_lacks(tmp_path) -> None:
    source = read_source(save(tmp_path / "model", CONFIGS["mistral"]))
    write_gguf(source, tmp_path / "m.gguf", "f16", name="m")
    file = GgufFile(tmp_path / "m.gguf")
    assert file.figure("context_length") == 15


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> OpenWorkspace:
    """A workspace with nano as a merged model, as a merge of nothing leaves it."""
    root = tmp_path_factory.mktemp("ws")
    (root / "gapmend.yaml").write_text(
        "bases: {nano: {model: nano}}\n"
        "datasets: {d: {path: d.csv, columns: {input: a, output: b}}}\n"
        "capabilities: {c: {data: d, answer: exact, prompts: {zero_shot: '{input}'}, goal: 0.5}}\n"
        "train: {base: nano, pool: [d]}\n"
    )
    made = OpenWorkspace.open(root)
    with made.store.draft() as draft:
        for path in nano_folder().iterdir():
            if path.suffix in (".json", ".jinja", ".safetensors"):
                shutil.copyfile(path, draft / path.name)
        (draft / "training_args.bin").write_bytes(b"secret")
        model = made.store.put("model", draft, identity={"of": "nano"}, meta={"base": "nano"})
    with made.store.draft() as draft:
        tiny_models.save_adapter(draft, nano_folder())
        for path in nano_folder().iterdir():
            if path.name in TOKENIZER_FILES:
                shutil.copyfile(path, draft / path.name)
        (draft / "optimizer.pt").write_text("nothing for others")
        adapter = made.store.put("adapter", draft, identity={"of": "test", "base": "0" * 64})
    made.catalog.commit([model, adapter])
    return made


def _one(ws: OpenWorkspace, kind: str) -> str:
    return str(ws.catalog.committed(kind)[0].id)


def test_nano_is_exported_with_its_proof_and_a_modelfile(ws, tmp_path) -> None:
    made = export(
        ws,
        Ui(as_json=True),
        _one(ws, "model"),
        tmp_path / "out",
        form="gguf",
        dtype="q8_0",
        license_text="Apache-2.0",
    )
    assert made.proof is not None
    print(f"nano q8_0: {made.proof.logits:.2e}")
    assert 0 < made.proof.logits <= made.proof.bound
    assert (made.proof.tensors, made.proof.texts) == (47, len(TEXTS) + 1)
    assert "'so" in made.proof.remark
    name = f"nano-{made.thing[:8]}"
    assert sorted(made.files) == ["Modelfile", "USE.md", f"{name}-q8_0.gguf"]
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith(f"FROM ./{name}-q8_0.gguf\n# nano\nTEMPLATE ")
    assert 'PARAMETER stop "<|end|>"\nLICENSE """Apache-2.0"""\n' in text
    record = ws.catalog.manifest(made.export_id)
    assert record.kind == "export"
    assert [p.id for p in record.parents] == [made.thing]
    file = GgufFile(tmp_path / "out" / f"{name}-q8_0.gguf")
    assert file.figures["tokenizer.chat_template"] == (
        (nano_folder() / "chat_template.jinja").read_text()
    )
    assert str(tmp_path) not in json.dumps(record.as_json())


def test_what_is_copied_is_listed_and_whole(ws, tmp_path) -> None:
    model = export(ws, Ui(as_json=True), _one(ws, "model"), tmp_path / "model")
    assert "training_args.bin" not in model.files
    assert {"config.json", "model.safetensors", "chat_template.jinja"} <= set(model.files)
    adapter = export(ws, Ui(as_json=True), _one(ws, "adapter"), tmp_path / "adapter")
    assert {"USE.md", "adapter_config.json", "adapter_model.safetensors"} <= set(adapter.files)
    assert "optimizer.pt" not in adapter.files
    with pytest.raises(UserError, match="there is something already"):
        export(ws, Ui(as_json=True), _one(ws, "adapter"), tmp_path / "adapter")
    with pytest.raises(UserError, match="Merge it"):
        export(ws, Ui(as_json=True), _one(ws, "adapter"), tmp_path / "x", form="gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "model"]


def test_nothing_is_left_where_the_proof_fails(ws, tmp_path, monkeypatch) -> None:
    original = convert._Tensors.read

    def wrong(self: Any, name: str) -> Any:
        found = original(self, name)
        return found + 0.5 if name == "model.layers.1.mlp.up_proj.weight" else found

    monkeypatch.setattr(convert._Tensors, "read", wrong)
    monkeypatch.setattr(proof, "original_tensors", _right(original))
    with pytest.raises(GateRefusedError) as error:
        export(ws, Ui(as_json=True), _one(ws, "model"), tmp_path / "out", form="gguf")
    assert "what differs: blk.1.ffn_up.weight" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def _right(original: Any) -> Any:
    def tensors(source: ModelFolder) -> Any:
        table = convert._Tensors(source)
        return ((called, original(table, name)) for called, name in table.names.items())

    return tensors


def test_a_tensor_that_differs_by_more_than_it_is_rounded_is_named(llama, tmp_path) -> None:
    write_gguf(llama, tmp_path / "m.gguf", "q8_0", name="m")
    file = GgufFile(tmp_path / "m.gguf")
    place = file.tensors["blk.2.attn_v.weight"].data_offset
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    content[place + 2] ^= 0x02  # the second last bit of one weight
    (tmp_path / "m.gguf").write_bytes(content)
    assert unlike_source(llama, GgufFile(tmp_path / "m.gguf"), "q8_0") == ["blk.2.attn_v.weight"]


def test_other_tokens_are_refused(llama, tmp_path) -> None:
    merges = llama.vocabulary.merges
    swapped = replace(llama, vocabulary=replace(llama.vocabulary, merges=merges[::-1]))
    write_gguf(swapped, tmp_path / "m.gguf", "f16", name="m")
    with pytest.raises(GateRefusedError, match="the file's vocabulary makes other tokens"):
        prove(llama, tmp_path / "m.gguf", "f16")


def test_the_vocabulary_read_back_makes_the_same_ids(llama, tmp_path) -> None:
    write_gguf(llama, tmp_path / "m.gguf", "f16", name="m")
    file = GgufFile(tmp_path / "m.gguf")
    texts = [*TEXTS, QUOTED, "<|user|>a b<|end|><|assistant|>"]
    assert ids_of(file, texts) == [llama.tokenizer(text)["input_ids"] for text in texts]
    assert file.figures["tokenizer.ggml.add_bos_token"]
    assert [file.figures[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")] == [0, 1]


def test_a_weight_too_large_for_f16_is_refused_by_name(tmp_path) -> None:
    folder = save(tmp_path / "model", CONFIGS["llama"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e5
    model.save_pretrained(folder)
    source = read_source(folder)
    with pytest.raises(GateRefusedError, match=r"blk\.1\.ffn_up\.weight doesn't fit F16"):
        write_gguf(source, tmp_path / "m.gguf", "f16", name="m")
    write_gguf(source, tmp_path / "m.gguf", "f32", name="m")


def _json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not written as GGUF"),
        ({"hidden_act": "gelu"}, "takes hidden_act to be silu"),
        (
            {"rope_parameters": LLAMA3 | {"rope_type": "yarn"}},
            "a rope scaled by yarn is not written",
        ),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused_by_name(
    llama, tmp_path, changes, said
) -> None:
    folder = Path(shutil.copytree(llama.folder, tmp_path / "model"))
    _json(folder / "config.json", **changes)
    with pytest.raises(UserError, match=said):
        write_gguf(read_source(folder), tmp_path / "m.gguf", "f32", name="m")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "no name for this pre-tokenizer"),
        ({"normalizer": {"type": "Lowercase"}}, "doesn't normalize text as Lowercase"),
    ],
)
def test_a_tokenizer_that_llama_cpp_reads_otherwise_is_refused_by_name(
    llama, tmp_path, changes, said
) -> None:
    folder = Path(shutil.copytree(llama.folder, tmp_path / "model"))
    _json(folder / "tokenizer.json", **changes)
    with pytest.raises(UserError, match=said):
        read_source(folder)


def sentencepiece(folder: Path) -> Path:
    """A Llama with a tokenizer as it is made of SentencePiece's: byte fallback, all merges."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, trainers
    from transformers.convert_slow_tokenizer import generate_merges

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=240, show_progress=False)
    trained.train_from_iterator([f"▁{text}" for text in tiny_models._TEXT], trainer)
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = {piece: -float(index) for index, piece in enumerate(pieces)}
    merges = generate_merges(vocab, scores)
    made = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in tokens[:3]])
    config = transformers.LlamaConfig(**SIZES | {"bos_token_id": 1, "eos_token_id": 2})
    save(folder, config)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_sentencepiece_like_tokenizer_is_written_with_scores(tmp_path) -> None:
    source = read_source(sentencepiece(tmp_path / "model"))
    write_gguf(source, tmp_path / "m.gguf", "f16", name="m")
    file = GgufFile(tmp_path / "m.gguf")
    assert file.figures["tokenizer.ggml.model"] == "llama"
    assert file.figures["tokenizer.ggml.add_space_prefix"]
    texts = [*TEXTS, QUOTED, "a</s> b <unk>", "▁▁"]
    assert ids_of(file, texts) == [source.tokenizer(text)["input_ids"] for text in texts]
    content = json.loads((source.folder / "tokenizer.json").read_text())
    merges = content["model"]["merges"]
    last = next(m for m in merges if sum("".join(m) == "".join(n) for n in merges) > 1)
    merges.append(merges.pop(merges.index(last)))  # no longer beside the others to its token
    (source.folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="none of SentencePiece's"):
        read_source(source.folder)


CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_known_chat_template_is_written_in_ollamas_language(llama) -> None:
    def of(template: str) -> ModelFolder:
        tokenizer = tiny_models.tokenizer(bos=True)
        tokenizer.chat_template = template
        return replace(
            llama, tokenizer=tokenizer, vocabulary=replace(llama.vocabulary, template=template)
        )

    found = find_form(of(CHATML))
    assert found is not None
    assert (found[0].name, found[1]) == ("ChatML", "Be brief.")
    text = modelfile(of(CHATML), "m.gguf")
    assert f'# ChatML\nTEMPLATE """{go_template(found[0])}"""\nSYSTEM """Be brief."""\n' in text
    assert text.endswith('PARAMETER stop "</s>"\n')
    # As Go's text/template gave the text of the form, tried on conversations with it.
    assert go_template(found[0]) == (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}'
        "{{ if not $last }}<|im_end|>\n{{ end }}{{ end }}"
        '{{ if and $last (ne .Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}'
    )
    almost = CHATML.replace("<|im_end|>\n{% endfor %}", "<|im_end|>{% endfor %}")
    assert "# No TEMPLATE: the model's chat template is none that is known" in modelfile(
        of(almost), "m.gguf"
    )
    gemma = (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    found = find_form(of(gemma))
    assert found is not None
    assert found[0].name == "Gemma"
