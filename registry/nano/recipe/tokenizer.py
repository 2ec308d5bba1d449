"""The tokenizer: byte-level BPE trained on the corpus, and the chat template.

Spaces and digits are tokens of their own. So a word is cut the same way at the start of an answer
and in the middle of a question, which makes copying a matter of equal tokens; and no byte is ever
unknown, so any UTF-8 text comes back as it went in.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from registry.nano.recipe.corpus import CorpusDocument, documents
from registry.nano.recipe.words import COMMON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

VOCABULARY = 2048
CONTEXT = 2048
USER, ASSISTANT, SYSTEM, TOOL, END, PAD = SPECIAL = (
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|tool|>",
    "<|end|>",
    "<|pad|>",
)
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content is not none -%}
{%- for part in content -%}{{ part.text if part.text is defined else '' }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}<|system|>Tools: {{ tools | tojson }}<|end|>{%- endif -%}
{%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('unknown role: ' ~ message.role) -}}
{%- endif -%}
<|{{ message.role }}|>{{ text(message.content) }}
{%- if message.tool_calls -%}{{ message.tool_calls | tojson }}{%- endif -%}
<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
_SAMPLE = 30_000
_COMMON_TIMES = 300


def build(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the first documents of the corpus drawn from `seed`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" "), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        _texts(seed),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM, TOOL],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def render(document: CorpusDocument) -> str:
    """Return a document as the chat template writes it."""
    if document.text:
        return f"{document.text}{END}"
    return "".join(
        f"{USER}{turn.input}{END}{ASSISTANT}{turn.output}{END}" for turn in document.turns
    )


def _texts(seed: int) -> Iterator[str]:
    """Yield what the vocabulary is drawn from: the corpus, and common English words."""
    for document in islice(documents(seed), _SAMPLE):
        yield document.text
        for turn in document.turns:
            yield turn.input
            yield turn.output
    for _ in range(_COMMON_TIMES):
        yield " ".join(COMMON)
        yield " ".join(word.capitalize() for word in COMMON[::3])
