"""Adapters trained elsewhere, checked before they are taken in. Nothing in them is trusted.

A folder from outside may name another base, carry code, a path, a pickle, a header that lies about
its length, or tensors that the base has no place for: PEFT would leave those out without a word,
and the adapter would answer as the base does. Each of these is refused by name.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.intake.adapter_config import check_config
from registry.models.files import read_adapter_config, weights_file
from registry.models.safetensors_header import read_header
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.models.base import BaseIdentity

MOST_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DeclaredBase:
    """The base that a configuration says it is for; `revision` is a commit, where it names one."""

    base: str
    revision: str | None


def check_folder(folder: Path) -> DeclaredBase:
    """Check the files of an adapter folder without a model; returns the base that it names.

    Raises:
        UserError: no adapter, a pickle, a link, an oversized or damaged file, code, a path.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if (folder / name).is_symlink():
            raise ModelError(f"{name} is a link", str(folder), "the file itself")
        _refuse_no_file(folder / name)
    path = folder / ADAPTER_CONFIG
    if path.is_file() and path.stat().st_size > MOST_CONFIG_BYTES:
        raise ModelError(
            f"{ADAPTER_CONFIG} has {path.stat().st_size} bytes",
            str(folder),
            f"{MOST_CONFIG_BYTES} at most",
        )
    try:
        config = read_adapter_config(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"it can't be read ({type(error).__name__})", str(path)) from None
    check_config(config, path)
    read_header(weights_file(folder))
    return DeclaredBase(str(config.get("base_model_name_or_path") or ""), config.get("revision"))


def base_for(
    declared: DeclaredBase,
    identities: Mapping[str, BaseIdentity],
    chosen: str | None,
    where: str,
    call: str,
) -> str:
    """Return the name in the spec of the base that an adapter belongs to. Pure.

    Args:
        declared: what its configuration says.
        identities: the spec's bases by name.
        chosen: the base that the user named, if any. It overrules the name in the configuration:
            the same weights are known under many. Shapes and tokenizer are compared afterwards.
        where: for the message.
        call: the command that takes it in, for the advice.

    Raises:
        UserError: none fits, or it names another one.
    """
    if chosen is not None:
        return chosen
    fitting = [name for name, base in identities.items() if _is_for(declared, base)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{name} ({base.source})" for name, base in identities.items())
    if not declared.base or len(fitting) > 1 or _is_open(declared):
        said = "several bases fit" if fitting else f"it names no base but '{declared.base}'"
        raise ModelError(said, where, f"one of {known}", f"name the base: {call} --base NAME")
    at = f" at {declared.revision}" if declared.revision else ""
    raise ModelError(
        f"it was trained on {declared.base}{at}, which is no base of the spec",
        where,
        expected=f"one of {known}",
        fix="add that base to gapmend.yaml; or, if one of the spec's is the same under another "
        f"name, say which: {call} --base NAME",
    )


def _refuse_no_file(path: Path) -> None:
    """Refuse what stands in a file's place: reading a pipe or a device may never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return  # said by whoever needs it
    except OSError as error:
        raise ModelError(f"{path.name} can't be read ({type(error).__name__})", str(path)) from None
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path.name} is no file", str(path), "a file of its own")


def _is_for(declared: DeclaredBase, base: BaseIdentity) -> bool:
    name = base.public_name
    if declared.base != name and not (_is_path(declared.base) and _last(declared.base) == name):
        return False
    return not (base.commit and declared.revision and declared.revision != base.commit)


def _is_open(declared: DeclaredBase) -> bool:
    return not declared.base or _is_path(declared.base)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "~", ".")) or bool(PureWindowsPath(name).drive)


def _last(path: str) -> str:
    return PureWindowsPath(path).name  # knows both kinds of slash
