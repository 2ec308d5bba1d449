"""vLLM as the engine: lm-eval's own backend for it, held to what this engine promises.

Needs vLLM and a GPU, and loads both at import: `open_vllm` in backend.py is the way in.
"""

from __future__ import annotations

import gc
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.models.vllm_causallms import VLLM
from vllm.lora.request import LoRARequest

from evals.engine.answering import AnsweringMixin
from evals.engine.layout import refuse_empty
from evals.engine.limits import NotFiniteError, refuse_overlong
from evals.engine.vllm_adapter import check_vllm_adapter, lora_rank
from evals.engine.windows import score_windows
from registry.chat.template import Rendered
from registry.chat.tokens import TextTokens
from registry.errors import ModelError, UserError
from registry.models.adapters import write_scaled
from registry.models.base import check_weights, identify, locate
from registry.models.files import adapter_key
from registry.models.load import TORCH_DTYPES
from registry.models.tokenizer import load_chat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance

    from evals.engine.answering import Done
    from evals.engine.journal import Journal
    from registry.chat.chat import Chat
    from registry.models.base import BaseSpec

GPU_SHARE = 0.5
"""Of the GPU's memory: what is left of training, or somebody else, may hold the rest."""

CHUNK = 1024
"""Requests handed over at once, more than vLLM keeps running. It gives back a dictionary for every
token of a prompt: those of a whole test set would fill the memory."""

_ALL = 2**31  # more than there are requests: lm-eval then divides nothing, and shows no bar
_NO_LAYER = "a module that vLLM doesn't name"


