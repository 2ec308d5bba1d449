"""Packing leaks nothing, LoRA is what PEFT computes, and training is exact and repeatable."""

from __future__ import annotations

import hashlib
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.spec.train import TrainSpec
from pipeline.training import arguments, compute
from pipeline.training.examples.encode import IGNORED, EncodedRow, TrainingRow
from pipeline.training.examples.packing import PackedBatch
from pipeline.training.fit import FitResult, fit
from pipeline.training.losses.attention import NotPackableError, make_layout, packed_attention
from pipeline.training.losses.loss import PackedRows, pack_rows, packed_loss, row_by_row_loss
from pipeline.training.methods import lora
from pipeline.training.record import checkpoint
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.support import tiny_models

PACKABLE = ("llama", "qwen3", "gemma3", "mistral", "gpt2")
NOT_PACKABLE = ("gemma2", "mamba", "jamba", "qwen3_next")
SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=1e-2,
    epochs=3,
    batch_tokens=128,
    min_steps=1,
    checkpoint_steps=2,
    seed=5,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """Loads a tiny model of an architecture, once."""
    found: dict[str, LoadedModel] = {}

    def load(kind: str) -> LoadedModel:
        if kind not in found:
            root = tmp_path_factory.mktemp(kind)
            tiny_models.save(root, kind)
            found[kind] = load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)
        return found[kind]

    return load


def encoded(*lengths: int, seed: int = 0) -> list[EncodedRow]:
    """Rows of random tokens, about half of them trained."""
    rng = np.random.default_rng(seed)
    rows = []
    for uid, length in enumerate(lengths):
        ids = rng.integers(7, 512, length).astype(np.int32)
        labels = np.where(rng.random(length) < 0.5, ids, IGNORED).astype(np.int32)
        labels[0], labels[-1] = IGNORED, ids[-1]
        rows.append(EncodedRow(uid=uid, input_ids=ids, labels=labels))
    return rows


def conversations(count: int = 24) -> list[TrainingRow]:
    rng = random.Random(1)
    words = ["the", "film", "was", "good", "dull", "but", "warm", "as", "a", "card", "lazy", "dog"]
    return [
        TrainingRow(
            uid=1000 + uid,
            messages=(
                {"role": "user", "content": " ".join(rng.choices(words, k=rng.randint(3, 18)))},
                {"role": "assistant", "content": rng.choice(["positive", "negative"])},
            ),
            tools=None,
            capability="sentiment",
        )
        for uid in range(count)
    ]


def logits_of(model: nn.Module, rows: PackedRows, **kwargs: Any) -> torch.Tensor:
    return model(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        attention_mask=None,
        use_cache=False,
        **kwargs,
    ).logits[0]


def digest_of(result: FitResult) -> str:
    parts = [
        (result.adapter_dir / name).read_bytes()
        for name in ("adapter_model.safetensors", "adapter_config.json")
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


# ------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize("kind", PACKABLE)
def test_packed_logits_are_those_of_each_row_alone(
    base: Callable[[str], LoadedModel], kind: str
) -> None:
    model = base(kind).model
    rows = encoded(150, 90, 60, 33, 31, 30, 30, 5, 1)  # past the sliding window, and padded
    with torch.no_grad():
        alone = [logits_of(model, pack_rows([row])) for row in rows]
        with compute.packed(model):
            packed = pack_rows(rows)
            layout = make_layout(packed.lengths)
            together = logits_of(model, packed, packed_layout=layout).split(packed.lengths)
    assert layout.spread is not None  # some rows were padded
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", PACKABLE)
def test_a_packable_model_is_found_so(base: Callable[[str], LoadedModel], kind: str) -> None:
    assert compute.why_not_packed(base(kind)) is None


@pytest.mark.parametrize("kind", NOT_PACKABLE)
def test_a_model_that_would_leak_is_found_so(base: Callable[[str], LoadedModel], kind: str) -> None:
    assert compute.why_not_packed(base(kind)) is not None


@pytest.mark.parametrize("kind", PACKABLE)
def test_no_gradient_crosses_from_row_to_row(base: Callable[[str], LoadedModel], kind: str) -> None:
    loaded = base(kind)
    packed = pack_rows(encoded(40, 33, 31, 9))
    embeddings = loaded.model.get_input_embeddings()(packed.input_ids).detach()
    embeddings.requires_grad_()
    with compute.packed(loaded.model):
        output = loaded.model(
            inputs_embeds=embeddings,
            position_ids=packed.position_ids,
            attention_mask=None,
            use_cache=False,
            packed_layout=make_layout(packed.lengths),
        )
        parts = output.logits[0].split(packed.lengths)
        for row, part in enumerate(parts):
            (grad,) = torch.autograd.grad(part.logsumexp(-1).sum(), embeddings, retain_graph=True)
            for other, piece in enumerate(grad[0].split(packed.lengths)):
                assert (piece.abs().max() == 0) == (other != row)


def test_the_models_own_mask_would_contaminate(base: Callable[[str], LoadedModel]) -> None:
    """The test above can fail: rows laid end to end without a layout do see one another."""
    packed = pack_rows(encoded(20, 20))
    model = base("llama").model
    ones = torch.ones_like(packed.input_ids)
    with torch.no_grad():
        wrong = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=ones,
            use_cache=False,
        ).logits[0, 20:]
        right = logits_of(model, pack_rows(encoded(20, 20)[1:]))
    assert (wrong - right).abs().max() > 0.1


