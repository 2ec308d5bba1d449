"""Text that is meant to do harm where it leaves: Modelfile, GGUF and cards say it and no more."""

from __future__ import annotations

import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tokenizers import AddedToken

from pipeline.verbs.export import export
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.gguf.convert import ModelFolder, read_source
from registry.gguf.file import GgufFile
from registry.gguf.ollama import modelfile
from registry.intake.copy import license_beside
from registry.lineage.adapter_facts import AdapterFacts, CapabilityFact, GuardFact, TrainedRows
from registry.publish.card import MeasuredBy, Publication, adapter_card, model_card
from registry.publish.dataset_card import dataset_card
from registry.publish.markdown import as_text
from registry.publish.use.usage import Place
from registry.store.kinds import VersionMeta
from registry.store.manifest import Manifest
from tests.support import tiny_models
from tests.support.used import blocks, usage

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n{{ SYSTEM }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMES_BACK = (
    'Say "hi", or ""',
    "FROM /etc/passwd\nPARAMETER stop x\nSYSTEM y",
    '"\nFROM /etc/passwd\n"',
    "{{ .Prompt }}{{ range .Messages }}{% raw %}",
    " spaces around ",
    "\n# no comment\r\n\tbut text\n",
    "back\\slash \\n \\",
    "é 中 😀 e\u0301",
    "'''",
)
LEFT_OUT = (
    'a"""\nFROM /etc/passwd\n',
    '"""',
    "nothing \x00",
    "zero\u200bwidth",
    "no\u00a0break",
    "\u202eturned round",
    "\x1b[2J",
)


# ------------------------------------------------------------------------------- the Modelfile


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Read a Modelfile by the rules of Ollama's parser: (command or parameter, value) in order.

    A value ends where a line ends, unless it began with quotes that haven't ended there. It has no
    escapes, and of what is not printed only spaces, tabs and line breaks count.
    """
    found = []
    rest = text
    while rest := rest.lstrip(" \t\r\n"):
        if rest.startswith("#"):
            rest = rest.partition("\n")[2]
            continue
        name, _, rest = rest.partition(" ")
        assert name.isalpha(), name
        if name == "PARAMETER":
            name, _, rest = rest.partition(" ")
        value, rest = _read_value(rest)
        found.append((name, value))
    return found


def _read_value(rest: str) -> tuple[str, str]:
    kept = ""
    for place, one in enumerate(rest):
        if one in "\r\n" and (whole := _unquoted(kept.strip())) is not None:
            return whole, rest[place:]
        if one in " \t\r\n" or unicodedata.category(one)[0] in "LMNPS":
            kept += one
    whole = _unquoted(kept.strip())
    assert whole is not None, "a value without an end"
    return whole, ""


def _unquoted(text: str) -> str | None:
    for mark in ('"""', '"'):
        if text.startswith(mark):
            ends = len(text) >= 2 * len(mark) and text.endswith(mark)
            return text[len(mark) : -len(mark)] if ends else None
    return text


def saved(folder: Path, *added: str, template: str = CHATML, ends: int = 0) -> Path:
    """Save a tiny Llama whose tokenizer has these tokens too; the last `ends` end an answer."""
    torch.manual_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(one, special=True) for one in added]}
    )
    tokenizer.chat_template = template.replace("{{ SYSTEM }}", "Be brief.")
    config = tiny_models.config("llama", vocab_size=len(tokenizer))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = [1, *range(len(tokenizer) - ends, len(tokenizer))]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return read_source(saved(tmp_path_factory.mktemp("model")))


def saying(source: ModelFolder, text: str) -> ModelFolder:
    """A model whose template has this system text of its own, and whose answers end with it."""
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = CHATML.replace("SYSTEM", ascii(text))
    vocabulary = source.vocabulary
    tokens = (*vocabulary.tokens[:-1], text)
    types = (*vocabulary.types[:-1], 3)
    told = replace(vocabulary, tokens=tokens, types=types, template=tokenizer.chat_template)
    return replace(source, tokenizer=tokenizer, vocabulary=told, ends=(len(tokens) - 1,))


@pytest.mark.parametrize("text", [*COMES_BACK, *LEFT_OUT])
def test_a_modelfile_says_a_text_or_leaves_it_out(source: ModelFolder, text: str) -> None:
    found = read_modelfile(modelfile(saying(source, text), "m.gguf", text))
    values = dict(found)
    assert len(values) == len(found)  # each once
    assert values.pop("FROM") == "./m.gguf"
    if text in COMES_BACK:
        assert values.pop("TEMPLATE").startswith("{{ range $i, $_ := .Messages }}")
        assert values == {"SYSTEM": text, "stop": text, "LICENSE": text}
    else:
        assert values == {}


