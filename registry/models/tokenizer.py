"""A base's tokenizer without its weights, loaded and saved."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from registry.chat.chat import Chat
from registry.errors import ModelError
from registry.models.base import BaseSpec, identify, locate
from registry.models.files import TOKENIZER_FILES
from registry.models.new_tokens import add_tokens
from registry.models.quiet import quiet_libraries
from registry.store.filenames import TOKENIZER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
