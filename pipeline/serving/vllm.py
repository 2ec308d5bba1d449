"""The command that starts vLLM's own server with a base and its adapters, where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.chat.settings import ChatSettings
from registry.errors import ModelError, UserError
from registry.models.files import holds_changed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.models.base import BaseIdentity, BaseSpec

ADAPTERS_AT_ONCE = 8
"""How many adapters vLLM computes in one batch; each takes memory of its own."""

_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class VllmServer:
    """What vLLM is to serve.

    Attributes:
        folder: the base's files.
        identity: which base that is.
        trusted: whether its own code may run.
        adapters: their folders by the names that requests give; several names may mean one.
        host: where it listens.
        port: likewise.
    """

    folder: Path
    identity: BaseIdentity
    trusted: bool
    adapters: Mapping[str, Path]
    host: str
    port: int

    def command(self, rank: int) -> list[str]:
        """Return the command; `rank` is the largest that its adapters have, as vLLM takes it."""
        identity = self.identity
        command = ["vllm", "serve", str(self.folder)]
        command += ["--served-model-name", identity.name]
        command += ["--host", self.host, "--port", str(self.port)]
        command += ["--dtype", _DTYPES[identity.dtype], "--load-format", "safetensors"]
        command += ["--max-model-len", str(identity.context)]
        # The sampling settings of a checkpoint aren't what was measured.
        command += ["--generation-config", "vllm"]
        if self.trusted:
            command.append("--trust-remote-code")
        if self.adapters:
            folders = len(set(self.adapters.values()))
            command += ["--enable-lora", "--max-lora-rank", str(rank)]
            command += ["--max-loras", str(min(folders, ADAPTERS_AT_ONCE))]
            command += ["--max-cpu-loras", str(folders)]
            command.append("--lora-modules")
            command += [f"{name}={folder}" for name, folder in self.adapters.items()]
        return command


def why_not(spec: BaseSpec, identity: BaseIdentity, adapters: Mapping[str, Path]) -> str | None:
    """Return why vLLM would answer otherwise than was measured; None: it wouldn't.

    Args:
        spec: of the base.
        identity: of the base.
        adapters: their folders by name.
    """
    from evals.engine.backend import backend_of, vllm_rank

    try:
        backend_of("vllm", spec, identity)
        if identity.chat != ChatSettings():
            what = "vLLM's server can't be told thinking, system, date or tools as the spec has it"
            raise ModelError(what)
        changed = next((name for name, folder in adapters.items() if holds_changed(folder)), None)
        if changed is not None:
            raise ModelError(f"{changed} is changed tensors, and vLLM takes LoRA alone")
        vllm_rank(set(adapters.values()))
    except UserError as error:
        return error.what
    return None
