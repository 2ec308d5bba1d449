"""One architecture through everything: gap, training, forgetting, merge, reload, GGUF.

Each step is held against transformers' and PEFT's own forward pass of one sequence at a time, by
a model that is loaded from the files anew: nothing of ours is in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, log_softmax

from evals.engine.packed import PackedLM
from pipeline.spec.train import TrainSpec
from pipeline.training import compute
from pipeline.training.examples.encode import IGNORED, TrainingRow
from pipeline.training.fit import FitResult, fit
from pipeline.training.losses.loss import pack_rows, packed_loss, row_by_row_loss
from pipeline.training.losses.objective import encode
from registry.errors import UserError
from registry.gguf.convert import read_source, write_gguf
from registry.gguf.proof import prove
from registry.merge.one import merge_adapter
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.models.parity import BOUNDS, distance, logits_of, prompt_tokens
from registry.models.quiet import quiet_libraries
from tests.architectures import configs
from tests.support import tiny_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEVER = ("router", ".gate.", "expert_gate", "vision", "visual", "projector", "lm_head", "embed_t")
SPEC = TrainSpec(
    base="tiny",
    rank=2,
    learning_rate=1e-2,
    epochs=2,
    batch_tokens=4096,
    batch_rows=100,
    min_steps=1,
    checkpoint_steps=100,
)
SHOT = (
    "Question: how much is 12 plus 30? Answer: card arrival.\n\nQuestion: the quick brown fox\n\n"
)
PAIRS = [
    (f"{SHOT}Question: what is it?\nAnswer:", choice)
    for choice in (" yes", " no", " card arrival", " card payment", " never, always and sometimes")
] + [("Is it", " yes"), (f"{SHOT}Question: dull film?\nAnswer:", " no"), ("don", "'t do")]
PROMPTS = [f"{SHOT}Question: what is it?\nAnswer:", "The answer is", f"{SHOT}Question: dull?"]
WRITTEN = 4  # tokens of an answer
EXACT = 2e-4  # of log-likelihoods and losses, in fp32


@dataclass
class Steps:
    """What each step came to: a word, or why it is refused.

    Attributes:
        kind: the architecture.
        model: its class.
        said: of each step, in order; those behind a refusal are not there.
        why: of each that is refused, its line.
    """

    kind: str
    model: str = ""
    said: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, work: Callable[[], str]) -> bool:
        """Run a step; whether the next ones can follow it."""
        try:
            self.said[name] = work()
        except UserError as error:
            self.said[name] = "refused"
            self.why[name] = str(error)
        return name not in self.why


def make(kind: str, folder: Path, **changes: Any) -> None:
    """Save a tiny random model with weights so wide that a wrong mask shows in every logit."""
    torch.manual_seed(0)
    config = configs.config(kind)
    for name, value in changes.items():
        setattr(config, name, value)
    model = class_of(config, whole=True).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() in (2, 3) and not any(part in name for part in ("A_log", "conv")):
                weight.normal_(0, 0.12)
            elif weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)  # what is 0 at first hides what follows
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)


def class_of(config: Any, *, whole: bool = False) -> Any:
    """The class that one would load this by; `whole`: with its part for pictures."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    reads_pictures = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if reads_pictures and (whole or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def plainly(folder: Path, adapter: Path | None = None) -> Any:
    """The model as transformers loads it, whole, alone; or for text, with an adapter by PEFT."""
    from peft import PeftModel
    from transformers import AutoConfig

    kind = class_of(AutoConfig.from_pretrained(folder), whole=adapter is None)
    model = kind.from_pretrained(folder, dtype=torch.float32)
    with quiet_libraries():
        return (PeftModel.from_pretrained(model, str(adapter)) if adapter else model).eval()


def through(kind: str, root: Path) -> Steps:
    """Run an architecture through all steps."""
    steps = Steps(kind)
    base, merged, adapter = root / "base", root / "merged", root / "run/adapter"
    make(kind, base)
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype="fp32"), root)
    steps.model = type(loaded.model).__name__
    tokens = prompt_tokens(loaded)
    before = logits_of(loaded.model, tokens)
    plain, engine = plainly(base), PackedLM(loaded)
    tuned: list[Any] = []

    def train() -> str:
        found = fit(loaded, rows(), SPEC, root / "run")
        tuned.append(plainly(base, adapter))
        return trained(found, loaded, plain)

    def forget() -> str:
        engine.use(adapter)
        found = scored(engine, tuned[0])
        engine.use(None)
        return found

    def merge() -> str:
        merge_adapter(loaded, adapter, merged)
        assert (logits_of(loaded.model, tokens) == before).all()  # the base is as it was
        return "proved"

    def reload() -> str:
        again = load_model("tiny", BaseSpec(model=str(merged), dtype="fp32"), root)
        off = distance(logits_of(tuned[0], tokens), logits_of(again.model, tokens))
        assert off <= BOUNDS["fp32"], off
        return "same"

    def gguf() -> str:
        source, file = read_source(merged), root / "model.gguf"
        write_gguf(source, file, "f32", name="tiny")
        prove(source, file, "f32")
        return "same"

    for name, work in (
        ("gap", lambda: scored(engine, plain)),
        ("train", train),
        ("forget", forget),
        ("merge", merge),
        ("reload", reload),
        ("GGUF", gguf),
    ):
        if not steps.take(name, work):
            break
    return steps