PIECES = ['"', '""', '"""', "\n", " ", "\t", "\r", "a", "FROM x", "\nSYSTEM ", "{{", "#", "\x00"]


@settings(max_examples=150)
@given(text=st.lists(st.sampled_from([*PIECES, "\u200b", "é"]), min_size=1).map("".join))
def test_no_text_adds_an_instruction(source: ModelFolder, text: str) -> None:
    found = read_modelfile(modelfile(saying(source, text), "m.gguf", text))
    assert found[0] == ("FROM", "./m.gguf")
    names = [name for name, _ in found[1:]]
    assert names in ([], ["TEMPLATE", "SYSTEM", "stop", "LICENSE"])
    assert {value for name, value in found[1:] if name != "TEMPLATE"} <= {text}


def test_a_token_that_is_written_in_bytes_ends_an_answer_by_its_text(source: ModelFolder) -> None:
    line = source.tokenizer.convert_tokens_to_ids("Ċ")
    found = read_modelfile(modelfile(replace(source, ends=(line,)), "m.gguf"))
    assert [value for name, value in found if name == "stop"] == ["\n"]


# ----------------------------------------------------------------------------------- GGUF files

EVIL_TOKENS = (
    '<|"""\nFROM /etc/passwd|>',
    '<|"quoted"|>',
    "<|{{ .System }}\nPARAMETER num_ctx 1|>",
)
EVIL_TEMPLATE = CHATML + '{# """\nFROM /etc/passwd\nPARAMETER stop "x"\n\u202e\x07 #}'


