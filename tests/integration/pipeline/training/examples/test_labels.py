"""Which tokens are trained, for chat templates as different as those of real bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.training.examples.encode import (
    IGNORED,
    EncodedRow,
    RowRejectedError,
    TrainingRow,
    encode_row,
    encode_rows,
)
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

ONE = ({"role": "user", "content": "two plus two"}, {"role": "assistant", "content": "is four"})
TWO = (*ONE, {"role": "user", "content": "and three"}, {"role": "assistant", "content": "is six"})

CHATML = (
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m.content }}{% endgeneration %}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Qwen3's: an empty thought before the last answer, none before earlier ones.
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n"
    "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Mistral's: no token before an answer, spaces, the end token of the text.
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
ENDLESS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TOOLS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}call {{ c.function.name }} {{ c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("base")
    tiny_models.save(root, "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def row(messages: Any = ONE, uid: int = 7) -> TrainingRow:
    return TrainingRow(uid=uid, messages=tuple(messages), tools=None, capability="sums")


def label_mask(loaded: LoadedModel, given: TrainingRow) -> EncodedRow:
    """The one example that a row is."""
    (only,) = encode_row(loaded, given)
    return only


def trained(loaded: LoadedModel, encoded: EncodedRow) -> str:
    """The trained text, a gap between runs of trained tokens shown as |."""
    text, before = "", False
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        if label == IGNORED:
            before = False
            continue
        assert label == token
        text += ("" if before or not text else "|") + loaded.tokenizer.decode([int(token)])
        before = True
    return text


@pytest.mark.parametrize("template", [tiny_models.CHAT_TEMPLATE, CHATML, MARKED, INSTRUCT])
def test_no_end_is_trained_behind_an_answer_that_was_cut(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    whole = label_mask(loaded, row(TWO))
    cut = label_mask(loaded, replace(row(TWO), cut=True))
    assert cut.input_ids.tolist() == whole.input_ids.tolist()
    ended, stopped = trained(loaded, whole), trained(loaded, cut)
    assert stopped.endswith("is six")
    assert ended.removeprefix(stopped).strip() in ("<|end|>", "</s>")
    assert cut.trained_tokens == whole.trained_tokens - 1


@pytest.mark.parametrize(
    ("template", "one", "two"),
    [
        (tiny_models.CHAT_TEMPLATE, "is four<|end|>", ["is four<|end|>|is six<|end|>"]),
        (CHATML, "is four<|end|>", ["is four<|end|>|is six<|end|>"]),
        (MARKED, "is four<|end|>", ["is four<|end|>|is six<|end|>"]),
        (
            THINKING,
            "<think>\n\n</think>\n\nis four<|end|>",
            [
                "<think>\n\n</think>\n\nis four<|end|>",
                "<think>\n\n</think>\n\nis six<|end|>",
            ],
        ),
        (INSTRUCT, " is four</s>", [" is four</s>| is six</s>"]),
        (None, "is four</s>", ["is four</s>", "is six</s>"]),
    ],
    ids=["plain", "chatml", "generation", "thinking", "instruct", "none"],
)
def test_only_answers_and_their_ends_are_trained(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    template: str | None,
    one: str,
    two: list[str],
) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    assert trained(loaded, label_mask(loaded, row(ONE))) == one
    examples = encode_row(loaded, row(TWO))
    assert [trained(loaded, example) for example in examples] == two
    whole = loaded.tokenizer.decode(examples[-1].input_ids)
    assert loaded.chat.render(TWO, add_generation_prompt=False).rstrip() == whole


@pytest.mark.parametrize("template", [tiny_models.CHAT_TEMPLATE, MARKED, CHATML])
def test_an_answer_can_be_kept_out(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    first = ({**TWO[0]}, {**TWO[1], "train": False}, *TWO[2:])
    assert trained(loaded, label_mask(loaded, row(first))) == "is six<|end|>"
    with pytest.raises(RowRejectedError, match="no assistant turn"):
        label_mask(loaded, row(({**ONE[0]}, {**ONE[1], "train": False})))


def test_what_is_trained_follows_what_is_asked_for(loaded: LoadedModel) -> None:
    """Served equals trained: the trained text begins where the generation prompt ends."""
    encoded = label_mask(loaded, row())
    prompt = loaded.tokenizer(loaded.chat.render(ONE[:1], add_generation_prompt=True))["input_ids"]
    assert list(encoded.input_ids[: len(prompt)]) == prompt
    assert encoded.labels[len(prompt)] != IGNORED
    assert (encoded.labels[: len(prompt)] == IGNORED).all()


def test_the_first_token_is_put_where_the_template_puts_it(tmp_path: Path) -> None:
    """The ids are those of `apply_chat_template`, whatever the tokenizer puts before a text."""
    tiny_models.save(tmp_path, "llama", bos=True)
    with_bos = load_model("bos", BaseSpec(model=str(tmp_path), dtype="fp32"), tmp_path)
    for template in (tiny_models.CHAT_TEMPLATE, "{{ bos_token }}" + tiny_models.CHAT_TEMPLATE):
        with_bos.tokenizer.chat_template = template
        ids = list(label_mask(with_bos, row()).input_ids)
        theirs = with_bos.tokenizer.apply_chat_template(list(ONE), tokenize=True)["input_ids"]
        assert ids == theirs
    with_bos.tokenizer.chat_template = None
    assert list(label_mask(with_bos, row()).input_ids)[:2] != [0, 0]
    assert label_mask(with_bos, row()).input_ids[0] == with_bos.tokenizer.bos_token_id


def test_a_tool_call_is_an_answer(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", TOOLS)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    messages = (ONE[0], {"role": "assistant", "content": None, "tool_calls": [call]})
    assert trained(loaded, label_mask(loaded, row(messages))) == 'call add {"a": 2}<|end|>'


def test_plain_text_is_trained_from_its_second_token(loaded: LoadedModel) -> None:
    encoded = label_mask(loaded, row(({"role": "text", "content": "Once upon a time 你好 🙂"},)))
    assert (encoded.labels != IGNORED).sum() == encoded.tokens - 1
    assert loaded.tokenizer.decode(encoded.input_ids) == "Once upon a time 你好 🙂</s>"


def test_any_utf8_comes_back(loaded: LoadedModel) -> None:
    answer = "naïve 你好 🙂\n\tdone"
    encoded = label_mask(loaded, row((ONE[0], {"role": "assistant", "content": answer})))
    kept = encoded.labels[encoded.labels != IGNORED]
    assert loaded.tokenizer.decode(kept) == answer + "<|end|>"


@pytest.mark.parametrize(
    ("messages", "template", "reason"),
    [
        (ONE[:1], None, "no assistant turn"),
        ((ONE[0], {"role": "assistant", "content": " "}), tiny_models.CHAT_TEMPLATE, "is empty"),
        (ONE, ENDLESS, "end-of-turn"),
        ((ONE[0], {"role": "assistant", "content": "no " * 600}), None, "over the context of 512"),
        # Where others cut to a length, nothing is left to train: TRL's issues 3927 and 6668.
        (({"role": "user", "content": "so " * 600}, ONE[1]), CHATML, "over the context of 512"),
        (({"role": "text", "content": ""},), None, "no token would be trained"),
        (ONE, "{{ raise_exception('only in pairs') }}", "only in pairs"),
    ],
    ids=["no answer", "empty", "no end", "too long", "long question", "one token", "refused"],
)
def test_rows_that_cannot_be_trained_on(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    messages: Any,
    template: str | None,
    reason: str,
) -> None:
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    with pytest.raises(RowRejectedError, match=reason):
        label_mask(loaded, row(messages))


def test_rejects_are_listed_and_too_many_stop(loaded: LoadedModel) -> None:
    long = row((ONE[0], {"role": "assistant", "content": "no " * 600}), uid=99)
    rows = [row(uid=uid) for uid in range(150)]
    encoded = encode_rows(loaded, [*rows, long], allow_rejects=0.01)
    assert [one.uid for one in encoded.rows] == list(range(150))
    (reject,) = encoded.rejects
    assert (reject.uid, reject.base) == (99, "tiny")
    assert "over the context of 512" in reject.reason
    with pytest.raises(UserError, match=r"1 of 51 rows .*row 99: .*allow_rejects"):
        encode_rows(loaded, [*rows[:50], long], allow_rejects=0.01)
    with pytest.raises(UserError, match="no rows to train on"):
        encode_rows(loaded, [], allow_rejects=1.0)
    with pytest.raises(UserError, match="1 of 1 rows"):
        encode_rows(loaded, [long], allow_rejects=1.0)
