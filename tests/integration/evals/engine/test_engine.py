"""The engine against lm-eval's HF backend: tiny models of six architectures and three hybrids.

The models are random, but drawn so wide that one wrong token, position or mask entry moves every
log-likelihood by far more than the bound.
"""

from __future__ import annotations

import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from evals.engine.limits import OverlongError
from registry.chat.chat import Chat
from registry.chat.settings import ChatSettings
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from evals.engine.packed import PackedLM

SOFTMAX = ["llama", "qwen3", "gemma2", "gemma3", "mistral", "gpt2"]
HYBRID = ["mamba", pytest.param("jamba", marks=pytest.mark.soak), "qwen3_next"]
BOUND = 1e-4
WORDS = "the quick brown fox answer card is it what film dull 12 30 yes no".split()  # noqa: SIM905 - as a text it is read at a glance
CHOICES = [
    " yes",
    " no",
    " maybe so",
    " card arrival",
    " card payment",
    " card",  # the beginning of others
    "x y z",
    " never, always and sometimes",
]


@dataclass(frozen=True)
class Pair:
    """Our engine and lm-eval's, over one model."""

    loaded: LoadedModel
    ours: PackedLM
    theirs: Any


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests run beside each other: threads that wait for each other would take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory):
    """A `Pair` of an architecture, made once."""
    from lm_eval.models.huggingface import HFLM

    from evals.engine.packed import PackedLM

    root = tmp_path_factory.mktemp("models")
    made: dict[tuple[str, bool], Pair] = {}

    def make(kind: str, *, bos: bool = False) -> Pair:
        if (kind, bos) not in made:
            name = f"{kind}-{bos}"
            tiny_models.save(root / name, kind, bos=bos)
            loaded = load_model(name, BaseSpec(model=name), root)
            theirs = HFLM(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                batch_size=4,
                max_length=loaded.context,
            )
            made[kind, bos] = Pair(loaded, PackedLM(loaded), theirs)
        return made[kind, bos]

    return make


def requests(kind: str, arguments: list[tuple]) -> list[Instance]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=index)
        for index, args in enumerate(arguments)
    ]


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def scored(seed: int = 0) -> list[tuple[str, str]]:
    """Contexts with and without shared shots, choices of unequal length, awkward boundaries."""
    draw = random.Random(seed)
    shots = [f"Question: {text(draw, 60)}\nAnswer: yes\n\n" for _ in range(2)]
    pairs: list[tuple[str, str]] = []
    for number in range(12):
        shot = ["", *shots][number % 3]
        end = "\nAnswer:" if number % 2 else "\nAnswer: "
        context = f"{shot}Question: {text(draw, draw.randint(1, 12))}{end}"
        pairs += [(context, choice) for choice in CHOICES[: draw.randint(2, len(CHOICES))]]
    pairs += [("", "hello there"), ("", "yes"), ("don", "'t do"), ("<s>Question", " 1")]
    pairs += [("Is it <", "|end|> yes and no"), ("中文 is", " 中"), ("e", "́a"), ("  \n", "yes")]
    draw.shuffle(pairs)
    return pairs


def differences(pair: Pair, pairs: list[tuple[str, str]]) -> tuple[float, int]:
    """The largest difference of log-likelihoods, and how many differ in being greedy."""
    ours = pair.ours.loglikelihood(requests("loglikelihood", pairs))
    theirs = pair.theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    return (
        max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True)),
        sum(a[1] != b[1] for a, b in zip(ours, theirs, strict=True)),
    )


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", SOFTMAX)
def test_log_likelihoods_are_those_of_lm_eval(pair_of, kind: str, bos: bool) -> None:
    pair = pair_of(kind, bos=bos)
    # "  \n" alone has no token left for lm-eval to condition on; ours takes BOS.
    pairs = [p for p in scored() if p[0].strip() or not p[0]]
    assert pair.ours.packed
    worst, greedy = differences(pair, pairs)
    assert worst < BOUND
    assert greedy == 0