class VllmLM(AnsweringMixin, VLLM):
    """Scores and generates with vLLM; what it may be asked is what `PackedLM` may be asked.

    A request that doesn't fit is refused, never cut, and generation is greedy. Log-likelihoods
    are those of `PackedLM` within the rounding of the dtype.

    Args:
        name: the base's name in the spec.
        spec: what the spec says about it.
        root: the workspace, where relative folders start.
        rank: the largest rank of an adapter that is to be expected.
        progress: called with (done, total) requests of the running call.

    Attributes:
        journal: where answers are kept as they come, and found again; None: nowhere.

    Raises:
        UserError: as `identify`, or vLLM can't load the base.
    """

    model: Any

    def __init__(
        self,
        name: str,
        spec: BaseSpec,
        root: Path,
        *,
        rank: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """See the class."""
        self.chat: Chat = load_chat(name, spec, root)
        self._tokens = TextTokens(self.chat.tokenizer)
        self.progress = progress
        self.journal: Journal | None = None
        self._max_rank = lora_rank(rank)
        self._requests: dict[tuple[str, float], LoRARequest] = {}
        self._scaled: TemporaryDirectory[str] | None = None
        folder = locate(name, spec, root, weights=True).path
        check_weights(folder, f"bases.{name}")
        identity = identify(name, spec, root)
        try:
            super().__init__(
                pretrained=str(folder),
                dtype=TORCH_DTYPES[identity.dtype],
                revision=None,  # the folder is that of the commit
                trust_remote_code=spec.trust_remote_code,
                batch_size=_ALL,
                max_model_len=identity.context,
                seed=0,
                max_lora_rank=self._max_rank,
                enable_lora=True,
                # What is taken from the cache isn't computed: it has no log-probabilities.
                enable_prefix_caching=False,
                load_format="safetensors",
                gpu_memory_utilization=GPU_SHARE,
            )
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"vLLM can't load it: {said}",
                f"bases.{name}",
                fix="read what it said before, or set evals.backend: gapmend",
            ) from error
        self.tokenizer = self.chat.tokenizer

    @property
    def tokens_processed(self) -> int | None:
        """See `Backend`; vLLM doesn't say."""
        return None

    def use(self, adapter: Path | None, scale: float = 1.0) -> None:
        """Answer as the base alone, or with one adapter; vLLM holds it under a number of its own.

        Raises:
            UserError: no such adapter, or one that vLLM doesn't take.
        """
        if adapter is None:
            self.lora_request = None
            return
        check_vllm_adapter(adapter, self._max_rank)
        key = (adapter_key(adapter), scale)
        if key not in self._requests:
            folder = adapter
            if scale != 1.0:
                folder = self._scaled_adapter(adapter, scale, key[0])
            number = len(self._requests) + 1
            self._requests[key] = LoRARequest(f"{key[0]}-{scale!r}", number, str(folder))
        self.lora_request = self._requests[key]

    def close(self) -> None:
        """Stop vLLM's process, with which its memory on the GPU goes."""
        import torch

        core = getattr(getattr(self.model, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()
        self.model = core = None
        if self._scaled is not None:
            self._scaled.cleanup()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **kwargs: Any) -> Any:  # noqa: FBT001 - lm-eval's interface
        """Ids of a text or of several; those that a chat template wrote are complete."""
        texts = [string] if isinstance(string, str) else list(string)
        if add_special_tokens is None and texts and all(isinstance(t, Rendered) for t in texts):
            found = self._tokens.bares(texts)
            return found[0] if isinstance(string, str) else found
        return super().tok_encode(string, add_special_tokens, **kwargs)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if isinstance(context, Rendered):
            return self._tokens.pair(context, continuation)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True  # noqa: FBT001, FBT002
    ) -> list[tuple[float, bool]]:  # fmt: skip
        """Log-likelihood of each continuation after its context, and whether it is greedy.

        Raises:
            OverlongError: some requests don't fit; none is scored.
            UserError: an empty continuation.
        """
        refuse_empty([request.args[1] for request in requests], range(len(requests)))
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        return scores

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True  # noqa: ARG002, FBT001, FBT002
    ) -> list[float]:  # fmt: skip
        """Log-likelihood of whole texts, in windows where they are longer than the context."""
        return score_windows(
            [self.tok_encode(request.args[0]) for request in requests],
            self._loglikelihood_tokens,
            prefix=self.prefix_token_id,
            # One token of context, and the one that vLLM always writes.
            window=self.max_length - 2,
        )

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = True  # noqa: FBT001, FBT002
    ) -> list[str]:  # fmt: skip
        """Greedy answers: up to a stop string, an end token or `max_gen_toks`.

        Raises:
            OverlongError: a prompt and its answer may exceed the context; nothing is generated.
            UserError: a task asks for sampling.
        """
        asked = [request.args for request in requests]
        lengths = []
        for text, wanted in asked:
            kwargs: dict[str, Any] = dict(normalize_gen_kwargs(wanted, self.max_gen_toks))
            if kwargs.get("do_sample"):
                raise UserError("the engine generates greedily", expected="do_sample: false")
            lengths.append(len(self.tok_encode(text)) + int(kwargs["max_gen_toks"]))
        refuse_overlong(lengths, self.max_length)
        write = super().generate_until
        return self._in_chunks(
            "generate_until",
            asked,
            lambda chunk: write([requests[i] for i in chunk], disable_tqdm),
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = True,  # noqa: FBT001, FBT002 - lm-eval's interface
    ) -> list[tuple[float, bool]]:
        refuse_empty([rest for _, _, rest in requests], range(len(requests)))
        # lm-eval leaves nothing before a text whose context is blank.
        start = [self.prefix_token_id]
        asked = [(key, context or start, rest) for key, context, rest in requests]
        # Unlike ours, vLLM reads the last token too, and writes one more.
        refuse_overlong(
            [len(context) + len(rest) + 1 for _, context, rest in asked], self.max_length
        )
        score = super()._loglikelihood_tokens
        return self._in_chunks(
            "tokens",
            [request[1:] for request in asked],
            lambda chunk: score([asked[i] for i in chunk], disable_tqdm),
        )

    @staticmethod
    def modify_gen_kwargs(
        gen_kwargs: dict[str, Any],
        eos: str | list[str] | None = None,
        default_max_gen_toks: int = 256,
    ) -> tuple[dict[str, Any], list[str], int]:
        """What vLLM is told, where to stop, and how many tokens an answer may have.

        lm-eval's own leaves the temperature out where a task says nothing of sampling, and vLLM's
        default is to sample. What `PackedLM` doesn't know of a task's settings isn't passed on.
        """
        _, until, tokens = VLLM.modify_gen_kwargs(gen_kwargs, eos, default_max_gen_toks)
        told = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        return {"temperature": 0.0, **told}, until, tokens

    def _scaled_adapter(self, adapter: Path, scale: float, key: str) -> Path:
        self._scaled = self._scaled or TemporaryDirectory(prefix="gapmend-")
        folder = Path(self._scaled.name) / f"{key}-{scale!r}"
        write_scaled(adapter, scale, folder)
        return folder

    def _in_chunks(
        self, kind: str, asked: Sequence[Any], answer: Callable[[list[int]], list[Any]]
    ) -> list[Any]:
        """Answers to requests, a chunk at a time."""

        def each(still: list[int], done: Done) -> None:
            for start in range(0, len(still), CHUNK):
                for place, found in enumerate(answer(still[start : start + CHUNK]), start):
                    if isinstance(found, tuple) and not isfinite(found[0]):
                        raise NotFiniteError(place, _NO_LAYER)
                    done(place, found)

        return self._answered(kind, asked, each)