def test_without_a_layout_it_does_not_run(base: Callable[[str], LoadedModel]) -> None:
    model = base("llama").model
    with compute.packed(model), pytest.raises(NotPackableError, match="without the layout"):
        logits_of(model, pack_rows(encoded(5, 5)))
    part, layout = torch.zeros(1, 1, 2, 4), make_layout([2])
    with pytest.raises(NotPackableError, match="softcap"):
        packed_attention(nn.Identity(), part, part, part, None, softcap=1.0, packed_layout=layout)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "jamba"])
def test_the_loss_is_the_models_own(base: Callable[[str], LoadedModel], kind: str) -> None:
    loaded = base(kind)
    rows = encoded(40, 33, 9)
    expected = 0.0
    for row in rows:
        ids, labels = (torch.from_numpy(a).long()[None] for a in (row.input_ids, row.labels))
        with torch.no_grad():
            mean = loaded.model(input_ids=ids, labels=labels, use_cache=False).loss
        expected += float(mean) * row.trained_tokens
    with torch.no_grad():
        assert float(row_by_row_loss(loaded.model, pack_rows(rows))) == pytest.approx(
            expected, rel=1e-5
        )
        if kind in PACKABLE:
            with compute.packed(loaded.model):
                total = packed_loss(loaded.model, pack_rows(rows))
            assert float(total) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------------------- LoRA


def with_random_b(model: nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)


def gradients(model: nn.Module, rows: PackedRows) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    row_by_row_loss(model, rows).backward()
    return {n: p.grad.clone() for n, p in lora.trainable(model).items() if p.grad is not None}


def test_fused_lora_is_what_peft_computes(base: Callable[[str], LoadedModel]) -> None:
    from peft.tuners.lora import Linear

    loaded = base("llama")
    rows = pack_rows(encoded(30, 20))
    with lora.lora_modules(loaded, SPEC) as model:
        with_random_b(model)
        fused = gradients(model, rows)
        fused_logits = logits_of(model, rows).detach()
        layers = [m for m in model.modules() if type(m) is Linear]
        assert len(layers) == 3 * 7
        assert all("forward" in vars(layer) for layer in layers)
        for layer in layers:
            del layer.forward
        plain = gradients(model, rows)
        plain_logits = logits_of(model, rows).detach()
        torch.testing.assert_close(fused_logits, plain_logits, atol=1e-4, rtol=1e-4)
        assert fused.keys() == plain.keys()
        for name, grad in plain.items():
            assert (grad - fused[name]).abs().max() <= 1e-4 * grad.abs().max(), name
        # The comparison can fail: each layer's part is visible in it.
        for layer in layers:
            weight = layer.lora_B["default"].weight
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.zero_()
                assert (logits_of(model, rows) - plain_logits).abs().max() > 1e-2
                weight.copy_(kept)