@pytest.mark.parametrize("shared", [0, 90])
@pytest.mark.parametrize("kind", SOFTMAX)
def test_long_contexts_with_shots_of_their_own_or_shared(pair_of, kind: str, shared: int) -> None:
    """Every row has a trunk long enough to be attended to causally, behind a prefix or not."""
    pair = pair_of(kind)
    draw = random.Random(shared)
    shots = text(draw, shared) + "\n" if shared else ""
    contexts = [f"{shots}{text(draw, draw.randint(75, 90))}\nAnswer:" for _ in range(6)]
    before = pair.ours.tokens_processed
    worst, greedy = differences(pair, [(c, choice) for c in contexts for choice in CHOICES])
    assert (worst < BOUND, greedy) == (True, 0)
    alone = sum(len(pair.ours.tok_encode(context)) for context in contexts)
    assert (pair.ours.tokens_processed - before < alone) == bool(shared)


def test_choices_share_a_row_and_shots_are_read_once(pair_of) -> None:
    pair = pair_of("llama")
    shots = "Question: it is. Answer: yes. " * 20
    pairs = [(f"{shots}Question: {n}?", c) for n in range(30) for c in CHOICES]
    before = pair.ours.tokens_processed
    pair.ours.loglikelihood(requests("loglikelihood", pairs))
    read = pair.ours.tokens_processed - before
    alone = sum(len(pair.ours.tok_encode(context + choice)) for context, choice in pairs)
    assert read * 20 < alone


