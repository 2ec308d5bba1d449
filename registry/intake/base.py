"""The check of a base that isn't ours, before it is used: in a process of its own, once.

Its config may describe a model of any size, its tokenizer be none, its chat template never end.
What was found to be fine is remembered in the workspace's cache, by the base's digest.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.intake.template import templates_of
from registry.limited import run_limited
from registry.models.base import MERGED, NANO, locate
from registry.store.filenames import STATE
from registry.store.paths import CACHE

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.base import BaseIdentity, BaseSpec

_SECONDS = 120  # of CPU, most of them for importing transformers; a big model takes some
# Weights that are packed, eight or less to a number, and tied ones; not more than that.
_MOST_TIMES = 16
_READING = {
    "config": "making a model of config.json",
    "tokenizer": "reading the tokenizer",
    "template": "rendering the chat template",
}


def check_base(name: str, spec: BaseSpec, root: Path, identity: BaseIdentity) -> None:
    """Check that a base can be made, read and asked in bounded time and memory.

    Args:
        name: its name in the spec.
        spec: what the spec says about it.
        root: the workspace, if it is one: its cache remembers what was found to be fine.
        identity: of the base.

    Raises:
        UserError: no model or tokenizer can be made of its files, its config describes far more
            than its weights hold, or its chat template tries to leave its sandbox or doesn't end.
    """
    if spec.model == NANO or spec.model.startswith(MERGED):
        return  # ours, or checked when it was taken in
    fine = root / CACHE / "bases" / identity.digest
    if fine.exists():
        return
    folder, where = locate(name, spec, root).path.resolve(), f"bases.{name}"
    check_made(folder, identity.parameters, where, trust_remote_code=spec.trust_remote_code)
    if (root / STATE).is_dir():  # elsewhere, or where nothing may be written, it is tried again
        with suppress(OSError):
            fine.parent.mkdir(parents=True, exist_ok=True)
            fine.touch()


def check_made(folder: Path, stored: int, where: str, *, trust_remote_code: bool = False) -> None:
    """Check that a model, a tokenizer and its chat templates can be made of a folder's files.

    Args:
        folder: with config.json and the rest; weights aren't read.
        stored: how many weights there are.
        where: for messages.
        trust_remote_code: run the code that it brings.

    Raises:
        UserError: it is not so.
    """
    templates = [text for text, _ in templates_of(folder, where)]
    given = [str(folder), trust_remote_code, templates, _SECONDS]
    try:
        done = run_limited("registry.intake.base_program", given, _SECONDS)
    except subprocess.TimeoutExpired:
        raise ModelError("reading it doesn't end", where) from None
    said = done.stdout.splitlines()
    reading = _READING[next((one for one in reversed(said) if one in _READING), "config")]
    if done.returncode < 0:
        raise ModelError(f"{reading} takes too much time or memory", where)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{reading} fails: {reason}", where)
    parameters = int(said[-1])
    if parameters > _MOST_TIMES * stored:
        raise ModelError(
            f"config.json describes {parameters} weights, and {stored} are stored",
            where,
            expected="a config that fits the weights",
            fix="save or fetch the model again",
        )
