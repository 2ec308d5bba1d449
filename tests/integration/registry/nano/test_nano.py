"""The built-in base as it is in the repository: size, tokenizer, template, and what it can do."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.nano.recipe import tokenizer as made
from registry.nano.recipe.corpus import CorpusDocument
from registry.nano.recipe.tasks import TaskQuestion

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[4]
NANO = ROOT / "registry" / "nano"
DATA = ROOT / "examples" / "quickstart" / "data"


@lru_cache(maxsize=1)
def tokens() -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(NANO)


@lru_cache(maxsize=1)
def model() -> LlamaForCausalLM:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()


def read(name: str, split: str, count: int) -> list[dict[str, str]]:
    lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def share_right(name: str, prompt: str = "{input}", shots: int = 0, count: int = 24) -> float:
    """Answer `count` dev rows greedily; the shots come first, as earlier turns."""
    import torch

    examples = read(name, "train", shots)
    before = [
        message
        for row in examples
        for message in (
            {"role": "user", "content": prompt.format(input=row["input"])},
            {"role": "assistant", "content": row["output"]},
        )
    ]
    rows = read(name, "dev", count)
    chats = [
        [*before, {"role": "user", "content": prompt.format(input=row["input"])}] for row in rows
    ]
    batch = tokens().apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        out = model().generate(**batch, max_new_tokens=40)
    answers = tokens().batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = sum(answer == row["output"] for answer, row in zip(answers, rows, strict=True))
    return right / count


def test_size_precision_and_context() -> None:
    import torch
    from safetensors.torch import load_file

    assert (NANO / "model.safetensors").stat().st_size <= 12_000_000
    assert all(t.dtype == torch.bfloat16 for t in load_file(NANO / "model.safetensors").values())
    assert 1_000_000 <= model().num_parameters() <= 5_500_000
    assert model().config.architectures == ["LlamaForCausalLM"]
    assert model().config.max_position_embeddings >= 2048


def test_end_of_turn_is_the_end_token() -> None:
    end = tokens().convert_tokens_to_ids("<|end|>")
    assert tokens().eos_token_id == end
    assert model().generation_config.eos_token_id == end
    assert tokens().bos_token_id is None


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is not UTF-8
    ids = tokens()(text, add_special_tokens=False)["input_ids"]
    assert tokens().decode(ids) == text


@pytest.mark.parametrize(
    "text", ["你好,世界。", "🙂👩‍👩‍👧 ok", " two  spaces ", "a\r\n\tb", "1234567"]
)
def test_known_hard_texts_come_back(text: str) -> None:
    assert tokens().decode(tokens()(text, add_special_tokens=False)["input_ids"]) == text


def test_a_word_is_cut_the_same_way_anywhere() -> None:
    alone = tokens().tokenize("Mulo")
    assert tokens().tokenize("see Mulo")[-len(alone) :] == alone


def test_the_template_writes_what_training_saw() -> None:
    turns = (TaskQuestion("What is 1 + 1?", "2"), TaskQuestion("And {x}?", "<3>"))
    chat = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in (("user", turn.input), ("assistant", turn.output))
    ]
    text = tokens().apply_chat_template(chat, tokenize=False)
    assert text == made.render(CorpusDocument(turns))
    asked = tokens().apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    assert text == asked + "<3><|end|>"


def test_the_template_knows_tools_system_and_no_content() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Call f."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "ok"},
    ]
    schema = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    text = tokens().apply_chat_template(chat, tools=[schema], tokenize=False)
    head, rest = text.split("<|end|>", 1)
    assert json.loads(head.removeprefix("<|system|>Tools: ")) == [schema]
    assert rest == (
        "<|system|>Be short.<|end|><|user|>Call f.<|end|>"
        f"<|assistant|>{json.dumps([call])}<|end|><|tool|>ok<|end|>"
    )


@pytest.mark.parametrize("name", ["numbers", "colours", "jobs", "days"])
def test_it_does_what_it_was_taught_on_unseen_words(name: str) -> None:
    assert share_right(name) >= 0.9


def test_it_learns_the_form_from_examples_alone() -> None:
    prompt = "Fill in the form. {input}"
    assert share_right("form", prompt) <= 0.6
    assert share_right("form", prompt, shots=5) >= 0.9


def test_it_cannot_tell_the_intent_of_a_request() -> None:
    assert share_right("intent", "Which intent is this? {input}", shots=5) <= 0.3