def other_tokenizer(folder: Path, which: str) -> None:
    """Change how a saved model's tokenizer pads, cuts or splits."""
    file = folder / "tokenizer.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    if which in {"left", "right"}:
        side = which.capitalize()
        saved["padding"] = {
            "strategy": "BatchLongest", "direction": side, "pad_to_multiple_of": None,
            "pad_id": 2, "pad_type_id": 0, "pad_token": "<pad>",
        }  # fmt: skip
        saved["truncation"] = {
            "direction": side, "max_length": 8, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip
        settings = folder / "tokenizer_config.json"
        said = json.loads(settings.read_text(encoding="utf-8")) | {"padding_side": which}
        settings.write_text(json.dumps(said), encoding="utf-8")
    elif which == "whole text":  # as SentencePiece: merges go across every boundary
        saved["pre_tokenizer"]["use_regex"] = False
    else:  # a space in front of everything
        saved["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(saved), encoding="utf-8")


@pytest.mark.parametrize("which", ["left", "right", "whole text", "prefix space"])
def test_however_the_tokenizer_pads_and_merges(tmp_path: Path, which: str) -> None:
    from lm_eval.models.huggingface import HFLM

    from evals.engine.packed import PackedLM

    tiny_models.save(tmp_path / "base", "llama")
    other_tokenizer(tmp_path / "base", which)
    loaded = load_model("base", BaseSpec(model="base"), tmp_path)
    if which in {"left", "right"}:
        assert loaded.tokenizer.padding_side == which
    theirs = HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=4, max_length=512)
    pair = Pair(loaded, PackedLM(loaded), theirs)
    pairs = [p for p in scored() if p[0].strip() or not p[0]]
    worst, greedy = differences(pair, pairs)
    assert worst < BOUND
    assert greedy == 0
    ours = pair.ours.generate_until(requests("generate_until", prompts()))
    assert ours == theirs.generate_until(requests("generate_until", prompts()), disable_tqdm=True)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_rolling_is_that_of_lm_eval(pair_of, kind: str) -> None:
    pair = pair_of(kind)
    draw = random.Random(3)
    texts = [(text(draw, 20),), (text(draw, 700),), ("x",)]
    ours = pair.ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    theirs = pair.theirs.loglikelihood_rolling(
        requests("loglikelihood_rolling", texts), disable_tqdm=True
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-6, abs=BOUND)


def prompts() -> list[tuple[str, dict]]:
    """Prompts of many lengths, some behind shared shots; stops within and across tokens."""
    draw = random.Random(5)
    shots = f"Review: {text(draw, 80)}\n"
    stops = [["\n"], [" the", " q"], ["."], [" fox answer"], ["ca"]]
    return [
        (
            (shots if number % 3 == 0 else "") + f"Question: {text(draw, draw.randint(1, 30))}",
            {"until": stops[number % len(stops)], "max_gen_toks": draw.choice([1, 8, 24])},
        )
        for number in range(40)
    ]


@pytest.mark.parametrize("kind", SOFTMAX)
def test_greedy_generations_are_those_of_lm_eval(pair_of, monkeypatch, kind: str) -> None:
    # Few slots, so that rows leave, move and are refilled many times.
    monkeypatch.setattr("evals.engine.generate.MAX_ROWS", 5)
    pair = pair_of(kind)
    ours = pair.ours.generate_until(requests("generate_until", prompts()))
    theirs = pair.theirs.generate_until(requests("generate_until", prompts()), disable_tqdm=True)
    assert ours == theirs
    assert len(set(ours)) > 10


def test_a_stop_string_across_tokens_ends_an_answer(pair_of) -> None:
    pair = pair_of("llama")
    prompt = "Question: what is it"
    free = {"until": [], "max_gen_toks": 12}
    (whole,) = pair.ours.generate_until(requests("generate_until", [(prompt, free)]))
    stop = whole[3:9]  # begins and ends where it falls, within tokens
    assert len(pair.loaded.tokenizer.encode(stop)) > 1
    wanted = {"until": [stop], "max_gen_toks": 12}
    (cut,) = pair.ours.generate_until(requests("generate_until", [(prompt, wanted)]))
    assert cut == whole.split(stop)[0]


@pytest.mark.parametrize("kind", HYBRID)
def test_a_hybrid_gets_one_sequence_a_row_and_says_so(
    pair_of, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    from evals.engine.packed import PackedLM

    pair = pair_of(kind)
    with caplog.at_level(logging.WARNING):
        engine = PackedLM(pair.loaded)
    assert not engine.packed
    assert "linear_attention layers; one sequence a row" in caplog.text
    pairs = [p for p in scored() if p[0].strip() or not p[0]]
    worst, greedy = differences(pair, pairs)
    assert worst < BOUND
    assert greedy == 0
    few = prompts()[:8]
    ours = engine.generate_until(requests("generate_until", few))
    alone = [engine.generate_until(requests("generate_until", [one]))[0] for one in few]
    assert ours == alone


def test_a_model_whose_mask_is_ignored_is_found_out(pair_of, caplog, monkeypatch) -> None:
    """What a hybrid unknown to the config check would do: the tried logits give it away."""
    from evals.engine.packed import PackedLM

    pair = pair_of("llama")
    forward = type(pair.loaded.model).forward

    def careless(self: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:  # noqa: ARG001 - what it shows
        return forward(self, *args, attention_mask=None, **kwargs)

    careless.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(pair.loaded.model), "forward", careless)
    with caplog.at_level(logging.WARNING):
        engine = PackedLM(pair.loaded)
    assert not engine.packed
    assert "other logits" in caplog.text


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_an_adapter_in_use_equals_a_freshly_loaded_one(pair_of, tmp_path: Path, kind: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    pair = pair_of(kind)
    loaded = pair.loaded
    base = Path(loaded.model.config._name_or_path)
    kept = {"fan_in_fan_out": True} if kind == "gpt2" else {}
    folders = [
        tiny_models.save_adapter(tmp_path / "a", base, seed=1, **kept),
        tiny_models.save_adapter(tmp_path / "b", base, seed=2, use_rslora=True, **kept),
    ]
    pairs = requests("loglikelihood", [p for p in scored() if p[0].strip()])
    modules = [type(module) for module in loaded.model.modules()]
    plain = pair.ours.loglikelihood(pairs)
    for folder in [*folders, folders[0]]:
        loaded.use(folder)
        switched = pair.ours.loglikelihood(pairs)
        fresh = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder
        ).eval()
        ids = loaded.tokenizer("Question: what is it? Answer:", return_tensors="pt").input_ids
        with torch.no_grad():
            assert torch.equal(loaded.model(ids).logits, fresh(ids).logits)
        theirs = pair.theirs.loglikelihood(pairs, disable_tqdm=True)
        assert max(abs(a[0] - b[0]) for a, b in zip(switched, theirs, strict=True)) < BOUND
        assert max(abs(a[0] - b[0]) for a, b in zip(switched, plain, strict=True)) > 0.1
    loaded.use(None)
    assert pair.ours.loglikelihood(pairs) == plain
    assert [type(module) for module in loaded.model.modules()] == modules
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    assert not hasattr(loaded.model, "peft_config")


def test_a_scale_multiplies_an_adapter_exactly_and_is_undone(pair_of, tmp_path: Path) -> None:
    loaded = pair_of("llama").loaded
    base = Path(loaded.model.config._name_or_path)
    folder = tiny_models.save_adapter(tmp_path / "a", base)
    half = tiny_models.save_adapter(tmp_path / "half", base, lora_alpha=4)
    ids = loaded.tokenizer("Question: what is it?", return_tensors="pt").input_ids

    def logits(adapter: Path | None, scale: float = 1.0) -> torch.Tensor:
        loaded.use(adapter, scale)
        with torch.no_grad():
            return loaded.model(ids).logits

    bare, whole = logits(None), logits(folder)
    assert torch.equal(logits(folder, 0.5), logits(half))
    assert torch.equal(logits(folder), whole)
    assert torch.allclose(logits(folder, 0.0), bare, atol=1e-6)
    assert torch.equal(logits(None), bare)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 4), (5.5, 5), (6.5, 6)])
