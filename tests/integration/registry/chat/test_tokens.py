"""Ids of what a base reads: those of `apply_chat_template`, whatever a tokenizer adds to texts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tokenizers import processors

from evals.engine.encode import Encoder
from registry.chat.chat import Chat
from registry.chat.settings import ChatSettings
from registry.chat.template import Rendered
from registry.chat.tokens import TextTokens, check_tokens
from registry.errors import UserError
from registry.models.base import BaseSpec
from registry.models.load import load_model
from tests.support import tiny_models

ASKED = [{"role": "user", "content": "what is it"}]
PREFIXED = "<s><|system|>" + tiny_models.CHAT_TEMPLATE


def tokenizer(single: str, template: str | None) -> Any:
    """One that puts `single` around each text, as ChatGLM's and others do."""
    made = tiny_models.tokenizer(template=False)
    ids = {token: made.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<|system|>")}
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=list(ids.items())
    )
    made.chat_template = template
    return made


def chat_of(made: Any) -> Chat:
    base = SimpleNamespace(name="b", digest="0" * 64, stops=(1,), chat=ChatSettings())
    return Chat(made, cast("Any", base))


@pytest.mark.parametrize("single", ["<s> <|system|> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize("template", [PREFIXED, tiny_models.CHAT_TEMPLATE])
def test_a_question_has_the_template_s_tokens_alone(single: str, template: str) -> None:
    made = tokenizer(single, template)
    chat = chat_of(made)
    theirs = list(
        made.apply_chat_template(ASKED, tokenize=True, add_generation_prompt=True)["input_ids"]
    )
    context = chat.context(ASKED)
    assert TextTokens(made).whole(context) == theirs
    assert Encoder(made).whole(context) == theirs
    (found,) = Encoder(made).contexts([context])
    assert found.ids == theirs
    check_tokens(chat)


def test_nothing_stands_behind_a_question_without_a_template() -> None:
    made = tokenizer("<s> $A </s>", None)
    tokens = TextTokens(made)
    assert (tokens.lead, tokens.trails) == ([0], True)
    assert tokens.whole("what is it") == [0, *tokens.bare("what is it")]
    assert tokens.whole("<s>what is it") == [0, *tokens.bare("what is it")]
    (found,) = Encoder(made).contexts(["what is it"])
    assert found.ids == [0, *tokens.bare("what is it")]


def test_what_is_written_behind_a_context_leaves_its_tokens_alone() -> None:
    """Joined, two line breaks may be one token; the model has read the first one already."""
    tokens = TextTokens(tokenizer("$A", None))
    context, target = Rendered("<|assistant|>the fo"), "x jumps"
    asked, written = tokens.pair(context, target)
    assert asked == tokens.whole(context)
    assert tokens.whole(Rendered(context + target))[: len(asked)] != asked
    assert written == tokens.bare(target)
    whole = Encoder(tokenizer("$A", None))
    (found,) = whole.contexts([context])
    assert whole.continuations(found, [target]) == [written]
    asked, written = tokens.pair(Rendered("<|assistant|>"), target)
    assert asked + written == tokens.whole(Rendered("<|assistant|>" + target))


def test_a_tokenizer_that_reads_otherwise_than_its_template_is_refused(tmp_path: Path) -> None:
    tiny_models.save(tmp_path, "llama")
    chat = load_model("b", BaseSpec(model=str(tmp_path)), tmp_path).chat

    class Odd:
        def __getattr__(self, name: str) -> Any:
            return getattr(chat.tokenizer, name)

        def __call__(self, *given: Any, **options: Any) -> Any:
            return chat.tokenizer(*given, **options)

        def apply_chat_template(self, *given: Any, **options: Any) -> Any:
            made = chat.tokenizer.apply_chat_template(*given, **options)
            return made if options.get("tokenize") is False else {"input_ids": [0, 1]}

    check_tokens(chat)
    with pytest.raises(UserError, match="reads a question otherwise"):
        check_tokens(Chat(cast("Any", Odd()), chat.identity))
