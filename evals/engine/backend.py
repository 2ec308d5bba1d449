"""The backends that score: gapmend's own engine, or vLLM on a GPU. Light to import.

The two compute the same model in another order, so their figures differ by rounding. The backend
and its version are part of the key of every score that isn't gapmend's own: no score of one is
taken for the other's.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, Protocol

from registry.errors import ModelError
from registry.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from evals.engine.journal import Journal
    from evals.engine.vllm import VllmLM
    from registry.chat.chat import Chat
    from registry.models.base import BaseIdentity, BaseSpec

BackendName = Literal["gapmend", "vllm"]

# Read by vLLM when it is imported. Its log would stand in the output of --json; a fork would take
# our threads' locks and an open GPU with it; and nothing is sent to its makers.
_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
}
_WHERE = "evals.backend"
_OURS = "evals.backend: gapmend"


class Backend(Protocol):
    """What scoring needs of an engine, besides lm-eval's `LM` interface.

    Attributes:
        progress: called with (done, total) requests of the running call.
        journal: where answers are kept as they come, and found again; None: nowhere.
    """

    progress: Callable[[int, int], None] | None
    journal: Journal | None

    @property
    def chat(self) -> Chat:
        """How the base is spoken to."""

    @property
    def max_length(self) -> int:
        """The base's context, in tokens."""

    @property
    def tokens_processed(self) -> int | None:
        """How many tokens went through the model so far; None where the backend doesn't say."""

    def use(self, adapter: Path | None, scale: float = 1.0) -> None:
        """Answer as the base alone, or as the base with one adapter, its deltas scaled.

        Raises:
            UserError: no such adapter, or one that this backend doesn't take.
        """

    def close(self) -> None:
        """Give back the memory that it holds; it answers nothing after that."""


def backend_of(name: BackendName, spec: BaseSpec, identity: BaseIdentity) -> str | None:
    """Return what stands for the backend in the key of a score; None for gapmend's own engine.

    Raises:
        UserError: vLLM isn't installed, or would compute another model than the spec names.
    """
    if name == "gapmend":
        return None
    require_extra("vllm", _WHERE, otherwise=f", or set {_OURS}")
    check_vllm_base(spec, identity)
    return f"vllm {version('vllm')}"


def check_vllm_base(spec: BaseSpec, identity: BaseIdentity) -> None:
    """Refuse a base on which vLLM would compute another model than the spec names.

    Raises:
        UserError: it says why.
    """
    where = f"bases.{identity.name}"
    if spec.quantize:
        # Its bitsandbytes is NF4 with nested quantisation of the scales, and nothing else.
        raise ModelError(
            f"vLLM doesn't compute {spec.quantize} as training does: it would be another model",
            f"{where}.quantize",
            fix=f"leave quantize out, or set {_OURS}",
        )
    if spec.new_tokens:
        raise ModelError(
            "vLLM reads the base's own vocabulary, without new tokens",
            f"{where}.new_tokens",
            fix=f"leave them out, or set {_OURS}",
        )
    if identity.dtype == "fp32":
        raise ModelError(
            "vLLM takes adapters in 16 bits only, and this base is computed in fp32",
            f"{where}.dtype",
            "bf16 or fp16",
            f"set it, or {_OURS}",
        )


def vllm_rank(adapters: Collection[Path]) -> int:
    """Return the largest rank that vLLM is told, for adapters in these folders.

    Raises:
        UserError: it would compute one otherwise than it was trained, or takes none of its rank.
    """
    from evals.engine.vllm_adapter import check_vllm_adapter, lora_rank
    from registry.models.files import read_adapter_config

    ranks = [int(read_adapter_config(folder).get("r") or 0) for folder in adapters]
    rank = lora_rank(max(ranks, default=0))
    for folder in adapters:
        check_vllm_adapter(folder, rank)
    return rank


def open_vllm(name: str, spec: BaseSpec, root: Path, *, rank: int = 16) -> VllmLM:
    """Start vLLM with a base; `backend_of` says before whether that can be.

    Args:
        name: the base's name in the spec.
        spec: what the spec says about it.
        root: the workspace, where relative folders start.
        rank: the largest rank of an adapter that is to be expected.

    Raises:
        UserError: vLLM can't be imported, can't load the base, or takes no adapter of that rank.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        from evals.engine.vllm import VllmLM
    except ImportError as error:
        what = f"vllm can't be imported: {error}"
        raise ModelError(what, _WHERE, fix=f"mend it, or set {_OURS}") from error
    return VllmLM(name, spec, root, rank=rank)