def rows(count: int = 6, *, longest: int = 40) -> list[TrainingRow]:
    """Conversations, most of them longer than the windows."""
    draw = random.Random(1)
    words = ["film", "was", "good", "dull", "but", "warm", "a", "card", "lazy", "dog", "fox"]
    asked = [draw.choices(words, k=draw.randint(min(4, longest), longest)) for _ in range(count)]
    return [
        TrainingRow(
            uid=100 + uid,
            messages=(
                {"role": "user", "content": " ".join(text)},
                {"role": "assistant", "content": draw.choice(["positive", "negative"])},
            ),
            tools=None,
            capability="sentiment",
        )
        for uid, text in enumerate(asked)
    ]


def scored(engine: PackedLM, plain: Any) -> str:
    """Hold answers and log-likelihoods against plain forward passes."""
    from lm_eval.api.instance import Instance

    def ask(kind: Any, arguments: list[Any]) -> list[Any]:
        return [
            Instance(request_type=kind, doc={}, arguments=one, idx=index)
            for index, one in enumerate(arguments)
        ]

    found = engine.loglikelihood(ask("loglikelihood", PAIRS))
    for (context, choice), (ours, _) in zip(PAIRS, found, strict=True):
        ids = engine.tokenizer(context + choice)["input_ids"]
        begun = len(engine.tokenizer(context)["input_ids"])
        theirs = log_softmax(_logits(plain, ids), -1)[begun - 1 : -1]
        wanted = float(theirs.gather(1, torch.tensor(ids[begun:])[:, None]).sum())
        assert abs(ours - wanted) <= EXACT * abs(wanted), (context[-20:], choice, ours, wanted)
    asked = {"until": ["\n\n\n"], "max_gen_toks": WRITTEN}
    answers = engine.generate_until(ask("generate_until", [(one, asked) for one in PROMPTS]))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer == _greedy(engine.tokenizer, plain, prompt), prompt
    return "packed" if engine.packed else "single"


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float()


def _greedy(tokenizer: Any, model: Any, prompt: str) -> str:
    ids = list(tokenizer(prompt)["input_ids"])
    begun = len(ids)
    while len(ids) < begun + WRITTEN:
        ids.append(int(_logits(model, ids)[-1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[begun:], skip_special_tokens=True))


def trained(found: FitResult, loaded: LoadedModel, plain: Any) -> str:
    """Hold the loss against plain forward passes, and see that what is trained is what is said."""
    parts = encode(loaded, rows(), SPEC, allow_rejects=0).objective.parts
    encoded = sorted((row for (row,) in parts), key=lambda row: -row.tokens)
    wanted = sum(plain_loss(plain, row) for row in encoded)
    batch = pack_rows(encoded, share=found.shared)
    with torch.no_grad(), compute.packing(loaded.model, wanted=found.packed):
        ours = float((packed_loss if found.packed else row_by_row_loss)(loaded.model, batch))
    assert abs(ours - wanted) <= EXACT * wanted, (ours, wanted)
    first, last = found.losses[0], found.losses[-1]
    assert first.trained_tokens == sum(row.trained_tokens for row in encoded)
    if not draws(loaded):
        assert abs(first.loss * first.trained_tokens - wanted) <= EXACT * wanted
        assert last.loss < first.loss
    file = load_file(found.adapter_dir / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in file.values()) == found.trainable
    for name, tensor in file.items():
        assert not any(part in name for part in NEVER), name
        assert "lora_B" not in name or bool(tensor.any()), f"{name} is not trained"
    return "packed" if found.packed else "single"


def draws(loaded: LoadedModel) -> bool:
    """Whether it draws random numbers in training, as PhiMoE's router does."""
    return loaded.model.config.model_type == "phimoe"


def plain_loss(model: Any, row: Any) -> float:
    logits = _logits(model, row.input_ids.tolist())
    labels = torch.from_numpy(row.labels).long()
    kept = labels[1:] != IGNORED
    return float(cross_entropy(logits[:-1][kept], labels[1:][kept], reduction="sum"))
