"""The process that tries whether a base can be made and asked: `python -m`, JSON on stdin.

Each line of its output is what it begins with, the last one how many weights the model has. What
is wrong is the last line of stderr.
"""

from __future__ import annotations

import json
import sys

_MEMORY = 16 << 30  # bytes of addresses; torch maps several GiB


def main() -> None:
    """Read which base on stdin, write what is begun, or leave with what is wrong."""
    folder, trusted, templates, seconds = json.loads(sys.stdin.read())
    _limit(seconds)
    try:
        parameters = _try(folder, templates, trust_remote_code=trusted)
    except Exception as error:  # noqa: BLE001 - whatever a library stumbles over is the base's
        said = next(iter(str(error).split("\n")), "")
        sys.exit(f"{type(error).__name__}: {said}")
    sys.stdout.write(f"{parameters}\n")


def _limit(seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _try(folder: str, templates: list[str], *, trust_remote_code: bool) -> int:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from registry.intake.template import wrong_with
    from registry.models.classes import causal_class

    _begin("config")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        empty = causal_class(config).from_config(config, trust_remote_code=trust_remote_code)
    parameters = sum(one.numel() for one in empty.parameters())
    _begin("tokenizer")
    AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    _begin("template")
    for text in templates:
        wrong = wrong_with(text)
        if wrong is not None:
            sys.exit(" ".join(wrong.split()))
    return parameters


def _begin(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
