"""What a person has to know to use an adapter, a model or a GGUF file elsewhere: values, no words.

`use.py` writes it down; whoever exports or pushes gathers it from the records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["adapter", "changed", "model", "gguf"]

BUILT_IN = "nano"
"""The base that lies in gapmend itself."""


@dataclass(frozen=True)
class Place:
    """Where the files are: in the folder at hand, or in a repository of the Hub at a tag."""

    repo: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class UsedBase:
    """The base that it goes on, or was made of.

    Attributes:
        name: a Hub id, `nano`, or the name of a folder or GGUF file without its path.
        commit: of a Hub id.
        digest: its identity in gapmend; empty where it isn't known.
        loader: the class of transformers that loads it.
        dtype: what it was computed in when it was measured, by torch's name; None: not known.
        quantize: how its linear layers are stored: nf4, fp4 or int8.
        own_code: its repository's own code has to run.
        package: of a GGUF file, the package on PyPI that it lies in, as pip is told it; only of a
            file that transformers reads as gapmend does.
    """

    name: str
    commit: str | None = None
    digest: str = ""
    loader: str = "AutoModelForCausalLM"
    dtype: str | None = None
    quantize: str | None = None
    own_code: bool = False
    package: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether others can fetch it by its name."""
        return "/" in self.name

    @property
    def is_gguf(self) -> bool:
        """Whether it was read from a GGUF file: no folder of such a name can be a base."""
        return not self.on_hub and self.name.lower().endswith(".gguf")


@dataclass(frozen=True)
class Asked:
    """How a capability or guard was asked.

    Attributes:
        name: its name in the spec.
        prompt: the template of the user's turn.
        system: the template of the system turn, if it has one.
        answer: how it was scored: choice, exact and so on.
        tokens: the longest answer, in tokens; of no account for a choice.
        needs: what it needs beside the prompt, in words: nothing, or the prompt found best.
    """

    name: str
    prompt: str
    system: str | None
    answer: str
    tokens: int
    needs: str


@dataclass(frozen=True)
class Example:
    """One question, as it is sent, and how its answer is written.

    Attributes:
        messages: role and content of each turn; the system text in the place that it was asked in.
        text: the whole text that the model reads, where no template makes it of the messages.
        special: the tokenizer adds its special tokens to `text`.
        thinking: what the template is told, if it is.
        date: the day that the template was told, if it asks for one.
        tools_in_text: tools, calls and results were said in the texts of turns.
        ends: id and text of each token that ends an answer.
        stop: a text that ends one, where no token does.
        tokens: the longest answer, in tokens.
    """

    messages: tuple[dict[str, str], ...]
    text: str | None = None
    special: bool = False
    thinking: bool | None = None
    date: str | None = None
    tools_in_text: bool = False
    ends: tuple[tuple[int, str], ...] = ()
    stop: str | None = None
    tokens: int = 64


@dataclass(frozen=True)
class GgufUsed:
    """A GGUF file: its name, its longest context in tokens, and whether Ollama has its template."""

    file: str
    context: int
    in_ollama: bool


@dataclass(frozen=True)
class Usage:
    """All that using it takes.

    Attributes:
        kind: what it is; `changed` are tensors that training changed, to be put into the base.
        name: what servers call it: letters, digits, dots and dashes.
        place: where its files are.
        base: what it goes on, or was made of.
        example: a question.
        asked: every capability and guard that was measured.
        rank: of a LoRA adapter.
        template_file: the chat template among its files, if it is one of its own.
        grown: it has tokens that the base has no rows for.
        vllm_rank: what vLLM is told as the largest rank of an adapter.
        no_vllm: why vLLM can't compute it; None where it can.
        gguf: the file, where it is one.
        refused: why its template takes no single question; None where it does.
    """

    kind: Kind
    name: str
    place: Place
    base: UsedBase
    example: Example
    asked: tuple[Asked, ...] = field(default=())
    rank: int | None = None
    template_file: str | None = None
    grown: bool = False
    vllm_rank: int | None = None
    no_vllm: str | None = None
    gguf: GgufUsed | None = None
    refused: str | None = None
