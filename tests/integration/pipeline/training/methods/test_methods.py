"""Every method through the same trainer: it learns, repeats to the bit, resumes, and is put on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.spec.train import METHODS, Method, TrainSpec
from pipeline.training import compute
from pipeline.training.fit import FitResult, fit
from pipeline.training.losses.attention import make_layout
from pipeline.training.methods import methods
from pipeline.training.record.metrics import StepMetrics
from registry.errors import UserError
from registry.models.changed import read_changed
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.store.filenames import CHANGED_WEIGHTS
from tests.integration.pipeline.training.test_training import conversations
from tests.support import tiny_models

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
# The others in `./just soak`: each goes through the same code as one of these.
FEW = [
    pytest.param(one, marks=() if one in {"lora", "pissa", "full"} else (pytest.mark.soak,))
    for one in METHODS
]
_PROBE = torch.arange(7, 40)[None]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    tiny_models.save(root, "llama")
    return root


@pytest.fixture(scope="module")
def base(folder: Path) -> LoadedModel:
    return load_model("tiny", BaseSpec(model=str(folder), dtype="fp32"), folder)


def logits(loaded: LoadedModel, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(input_ids=_PROBE, use_cache=False, **kwargs).logits[0].float()


def files_of(result: FitResult) -> str:
    sha = hashlib.sha256()
    for path in sorted(result.adapter_dir.iterdir()):
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


def by(method: Method, **changes: Any) -> TrainSpec:
    return SPEC.by(method).model_copy(update=changes)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_is_put_on_and_the_base_is_left_as_it_was(
    base: LoadedModel, tmp_path: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[torch.Tensor] = []
    own = methods.TrainableModel.__init__

    def seen(
        self: methods.TrainableModel,
        model: torch.nn.Module,
        save: Callable[[Path], None],
        *more: Any,
    ) -> None:
        def saved(where: Path) -> None:
            model.eval()
            trained.append(logits(base, packed_layout=make_layout([_PROBE.shape[1]])))
            save(where)  # what was looked at is what is saved

        own(self, model, saved, *more)

    monkeypatch.setattr(methods.TrainableModel, "__init__", seen)
    before, plain = weights(base), logits(base)
    result = fit(base, conversations(), by(method), tmp_path / "run")
    assert result.losses[-1].loss < 0.8 * result.losses[0].loss
    after = weights(base)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in base.model.parameters())
    assert torch.equal(logits(base), plain)

    base.use(result.adapter_dir)
    put_on = logits(base)
    base.use(None)
    assert float((put_on - plain).abs().max()) > 1e-2
    assert float((put_on - trained[0]).abs().max()) < 2e-5
    assert torch.equal(logits(base), plain)


@pytest.mark.parametrize("method", FEW)
def test_stopped_anywhere_it_ends_with_the_same_bytes(
    base: LoadedModel, tmp_path: Path, method: Method
) -> None:
    unbroken = fit(base, conversations(), by(method), tmp_path / "whole")
    whole, steps = files_of(unbroken), len(unbroken.losses)

    class StoppedError(Exception):
        pass

    def stop(step: StepMetrics) -> None:
        if step.step == steps // 2 + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(base, conversations(), by(method), tmp_path / "cut", on_step=stop)
    again = fit(base, conversations(), by(method), tmp_path / "cut")
    assert again.resumed_from
    assert files_of(again) == whole


def test_freeze_changes_the_last_layers_alone(base: LoadedModel, tmp_path: Path) -> None:
    last = base.model.config.num_hidden_layers - 1
    made = fit(base, conversations(), by("freeze", layers=1), tmp_path / "run").adapter_dir
    names = read_changed(made)
    assert names
    assert all(name.startswith(f"model.layers.{last}.") for name in names)
    with pytest.raises(UserError, match="the last 99 are to be trained"):
        fit(base, conversations(), by("freeze", layers=99), tmp_path / "other")


def test_full_keeps_what_it_changed_alone(base: LoadedModel, tmp_path: Path) -> None:
    made = fit(base, conversations(), by("full"), tmp_path / "run").adapter_dir
    own = dict(base.model.named_parameters())
    changed = read_changed(made)
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= changed.keys()
    assert all(not torch.equal(own[name], tensor) for name, tensor in changed.items())
    assert (made / CHANGED_WEIGHTS).stat().st_size < 1.01 * sum(
        4 * t.numel() for t in changed.values()
    ) + 1e4


def test_a_share_of_changed_tensors(base: LoadedModel, tmp_path: Path) -> None:
    made = fit(base, conversations(), by("full"), tmp_path / "run").adapter_dir
    own = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    changed = read_changed(made)
    base.use(made, scale=0.5)
    for name, parameter in base.model.named_parameters():
        middle = own[name] + 0.5 * (changed[name] - own[name]) if name in changed else own[name]
        assert torch.allclose(parameter, middle, atol=1e-6)
    with base.base_alone():
        assert all(torch.equal(own[name], p) for name, p in base.model.named_parameters())
    assert not torch.equal(own["model.norm.weight"], base.model.get_parameter("model.norm.weight"))
    base.use(None)


def test_lora_plus_has_two_rates(base: LoadedModel) -> None:
    with compute.seeded(0), methods.trained_weights(base, by("lora+")) as trained:
        slow, fast = methods.rate_groups(trained.model, by("lora+"))
    assert (slow["lr"], fast["lr"]) == (1e-2, pytest.approx(16e-2))
    assert {p.shape[1] for p in fast["params"]} == {SPEC.rank}
    assert {p.shape[0] for p in slow["params"]} == {SPEC.rank}


@pytest.mark.parametrize("method", ["lora", pytest.param("dora", marks=pytest.mark.soak), "full"])
def test_with_recomputed_activations_the_outcome_is_the_same(
    base: LoadedModel, tmp_path: Path, method: Method
) -> None:
    plain = fit(base, conversations(), by(method), tmp_path / "plain")
    spec = by(method, activation_checkpointing=True)
    saved = fit(base, conversations(), spec, tmp_path / "saved")
    assert [s.loss for s in saved.losses] == pytest.approx([s.loss for s in plain.losses], rel=1e-5)
    assert not base.model.is_gradient_checkpointing


@pytest.mark.parametrize("method", FEW)
def test_in_half_precision(base: LoadedModel, tmp_path: Path, method: Method) -> None:
    result = fit(base, conversations(), by(method, dtype="bf16"), tmp_path / "run")
    assert result.losses[-1].loss < 0.8 * result.losses[0].loss
    assert next(base.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "quantize"),
    [
        ("lora", "nf4"),
        pytest.param("lora", "fp4", marks=pytest.mark.soak),
        ("lora", "int8"),
        ("dora", "nf4"),
        pytest.param("rslora", "int8", marks=pytest.mark.soak),
    ],
)
def test_on_a_quantised_base(folder: Path, tmp_path: Path, method: Method, quantize: Any) -> None:
    loaded = load_model(
        "tiny", BaseSpec(model=str(folder), dtype="fp32", quantize=quantize), folder
    )
    plain = logits(loaded)
    result = fit(loaded, conversations(), by(method), tmp_path / "run")
    assert result.losses[-1].loss < 0.8 * result.losses[0].loss
    assert torch.equal(logits(loaded), plain)


@pytest.mark.parametrize(
    ("method", "quantize"),
    [("pissa", "nf4"), ("freeze", "nf4"), ("full", "int8"), ("dora", "int8")],
)
def test_what_a_quantised_base_is_not_for(
    folder: Path, tmp_path: Path, method: Method, quantize: Any
) -> None:
    given = BaseSpec(model=str(folder), dtype="fp32", quantize=quantize)
    loaded = load_model("tiny", given, folder)
    with pytest.raises(UserError, match=r"quantised|int8 base") as raised:
        fit(loaded, conversations(), by(method), tmp_path / "run")
    assert "train.method" in str(raised.value)