@pytest.mark.filterwarnings("ignore:.lora_bias=True")
def test_a_layer_that_is_more_than_lora_keeps_pefts_forward(
    base: Callable[[str], LoadedModel],
) -> None:
    from peft import LoraConfig, get_peft_model

    for extra in ({"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}):
        model = tiny_models.model("llama")
        config = LoraConfig(r=4, target_modules=["q_proj"], **extra)
        assert lora.fuse_lora(get_peft_model(model, config)) == 0
    assert base("gpt2").model is not None
    with lora.lora_modules(base("gpt2"), SPEC) as model:
        assert not [m for m in model.modules() if "forward" in vars(m)]


def test_a_batch_split_in_any_way_gives_the_same_gradient(
    base: Callable[[str], LoadedModel],
) -> None:
    loaded = base("llama")
    rows = encoded(50, 44, 31, 30, 12, 7, 3)
    rng = random.Random(0)
    with compute.packed(loaded.model), lora.lora_modules(loaded, SPEC) as model:
        with_random_b(model)

        def gradient(parts: list[list[EncodedRow]]) -> torch.Tensor:
            model.zero_grad(set_to_none=True)
            trained = sum(row.trained_tokens for row in rows)
            for part in parts:
                (packed_loss(model, pack_rows(part)) / trained).backward()
            return torch.cat([p.grad.flatten() for p in lora.trainable(model).values()])  # type: ignore[union-attr]

        whole = gradient([rows])
        for _ in range(4):
            shuffled = rng.sample(rows, len(rows))
            cuts = sorted(rng.sample(range(1, len(rows)), rng.randint(1, 4)))
            parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
            split = gradient([sorted(part, key=lambda row: -row.tokens) for part in parts])
            assert (whole - split).abs().max() <= 1e-5 * whole.abs().max()


def test_accumulation_weighs_by_tokens(base: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    """One step over three unequal batches is the step over all their rows at once."""
    from pipeline.training import trainer
    from pipeline.training.losses import objective

    loaded = base("llama")
    rows = encoded(90, 40, 30, 8, 3)

    def step(parts: list[tuple[int, ...]], name: str) -> list[torch.Tensor]:
        spec = SPEC.model_copy(update={"accumulation": len(parts)})
        seen: list[Any] = []
        plan = [PackedBatch(rows=part, epoch=0) for part in parts]
        learnt = objective.Answers(rows, loaded.device)
        ways = objective.ForwardMode(packed=True, share=False)
        where = tmp_path / name
        run = arguments.TrainingRun(spec, learnt, plan, ways, where, name, seen.append, seen.append)
        with (
            compute.seeded(1),
            compute.packed(loaded.model),
            lora.lora_modules(loaded, spec) as model,
        ):
            with_random_b(model)
            trainer.train(model, run, None)
            assert len(seen) == 1
            assert seen[0].learning_rate == spec.learning_rate
            return [p.detach().clone() for p in lora.trainable(model).values()]

    whole = step([(0, 1, 2, 3, 4)], "whole")
    parts = step([(0,), (1, 4), (2, 3)], "parts")
    unequal = step([(0, 1, 2)], "other")
    assert any((one - other).abs().max() > 1e-3 for one, other in zip(whole, unequal, strict=True))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


# ----------------------------------------------------------------------------------------- fit


def test_fit_learns_repeats_itself_and_leaves_the_base_alone(
    base: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    loaded = base("llama")
    modules = {name: type(module) for name, module in loaded.model.named_modules()}
    weights = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    attention = loaded.model.config._attn_implementation
    draws = (random.getstate(), torch.get_rng_state())
    probe = pack_rows(encoded(20))
    with torch.no_grad():
        before = logits_of(loaded.model, probe)
    seen: list[int] = []

    first = fit(
        loaded, conversations(), SPEC, tmp_path / "a", on_step=lambda s: seen.append(s.step)
    )
    again = fit(loaded, conversations(), SPEC, tmp_path / "b")

    assert digest_of(first) == digest_of(again)
    assert [s.loss for s in first.losses] == [s.loss for s in again.losses]
    assert seen == [s.step for s in first.losses] == list(range(1, first.steps + 1))
    assert first.losses[-1].loss < 0.6 * first.losses[0].loss
    assert first.trained_tokens < first.tokens
    assert first.resumed_from is None
    assert first.packed
    assert {name: type(m) for name, m in loaded.model.named_modules()} == modules
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert not parameter.requires_grad
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == attention
    assert random.getstate() == draws[0]
    assert torch.equal(torch.get_rng_state(), draws[1])
    with torch.no_grad():
        assert torch.equal(logits_of(loaded.model, probe), before)
        loaded.use(first.adapter_dir)
        assert (logits_of(loaded.model, probe) - before).abs().max() > 1e-3
        loaded.use(None)
        assert torch.equal(logits_of(loaded.model, probe), before)


def test_golden_losses(base: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    """What seed 5 gave when this was written: a change of the arithmetic or the order shows."""
    result = fit(base("llama"), conversations(), SPEC, tmp_path)
    assert [s.tokens for s in result.losses] == GOLDEN_TOKENS
    assert [s.loss for s in result.losses] == pytest.approx(GOLDEN, rel=2e-3)


def test_the_adapter_folder_names_no_place(
    base: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    result = fit(base("llama"), conversations(8), SPEC, tmp_path)
    names = sorted(path.name for path in result.adapter_dir.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    text = (result.adapter_dir / "adapter_config.json").read_text("utf-8")
    config = json.loads(text)
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tmp_path) not in text


def test_calling_again_when_done_trains_nothing(
    base: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    loaded = base("llama")
    first = fit(loaded, conversations(8), SPEC, tmp_path)
    seen: list[Any] = []
    again = fit(loaded, conversations(8), SPEC, tmp_path, on_step=seen.append)
    assert seen == []
    assert (again.losses, digest_of(again)) == (first.losses, digest_of(first))
    other = fit(loaded, conversations(9), SPEC, tmp_path, on_step=seen.append)
    assert len(seen) == other.steps  # other rows are another run


def test_a_model_that_cannot_be_packed_trains_all_the_same(
    base: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    result = fit(base("jamba"), conversations(8), SPEC, tmp_path)
    assert not result.packed
    assert result.note is not None
    assert result.losses[-1].loss < result.losses[0].loss


def test_bf16_weights_with_fp32_masters(base: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    loaded = base("llama")
    weights = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    spec = SPEC.model_copy(update={"dtype": "bf16"})
    low = fit(loaded, conversations(), spec, tmp_path / "low")
    full = fit(loaded, conversations(), SPEC, tmp_path / "full")
    assert [s.loss for s in low.losses] == pytest.approx([s.loss for s in full.losses], rel=0.05)
    assert low.losses != full.losses
    tensors = load_file(low.adapter_dir / "adapter_model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, weights[name])


def test_a_loss_that_is_no_number_stops_and_names_the_rows(
    base: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    loaded = base("llama")
    spec = SPEC.model_copy(update={"batch_tokens": 64, "checkpoint_steps": 1, "epochs": 1})
    rows = conversations()
    order = fit(loaded, rows, spec, tmp_path / "fine")
    assert order.steps > 3
    poison = loaded.tokenizer.convert_tokens_to_ids("<|system|>")
    bad = TrainingRow(
        uid=77,
        messages=({"role": "system", "content": "now"}, *rows[0].messages),
        tools=None,
        capability="x",
    )
    embeddings = loaded.model.get_input_embeddings().weight
    kept = embeddings[poison].clone()
    try:
        with torch.no_grad():
            embeddings[poison] = torch.nan
        with pytest.raises(
            UserError, match=r"at step \d+, with rows .*77.*learning_rate"
        ) as raised:
            fit(loaded, [*rows, bad], spec, tmp_path / "bad")
    finally:
        with torch.no_grad():
            embeddings[poison] = kept
    step = int(str(raised.value).split("at step ")[1].split(",")[0])
    steps = sorted(path.name for path in (tmp_path / "bad/checkpoints").iterdir())
    assert steps[-1:] == ([f"step-{step - 1:08d}"] if step > 1 else [])
    assert not (tmp_path / "bad/adapter").exists()
    assert not [name for name, _ in loaded.model.named_modules() if "lora" in name]
    for path in (tmp_path / "bad/checkpoints").iterdir():
        found = checkpoint.read_checkpoint(path)
        assert found is not None


def test_a_disk_that_fills_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    layer = nn.Linear(64, 64)
    parameters = dict(layer.named_parameters())
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    training = checkpoint.TrainingState(parameters, optimizer, schedule)

    def step() -> None:
        layer(torch.ones(2, 64)).sum().backward()
        optimizer.step()
        schedule.step()

    step()
    checkpoint.save_checkpoint(tmp_path, 1, training, fingerprint="f", trainer="{}")
    saved = layer.weight.detach().clone()
    step()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match="the disk is full"):
            checkpoint.save_checkpoint(tmp_path, 2, training, fingerprint="f", trainer="{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    found = checkpoint.last_checkpoint(tmp_path, "f")
    assert found is not None
    checkpoint.load_weights(found, parameters)
    checkpoint.load_training(found, training)
    assert torch.equal(layer.weight, saved)
    assert schedule.last_epoch == 1
    files = sorted(path.suffix for path in found.path.iterdir())
    assert set(files) == {".safetensors", ".json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("q_prj",)}, "no linear layer 'q_prj'.*q_proj"),
        ({"targets": ("norm",)}, "no linear layer 'norm'"),
        ({"rank": 512}, "rank 512 is above"),
    ],
)
def test_targets_and_ranks_that_cannot_be(
    base: Callable[[str], LoadedModel], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(base("llama"), conversations(8), SPEC.model_copy(update=change), tmp_path)


def test_named_targets(base: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    spec = SPEC.model_copy(update={"targets": ("q_proj", "down_proj"), "epochs": 1})
    result = fit(base("llama"), conversations(8), spec, tmp_path)
    names = load_file(result.adapter_dir / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in names} == {"q_proj", "down_proj"}


GOLDEN_TOKENS = [120, 127, 128, 125, 123, 109, 92, 106, 102, 118, 96, 112, 73, 123, 99, 107, 109]
GOLDEN = [
    6.5175,
    5.974,
    5.8282,
    5.5241,
    5.2633,
    4.9544,
    4.6334,
    4.5531,
    4.3172,
    4.425,
    4.3,
    4.0336,
    3.8654,
    3.9368,
    3.7488,
    3.799,
    3.6916,
]
