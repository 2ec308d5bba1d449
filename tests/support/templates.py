"""Public chat templates, each with a small tokenizer that has its special tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from registry.chat.chat import Chat
from registry.chat.settings import ChatSettings
from tests.support import tiny_models

FOLDER = Path(__file__).parent.parent / "templates"
IM_END = ("<|im_end|>",)
# Templates that are a line or two, as the models have them that people know.
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant "
    "named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}" + _CHATML
)
_ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set chat = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set chat = messages %}{% set system = '' %}{% endif %}"
    "{% for m in chat %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + ' ' }}"
    "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_ALPACA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}### Response:\n{{ m['content'] + eos_token }}\n\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class PublicTemplate:
    """A template: its name, its text if that isn't a file, the first token, and the stops."""

    name: str
    stops: tuple[str, ...]
    bos: str = "<s>"
    text: str = ""

    @property
    def source(self) -> str:
        """Its text."""
        return self.text or (FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")


_LLAMA = {"stops": ("<|eot_id|>", "<|eom_id|>"), "bos": "<|begin_of_text|>"}
_DEEPSEEK = {"stops": ("<｜end▁of▁sentence｜>",), "bos": "<｜begin▁of▁sentence｜>"}  # noqa: RUF001 - theirs
_GLM = ("<|endoftext|>", "<|user|>", "<|observation|>")
_PHI = ("<|endoftext|>", "<|end|>")
_COHERE = ("<|END_OF_TURN_TOKEN|>",)
_GEMMA = {"stops": ("<eos>", "<end_of_turn>"), "bos": "<bos>"}
T = cast("Any", PublicTemplate)
TEMPLATES: tuple[PublicTemplate, ...] = (
    T("chatml", IM_END, text=_CHATML),
    T("smollm2", IM_END, text=_SMOLLM2),
    T("zephyr", ("</s>",), text=_ZEPHYR),
    T("llama2", ("</s>",), text=_LLAMA2),
    T("vicuna", ("</s>",), text=_VICUNA),
    T("alpaca", ("</s>",), text=_ALPACA),
    T("apertus", ("<|assistant_end|>", "<|tools_suffix|>")),
    T("cohere", _COHERE),
    T("cohere2", _COHERE),
    T("command-r7b-tool-use", _COHERE),
    T("deepseek-r1-distill", **_DEEPSEEK),
    T("deepseek-v3", **_DEEPSEEK),
    T("deepseek-v3.1", **_DEEPSEEK),
    T("functionary-3.2", **_LLAMA),
    T("gemma", **_GEMMA),
    T("gemma3", **_GEMMA),
    T("gemma4", ("<eos>", "<turn|>", "<|tool_response>"), "<bos>"),
    T("glm4-moe", _GLM),
    T("gpt-oss", ("<|return|>", "<|call|>", "<|endoftext|>")),
    T("granite-3.3", ("<|end_of_text|>",)),
    T("hermes3-tool-use", IM_END),
    T("kimi-k2", IM_END),
    T("lfm2", IM_END),
    T("lfm2.5", IM_END),
    T("llama3", **_LLAMA),
    T("llama3-trl-training", **_LLAMA),
    T("llama3.1", **_LLAMA),
    T("llama3.2", **_LLAMA),
    T("minimax-m2", ("[e~[",)),
    T("mistral-nemo", ("</s>",)),
    T("mistral-small-3.2", ("</s>",)),
    T("nemotron3-nano", IM_END),
    T("phi3", _PHI),
    T("qwen2.5", IM_END),
    T("qwen2.5-trl-training", IM_END),
    T("qwen2.5-vl", IM_END),
    T("qwen3", IM_END),
    T("qwen3-trl-training", IM_END),
    T("qwen3-instruct-2507", IM_END),
    T("qwen3.5", IM_END),
    T("seed-oss", ("<seed:eos>",), "<seed:bos>"),
    T("smollm3", IM_END),
    T("smolvlm", ("<end_of_utterance>",)),
    T("step3.5", IM_END),
)

_SPECIAL = re.compile(
    r"<\|[^|<>\s']+\|>|<｜[^｜']+｜>|</?think>|<start_of_turn>|<\|?[a-z_]*(?:channel|turn)\|?>"  # noqa: RUF001 - theirs
    r"|\[/?[A-Z_]{3,}\]|\[gMask\]|<sop>|\]~b\]"
)


def public_chat(template: PublicTemplate, settings: ChatSettings | None = None) -> Chat:
    """How a base with this template is spoken to."""
    tokenizer = tiny_models.tokenizer(template=False)
    found = {*_SPECIAL.findall(template.source), *template.stops, template.bos}
    tokenizer.add_special_tokens(
        {"additional_special_tokens": sorted(found)}, replace_extra_special_tokens=False
    )
    tokenizer.bos_token, tokenizer.eos_token = template.bos, template.stops[0]
    tokenizer.chat_template = template.source
    stops = tuple(tokenizer.convert_tokens_to_ids(list(template.stops)))
    told = settings or ChatSettings(date="2026-01-31")
    base = SimpleNamespace(name=template.name, digest="0" * 64, stops=stops, chat=told)
    return Chat(tokenizer, cast("Any", base))


def as_loaded(chat: Chat) -> Any:
    """As much of a loaded base as rows are encoded with."""
    return SimpleNamespace(
        chat=chat, tokenizer=chat.tokenizer, identity=chat.identity, context=32_768
    )