def test_adapters_are_kept_while_they_are_small(
    pair_of, tmp_path: Path, monkeypatch, share: float, kept: int
) -> None:
    loaded = pair_of("llama").loaded
    base = Path(loaded.model.config._name_or_path)
    folders = [tiny_models.save_adapter(tmp_path / str(n), base, seed=n) for n in range(6)]
    ids = loaded.tokenizer("Question: what is it?", return_tensors="pt").input_ids

    def logits(folder: Path) -> torch.Tensor:
        loaded.use(folder)
        with torch.no_grad():
            return loaded.model(ids).logits

    one = (folders[0] / "adapter_model.safetensors").stat().st_size
    monkeypatch.setattr("registry.models.load.ADAPTER_BYTES", int(share * one))
    first = [logits(folder) for folder in folders]
    assert all(torch.equal(logits(f), seen) for f, seen in zip(folders, first, strict=True))
    assert len(loaded._peft.peft_config) == kept
    loaded.use(None)


def test_a_missing_or_pickled_adapter_is_refused(pair_of, tmp_path: Path) -> None:
    loaded = pair_of("llama").loaded
    with pytest.raises(UserError, match="no adapter in"):
        loaded.use(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": []}')
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(UserError, match="safetensors"):
        loaded.use(tmp_path)
    loaded.use(None)


def test_overlong_requests_are_named_and_nothing_is_cut(pair_of) -> None:
    engine = pair_of("llama").ours
    fits = "it " * 300
    long = "it " * 600
    pairs = [(fits, " yes"), (long, " no"), (fits, " no"), (long, " yes")]
    before = engine.tokens_processed
    with pytest.raises(OverlongError) as caught:
        engine.loglikelihood(requests("loglikelihood", pairs))
    assert [request.index for request in caught.value.requests] == [1, 3]
    assert caught.value.requests[0].tokens > engine.max_length
    assert engine.tokens_processed == before
    answer = {"until": [], "max_gen_toks": 300}
    with pytest.raises(OverlongError) as caught:
        engine.generate_until(requests("generate_until", [("it", answer), (fits, answer)]))
    assert [request.index for request in caught.value.requests] == [1]


def test_the_longest_request_that_fits_is_scored(pair_of) -> None:
    pair = pair_of("gpt2")
    tokens = [5 + n % 400 for n in range(pair.ours.max_length + 1)]
    asked = [(("", ""), tokens[:-3], tokens[-3:])]
    ((ours, _),) = pair.ours._loglikelihood_tokens(asked)
    ((theirs, _),) = pair.theirs._loglikelihood_tokens(asked, disable_tqdm=True)
    assert ours == pytest.approx(theirs, abs=BOUND)
    with pytest.raises(OverlongError):
        pair.ours._loglikelihood_tokens([(("", ""), tokens[:-2], tokens[-3:])])


def test_sampling_is_refused(pair_of) -> None:
    engine = pair_of("llama").ours
    with pytest.raises(UserError, match="greedily"):
        engine.generate_until(requests("generate_until", [("a", {"do_sample": True})]))


def test_an_empty_continuation_is_refused(pair_of) -> None:
    engine = pair_of("llama").ours
    with pytest.raises(UserError, match="empty continuation"):
        engine.loglikelihood(requests("loglikelihood", [("a", "")]))


def test_a_batch_that_runs_out_of_memory_is_halved(pair_of, monkeypatch) -> None:
    from evals.engine.forward import Forward
    from evals.engine.packed import PackedLM

    pair = pair_of("llama")
    engine = PackedLM(pair.loaded)
    wanted = pair.ours.loglikelihood(requests("loglikelihood", scored()))
    answers = pair.ours.generate_until(requests("generate_until", prompts()))
    read, failures = Forward.read, []

    def scarce(self: Forward, batch: Any, prefix: Any = None) -> Any:
        if batch.ids.size > 150 and len(batch.ids) > 1:
            failures.append(batch.ids.shape)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return read(self, batch, prefix)

    monkeypatch.setattr(Forward, "read", scarce)
    got = engine.loglikelihood(requests("loglikelihood", scored()))
    assert failures
    assert max(abs(a[0] - b[0]) for a, b in zip(got, wanted, strict=True)) < BOUND
    failures.clear()
    fresh = PackedLM(pair.loaded)
    assert fresh.generate_until(requests("generate_until", prompts())) == answers
    assert failures


def test_progress_counts_every_request(pair_of) -> None:
    engine = pair_of("llama").ours
    seen: list[tuple[int, int]] = []
    engine.progress = lambda done, total: seen.append((done, total))
    pairs = scored()
    engine.loglikelihood(requests("loglikelihood", pairs))
    assert seen[-1] == (len(pairs), len(pairs))
    seen.clear()
    engine.generate_until(requests("generate_until", prompts()))
    done = [count for count, _ in seen]
    assert (done[0], done[-1]) == (0, 40)
    assert done == sorted(set(done))
    engine.progress = None


def test_very_many_choices_are_divided_over_rows(pair_of, monkeypatch) -> None:
    monkeypatch.setattr("evals.engine.layout.build_trees", _small_trees)
    pair = pair_of("llama")
    pairs = [("Question: what?", f" card {word} {n}") for word in WORDS for n in range(10)]
    worst, greedy = differences(pair, pairs)
    assert (worst < BOUND, greedy) == (True, 0)


def _small_trees(ids: Any) -> Any:
    from evals.engine.tree import build_trees

    return build_trees(ids, 20)


def test_an_lm_eval_task_runs_on_it(pair_of) -> None:
    """The evaluator itself: a multiple-choice task with a chat template, both backends."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    pair = pair_of("qwen3")
    draw = random.Random(9)
    docs = [{"q": text(draw, 9), "label": n % 3} for n in range(20)]

    class Tiny(ConfigurableTask):
        VERSION = 0

        def __init__(self) -> None:
            config = {
                "task": "tiny",
                "output_type": "multiple_choice",
                "doc_to_text": "{{q}}",
                "doc_to_target": "label",
                "doc_to_choice": [" yes", " no way", " maybe"],
                "test_split": "test",
                "custom_dataset": lambda **_kwargs: {"test": Dataset.from_list(docs)},
            }
            super().__init__(config=config)

    found = [
        evaluate(
            engine, {"tiny": Tiny()}, log_samples=True, apply_chat_template=True, bootstrap_iters=0
        )
        for engine in (pair.ours, pair.theirs)
    ]
    samples = [[[float(r[0][0]) for r in s["resps"]] for s in f["samples"]["tiny"]] for f in found]
    assert len(samples[0]) == 20
    for ours, theirs in zip(*samples, strict=True):
        assert ours == pytest.approx(theirs, abs=BOUND)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_one_line(tmp_path: Path, file: str) -> None:
    tiny_models.save(tmp_path / "base", "llama")
    tiny_models.save_adapter(tmp_path / "a", tmp_path / "base")
    (tmp_path / "a" / file).write_bytes(b"{")
    loaded = load_model("b", BaseSpec(model="base"), tmp_path)
    with pytest.raises(UserError, match="gapmend fsck"):
        loaded.use(tmp_path / "a")


@pytest.mark.parametrize("broken", ["missing", "another shape"])
def test_weights_that_are_not_there_are_never_drawn_at_random(tmp_path: Path, broken: str) -> None:
    from safetensors.torch import load_file, save_file

    file = tiny_models.save(tmp_path / "base", "llama") / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight"
    if broken == "missing":
        del weights[name]
    else:
        weights[name] = torch.ones(3, 3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"bases.b: 1 weights are missing .* first is {name}"):
        load_model("b", BaseSpec(model="base"), tmp_path)


def test_render_without_a_template(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "plain", "llama", template=False)
    loaded = load_model("plain", BaseSpec(model="plain"), tmp_path)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    asked = loaded.chat.render(chat, add_generation_prompt=True)
    assert asked == "Be brief.\n\nHi\n"
    answered = loaded.chat.render(
        [*chat, {"role": "assistant", "content": "Yo"}], add_generation_prompt=False
    )
    assert answered == asked + "Yo</s>"


def test_a_template_without_system_is_offered_it_in_the_first_turn(pair_of) -> None:
    loaded = pair_of("llama").loaded
    template = loaded.tokenizer.chat_template
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    loaded.tokenizer.chat_template = refuse + template
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    joining = Chat(loaded.tokenizer, loaded.identity, ChatSettings(system="join"))
    try:
        with pytest.raises(UserError, match=r"refuses these messages: no\. Set system: join in"):
            loaded.chat.context(chat)
        text = joining.context(chat)
    finally:
        loaded.tokenizer.chat_template = template
    assert text == "<|user|>Be brief.\n\nHi<|end|><|assistant|>"


def test_a_template_is_run_in_a_sandbox(pair_of) -> None:
    loaded = pair_of("llama").loaded
    template = loaded.tokenizer.chat_template
    loaded.tokenizer.chat_template = "{{ ''.__class__.__mro__ }}{{ messages.__init__.__globals__ }}"
    try:
        with pytest.raises(UserError):
            loaded.chat.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    finally:
        loaded.tokenizer.chat_template = template


@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_a_quantised_base_scores(tmp_path: Path, quantize: str) -> None:
    from evals.engine.packed import PackedLM

    tiny_models.save(tmp_path / "q", "llama", hidden_size=64, intermediate_size=128, head_dim=16)
    spec = BaseSpec.model_validate({"model": "q", "quantize": quantize})
    loaded = load_model("q", spec, tmp_path)
    kinds = {type(module).__name__ for module in loaded.model.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    flags = [getattr(m, "support_avx512bf16_for_cpu", False) for m in loaded.model.modules()]
    assert not any(flags)
    engine = PackedLM(loaded)
    pairs = [("Question: what is it?", choice) for choice in CHOICES]
    scores = engine.loglikelihood(requests("loglikelihood", pairs))
    plain = PackedLM(load_model("q", BaseSpec(model="q"), tmp_path))
    exact = plain.loglikelihood(requests("loglikelihood", pairs))
    assert all(abs(a[0] - b[0]) < 6 for a, b in zip(scores, exact, strict=True))
    assert scores != exact
