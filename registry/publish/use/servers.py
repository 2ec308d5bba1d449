"""The commands that serve a model with vLLM, Ollama or llama.cpp, and a request to each.

What is sent is JSON in a here-document: nothing in it is read by a shell.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.publish.use.usage import Example, Usage

_NO_FILE = "no GGUF file"
_VLLM, _OLLAMA, _LLAMA = "127.0.0.1:8000", "127.0.0.1:11434", "127.0.0.1:8080"


def vllm_code(usage: Usage) -> str:
    """Return what serves an adapter on its base, or a model, with vLLM."""
    base, at = usage.base, "."
    lines = []
    if usage.place.repo:
        at = f"./{usage.name}"
        tag = f" --revision {shlex.quote(usage.place.tag)}" if usage.place.tag else ""
        lines.append(f"hf download {shlex.quote(usage.place.repo)}{tag} --local-dir {at}")
    dtype = f" --dtype {base.dtype}" if base.dtype else ""
    common = f"{dtype} --generation-config vllm" + " --trust-remote-code" * base.own_code
    if usage.kind == "model":
        lines.append(f"vllm serve {at} --served-model-name {usage.name}{common}")
    else:
        commit = f" --revision {shlex.quote(base.commit)}" if base.commit else ""
        serve = f"vllm serve {_served(usage)}{commit}{common}"
        adapter = f"--enable-lora --max-lora-rank {usage.vllm_rank} --lora-modules"
        template = ""
        if usage.template_file and usage.example.text is None:
            template = f" --chat-template {at}/{usage.template_file}"
        lines.append(f"{serve} \\\n  {adapter} {usage.name}={at}{template}")
        if not base.on_hub:
            lines.insert(0, "# ./BASE is the folder of the base")
    ends = [number for number, _ in usage.example.ends]
    told: dict[str, Any] = {"stop_token_ids": ends, **_stop(usage.example)}
    if usage.example.thinking is not None:
        told["chat_template_kwargs"] = dict.fromkeys(
            ("enable_thinking", "thinking"), usage.example.thinking
        )
    if usage.example.text is not None:
        told["add_special_tokens"] = usage.example.special
    return _blocks(usage, lines, _request(_VLLM, usage, told))


def _served(usage: Usage) -> str:
    if usage.base.on_hub:
        return shlex.quote(usage.base.name)
    return "./BASE"  # a folder: its own name may be anything


def ollama_code(usage: Usage) -> str:
    """Return what runs a GGUF file with the Modelfile beside it."""
    if usage.gguf is None:
        raise ValueError(_NO_FILE)
    asked = usage.example
    options = {"temperature": 0, "repeat_penalty": 1.0, "num_predict": asked.tokens}
    body = {
        "model": usage.name,
        "messages": list(asked.messages),
        "stream": False,
        # Its own default is 4,096 tokens on most machines, and what is longer it cuts in silence.
        "options": {**options, "num_ctx": usage.gguf.context},
    }
    lines = [f"ollama create {usage.name} -f Modelfile"]
    return _blocks(usage, lines, _curl(f"{_OLLAMA}/api/chat", body))


def llama_cpp_code(usage: Usage) -> str:
    """Return what serves a GGUF file with llama.cpp's own server."""
    if usage.gguf is None:
        raise ValueError(_NO_FILE)
    file, context = usage.gguf.file, usage.gguf.context
    serve = f"llama-server -m {file} --jinja --ctx-size {context} --alias {usage.name} --port 8080"
    told = _stop(usage.example)
    if usage.example.thinking is not None:
        told["chat_template_kwargs"] = {"enable_thinking": usage.example.thinking}
    return _blocks(usage, [serve], _request(_LLAMA, usage, told))


def _request(server: str, usage: Usage, told: dict[str, Any]) -> str:
    """A request to an OpenAI-compatible server."""
    asked = usage.example
    body: dict[str, Any] = {"model": usage.name}
    if asked.text is None:
        body["messages"] = list(asked.messages)
    else:
        body["prompt"] = asked.text
    body |= {"temperature": 0, "max_tokens": asked.tokens, **told}
    path = "v1/completions" if asked.text is not None else "v1/chat/completions"
    return _curl(f"{server}/{path}", body)


def _stop(asked: Example) -> dict[str, Any]:
    return {"stop": [asked.stop]} if asked.stop else {}


def _curl(to: str, body: dict[str, Any]) -> str:
    said = json.dumps(body, indent=1)
    return f"curl -s http://{to} -H 'Content-Type: application/json' -d @- <<'JSON'\n{said}\nJSON"


def _blocks(usage: Usage, lines: list[str], request: str) -> str:
    blocks = ["\n".join(["```sh", *lines, "```"]), f"```sh\n{request}\n```"]
    if usage.example.date and usage.example.text is None:
        said = f"Its template writes today's date; it was measured with {usage.example.date}."
        blocks.append(said)
    return "\n\n".join(blocks)
