"""A base's tokenizer and chat template without its weights: messages as the text a model reads.

Whoever computes with the weights, this engine or another, reads the same text.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from registry.errors import ModelError
from registry.models.base import BaseIdentity, BaseSpec, identify, locate
from registry.models.files import TOKENIZER_FILES
from registry.models.new_tokens import add_tokens
from registry.models.quiet import quiet_libraries
from registry.store.filenames import TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_PRIVATE_KEYS = (
    "name_or_path",
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "special_tokens_map_file",
    "token",
    "use_auth_token",
    "auth_token",
    "cache_dir",
    "auto_map",
    "local_files_only",
)


@dataclass(frozen=True, slots=True)
class Chat:
    """How one base is spoken to.

    Attributes:
        tokenizer: the base's tokenizer, with its chat template if it has one.
        identity: which base this is.
    """

    tokenizer: PreTrainedTokenizerBase
    identity: BaseIdentity

    @property
    def end_of_text(self) -> int:
        """The end-of-text token.

        Raises:
            UserError: the tokenizer has none, so that no answer could end.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            where = f"bases.{self.identity.name}"
            raise ModelError("the tokenizer has no end-of-text token", where, "an eos_token")
        return int(cast("int", end))

    @property
    def name(self) -> str:
        """A name for caches: which tokenizer, without a path."""
        return f"{self.identity.name}-{self.identity.digest[:12]}"

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
    ) -> str:
        """Messages as the text that the model reads.

        By the tokenizer's chat template, which transformers runs in a sandbox. A template that
        refuses a system message gets it at the head of the first user message. Without any
        template: the tools as JSON and the system text, each followed by an empty line; a user's
        text and a line break; an assistant's text, then an empty line or, at the very end, the
        end-of-text token.

        Args:
            messages: role and content, in order.
            tools: JSON schemas of tools, for templates that take them.
            add_generation_prompt: end where the assistant's answer begins.

        Raises:
            UserError: the template can't render these messages.
        """
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            return self._plain(messages, tools)
        chat = [dict(message) for message in messages]
        try:
            return self._templated(chat, tools, add_generation_prompt)
        except TemplateError as error:
            folded = _fold_system(chat)
            if folded is None:
                raise ModelError(f"the chat template refuses these messages: {error}") from error
        try:
            return self._templated(folded, tools, add_generation_prompt)
        except TemplateError as error:
            raise ModelError(f"the chat template refuses these messages: {error}") from error

    def left_open(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Messages as text that ends with the last one's content: the model writes on from it."""
        if not self.tokenizer.chat_template:
            before = self.render(messages[:-1], add_generation_prompt=True)
            return before + str(messages[-1]["content"])
        return str(
            self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, continue_final_message=True
            )
        )

    def _templated(self, chat: list[dict[str, Any]], tools: Any, generate: bool) -> str:  # noqa: FBT001 - private, one caller
        return str(
            self.tokenizer.apply_chat_template(
                chat,
                tools=list(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=generate,
            )
        )

    def _plain(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
        parts = [f"Tools: {json.dumps(list(tools), ensure_ascii=False)}\n\n"] if tools else []
        for number, message in enumerate(messages, start=1):
            text = message.get("content") or ""
            if message["role"] != "assistant":
                parts.append(text + ("\n\n" if message["role"] == "system" else "\n"))
            elif number < len(messages):
                parts.append(f"{text}\n\n")
            else:
                parts.append(f"{text}{self.tokenizer.eos_token or ''}")
        return "".join(parts)


def load_chat(name: str, spec: BaseSpec, root: Path) -> Chat:
    """A base's tokenizer with its identity; no weights are read into memory.

    Raises:
        UserError: as `identify`, or the tokenizer can't be loaded.
    """
    folder = locate(name, spec, root).path
    with quiet_libraries():
        tokenizer = load_tokenizer(folder, spec, f"bases.{name}")
    return Chat(tokenizer, identify(name, spec, root))


def load_tokenizer(folder: Path, spec: BaseSpec, where: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a base's folder, with the tokens that the spec adds to it.

    Raises:
        UserError: there is none that can be loaded, or it has one of those tokens already.
    """
    from transformers import AutoTokenizer

    try:
        made = AutoTokenizer.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer can be loaded: {error}", where) from error
    # What is too long is refused with its row; the library's own warning names none.
    made.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    add_tokens(made, spec.new_tokens, where)
    return made


def _fold_system(chat: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The system text at the head of the first user message; None where there is none."""
    system = [str(m["content"]) for m in chat if m["role"] == "system"]
    rest = [m for m in chat if m["role"] != "system"]
    if not system or not rest or rest[0]["role"] != "user":
        return None
    return [{**rest[0], "content": "\n\n".join([*system, str(rest[0]["content"])])}, *rest[1:]]


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save tokenizer and chat template into `folder`, allow-listed files only, without paths."""
    saved = folder / "_tokenizer"
    tokenizer.save_pretrained(str(saved))
    for name in TOKENIZER_FILES:
        if (saved / name).is_file():
            shutil.move(saved / name, folder / name)
    shutil.rmtree(saved)
    path = folder / TOKENIZER_CONFIG
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key not in _PRIVATE_KEYS}
        refuse_private(kept, path.name)
        write_json(path, kept)


def refuse_private(config: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a text is an access token or a path of this machine."""
    for key, text in _strings(config, ""):
        if _TOKEN.search(text):
            raise ModelError(
                f"{key} holds an access token", where=where, fix="remove and revoke it"
            )
        if _is_local_path(text):
            raise ModelError(f"{key} is a path of this machine", where=where, fix="remove it")


def _is_local_path(text: str) -> bool:
    if "\n" in text or not 3 <= len(text) <= 1024:  # noqa: PLR2004 - '/' and '//' are tokens
        return False
    if text.startswith(("~/", "file:")) or PureWindowsPath(text).drive:
        return True
    return text.startswith("/") and "/" in text[1:]


def _strings(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _strings(child, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _strings(child, key)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as all files of a model are: keys in order, two spaces."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