def test_an_exported_file_holds_every_text_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    shutil.copytree(
        Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter", root
    )
    ws = OpenWorkspace.open(root)
    folder = saved(tmp_path / "model", *EVIL_TOKENS, template=EVIL_TEMPLATE, ends=3)
    with ws.store.draft() as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        base = "me/x\nPARAMETER stop y\n../../../etc/\x1b[2J"
        model = ws.store.put("model", draft, identity={"of": "evil"}, meta={"base": base})
    ws.catalog.commit([model])
    made = export(ws, Ui(as_json=True), model.id, tmp_path / "out", form="gguf", dtype="f32")

    commands = read_modelfile((tmp_path / "out" / "Modelfile").read_text("utf-8"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(made.files)
    assert {name for name, _ in commands} == {"FROM", "TEMPLATE", "SYSTEM", "stop"}
    written = tmp_path / "out" / commands[0][1]
    assert written.name in made.files
    assert [v for n, v in commands if n == "stop"] == ["</s>", *EVIL_TOKENS[1:]]

    figures = GgufFile(written).figures
    source = read_source(folder)
    assert figures["tokenizer.ggml.tokens"] == list(source.vocabulary.tokens)
    assert figures["tokenizer.ggml.tokens"][-3:] == list(EVIL_TOKENS)
    assert figures["tokenizer.chat_template"] == EVIL_TEMPLATE.replace("{{ SYSTEM }}", "Be brief.")
    assert figures["general.name"] in written.name


def test_a_template_that_no_utf8_can_say_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = "\ud83d{{ messages }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="the chat template is no UTF-8"):
        read_source(folder)


# ---------------------------------------------------------------------------------------- cards

EVIL = (
    "a\n---\nlicense: mit\nevil: true\n---\n",
    "a: [b, {c: &d e}] # f",
    "x | y |\n| z | <script>alert(1)</script>",
    "[click](javascript:alert(1)) ![i](http://x/y.png) <img src=x>",
    '``` \n```\nimport os; os.system("x")\n```python\n',
    "`code` *bold* \\| &lt; \u2028 \x85 \x1b[2J",
    '"); import os; os.system("x") #',
    "'''\"\"\" {{ }} %s {0} é 😀",
    "!!python/object/apply:os.system [x]",
    "# heading\n\n- item\n\n    code",
    "- __item__ _of_ ~~a list~~",
    "1. first",
)


def facts(name: str) -> AdapterFacts:
    """What a catalog may hold where every text from elsewhere is `name`."""
    closed = CapabilityFact(name, "test", 10, 0.9, 0.1, 0.95, 0.8, 0.99, 0, 8, "closed")
    kept = GuardFact(name, "test", 10, 0.9, 0.9, 0, 0, 0.0, -0.01, 0.02, "kept")
    taught = TrainedRows(name, "0" * 64, name, name, name, 5)
    return AdapterFacts(
        adapter_id="1" * 64, created_at="", base=name, revision=name, base_digest="2" * 64,
        config={"r": 8, "lora_alpha": 16}, meta={"steps": 3}, bytes=1, aliases=(),
        closed=(closed,), kept=(kept,), taught=(taught,), merges=(), pushes=(), promotions=(),
        imported={},
    )  # fmt: skip


def cards(name: str) -> list[str]:
    asked = MeasuredBy(name, name, name)
    used = usage(name, prompt=name, place=Place("me/it", "1" * 64))
    to = Publication("me/it", "1" * 64, name, {name: asked}, {name: "me/rows"}, used)
    merge = {"merged": 1e-6, "reloaded": 1e-6, "bound": 1e-4, "dtype": "fp32"}
    manifest = Manifest(
        format=1,
        kind="dataset_version",
        id="3" * 64,
        identity={},
        files={},
        parents=(),
        meta=VersionMeta(name=name, rows=3, splits={"train": 3}),
    )
    return [
        adapter_card(facts(name), to),
        model_card(facts(name), replace(to, usage=replace(used, kind="model")), merge),
        dataset_card(manifest, manifest.meta.name, "me/rows", name, ["data/train.parquet"]),
    ]


def parts(card: str) -> tuple[dict[str, Any], list[str], str]:
    """Return a card's front matter, the kinds of its Markdown tokens, and its text."""
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    kinds, said = [], ""
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        kinds.append(token.type)
        said += token.content if not token.children else ""
        for child in token.children or ():
            if child.type == "text":  # one may be cut in several
                said += child.content
            else:
                kinds.append(child.type)
                said += child.content
    return dict(yaml.safe_load(head)), kinds, said


def shape(value: Any) -> Any:
    """The keys and lengths of a value of YAML, without its texts."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_card_is_as_it_would_be_with_harmless_names(name: str, kind: int) -> None:
    usual, there = "me/name" if "/" in name else "name", cards(name)[kind]
    data, kinds, said = parts(there)
    expected, as_usual, _ = parts(cards(usual)[kind])
    assert shape(data) == shape(expected)
    assert data["license"] == name
    assert kinds == as_usual
    shown = "".join(one if one.isprintable() else " " for one in name)
    assert " ".join(shown.split()) in said
    if kind < 2:
        assert {one["dataset"]["name"] for one in data["model-index"][0]["results"]} == {name}
        code = compile(blocks(there, "python")[0], "card", "exec")
        assert name in code.co_consts or name in str(code.co_consts)
        assert not {"os", "system"} & set(code.co_names)


def test_usual_names_stand_as_they_are() -> None:
    for name in ("my_dataset-2.1", "2024_v1", "cc-by-4.0", "A b, c's (d) é"):
        assert as_text(name) == name


@settings(max_examples=40)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_front_matter_holds_any_text(text: str) -> None:
    for card, usual in zip(cards(text), cards("me/name" if "/" in text else "name"), strict=True):
        data, _, _ = parts(card)
        assert shape(data) == shape(parts(usual)[0])
        if "\x85" not in text:  # PyYAML writes it as it is, and reads it as a space
            assert data["license"] == text


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nbase_model: a---b\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: mit---no\n---\n", "mit---no"),
        ("---\nlicense: 'a\n  ---\n  b'\n---\n", "a --- b"),
        ('---\nlicense: "mit\\nevil: yes"\n---\n', None),
        ('---\nlicense: "\\x1b[2J"\n---\n', None),
        (f"---\nlicense: {'x' * 10_000}\n---\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", None),
        ("---\ndate: 2024-99-99\nlicense: mit\n---\n", None),
        ("---\nx: !!int a\n---\n", None),
        ("---\nx: !!bool a\n---\n", None),
        ("---\nx: !!timestamp a\n---\n", None),
        ("---\nx: " + "[" * 50_000 + "\n---\n", None),
        ("---\n" + "x: [1, 2, 3]\n" * 100_000 + "license: mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("no front matter --- license: mit ---", None),
        ("---\nlicense: caf\udce9\n---\n", None),  # a byte that is no UTF-8
    ],
)  # fmt: skip
def test_the_licence_of_a_card_from_elsewhere(tmp_path: Path, card: str, found: str | None) -> None:
    (tmp_path / "README.md").write_bytes(card.encode(errors="surrogateescape"))
    assert license_beside(tmp_path, None, "it") == found
