"""A stand-in for vLLM where it isn't installed: as much of it as lm-eval's backend calls.

It computes with transformers, in fp32 and one sequence at a time, and takes what vLLM takes, by
name: an argument that vLLM doesn't have is a TypeError, a prompt that is too long a ValueError, and
an adapter is known by its number alone. So what is asked of vLLM is tested, vLLM itself is not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.99.0"
STARTED: list[LLM] = []
"""Every engine that was started, the last one last."""


@dataclass
class SamplingParams:
    """vLLM's, with its defaults: who leaves the temperature out gets samples."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True
    stop: list[str] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


@dataclass(frozen=True)
class LoRARequest:
    """vLLM's: a name, a number and a folder."""

    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass(frozen=True)
class Logprob:
    """vLLM's: a number that isn't one."""

    logprob: float


class LLM:
    """vLLM's, with those of its arguments that are used here or by lm-eval."""

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None,
        tokenizer_mode: str,
        trust_remote_code: bool,
        tensor_parallel_size: int,
        dtype: str,
        quantization: str | None,
        revision: str | None,
        tokenizer_revision: str | None,
        seed: int,
        gpu_memory_utilization: float,
        max_model_len: int,
        max_num_seqs: int | None,
        enable_prefix_caching: bool,
        enable_lora: bool,
        max_lora_rank: int,
        load_format: str,
    ) -> None:
        self.arguments = {key: value for key, value in locals().items() if key != "self"}
        from registry.models.load import BaseSpec, load_model

        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.shutdowns = 0
        self._limit = max_model_len
        self._loaded = load_model("stand-in", BaseSpec(model=model, dtype="fp32"), Path("/"))
        self._adapters: dict[int, Path] = {}
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=max_model_len),
            engine_core=SimpleNamespace(shutdown=self._shutdown),
        )
        STARTED.append(self)

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[Any]:
        """Answer each prompt, and tell the log-probabilities of its tokens where asked to."""
        assert not use_tqdm
        adapter = None
        if lora_request is not None:
            # As vLLM does: a number that is known is not loaded again, whatever its folder.
            path = Path(lora_request.lora_path)
            adapter = self._adapters.setdefault(lora_request.lora_int_id, path)
        self._loaded.use(adapter)
        return [
            self._answer(prompt["prompt_token_ids"], told)
            for prompt, told in zip(prompts, sampling_params, strict=True)
        ]

    def _answer(self, prompt: list[int], told: SamplingParams) -> Any:
        assert told.temperature == 0
        if not prompt or len(prompt) + 1 > self._limit:
            raise ValueError(f"the prompt has {len(prompt)} tokens")
        self.asked.append((prompt, told))
        logs = self._logs(prompt)
        shown: list[dict[int, Logprob] | None] = [None]
        for place, token in enumerate(prompt[1:]):
            best = int(logs[place].argmax())
            shown.append({one: Logprob(float(logs[place, one])) for one in (token, best)})
        text = self._written(prompt, told) if told.detokenize else ""
        return SimpleNamespace(prompt_logprobs=shown, outputs=[SimpleNamespace(text=text)])

    def _written(self, prompt: list[int], told: SamplingParams) -> str:
        tokenizer, ids = self._loaded.tokenizer, list(prompt)
        text = ""
        for _ in range(min(told.max_tokens or 1, self._limit - len(prompt))):
            token = int(self._logs(ids)[-1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
            text = str(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=False))
            found = [text.index(stop) for stop in told.stop or () if stop in text]
            if found:
                return text[: min(found)]
        return text

    def _logs(self, ids: list[int]) -> Any:
        import torch

        with torch.no_grad():
            return self._loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def _shutdown(self) -> None:
        self.shutdowns += 1


def get_tokenizer(folder: str, **_options: Any) -> Any:
    """vLLM's: the tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def installed(monkeypatch: Any, folder: Path) -> Iterator[None]:
    """Within it, `import vllm` and its version in the package index give the stand-in."""
    from lm_eval.api.registry import model_registry

    theirs, ours = "lm_eval.models.vllm_causallms", "evals.engine.vllm"
    (folder / f"vllm-{VERSION}.dist-info").mkdir()
    described = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n"
    (folder / f"vllm-{VERSION}.dist-info/METADATA").write_text(described, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    named: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "TokensPrompt": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.tokenizers": {"get_tokenizer": get_tokenizer},
        "vllm.renderers": {},
        "vllm.renderers.hf": {"resolve_chat_template": lambda **_options: None},
    }
    for name, content in named.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    real: dict[str, ModuleType | None] = {
        name: sys.modules.pop(name, None) for name in (theirs, ours)
    }
    model_registry._objs["vllm"] = f"{theirs}:VLLM"
    STARTED.clear()
    yield
    STARTED.clear()
    model_registry._objs["vllm"] = f"{theirs}:VLLM"
    for name, before in real.items():
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
