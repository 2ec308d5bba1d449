"""Validation, early stopping and what is kept; and batches in pieces where memory is short."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.spec.train import TrainSpec, ValidationSpec
from pipeline.training.fit import FitResult, RunWatch, fit
from pipeline.training.losses import batches, objective
from pipeline.training.losses.loss import packed_loss
from pipeline.training.record.metrics import StepMetrics
from registry.errors import UserError
from registry.models.load import BaseSpec, LoadedModel, load_model
from tests.integration.pipeline.training.methods.test_methods import files_of
from tests.integration.pipeline.training.test_training import conversations
from tests.support import tiny_models

SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=1e-2,
    epochs=4,
    batch_tokens=128,
    min_steps=1,
    checkpoint_steps=3,
    seed=5,
)
WATCHED = SPEC.model_copy(update={"validation": ValidationSpec(every=2, patience=2)})


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("base")
    tiny_models.save(root, "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


def weights_of(result: FitResult) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(result.adapter_dir / "adapter_model.safetensors")


# ----------------------------------------------------------------------------------- watching


def test_validation_is_the_mean_loss_of_rows_that_are_not_trained_on(
    base: LoadedModel, tmp_path: Path
) -> None:
    rows = conversations(32)
    result = fit(base, rows[:24], WATCHED, tmp_path / "run", watch=RunWatch(rows[24:]))
    checks = [step for step in result.losses if step.validation_loss is not None]
    assert [step.step for step in checks[:3]] == [2, 4, 6]
    kept = next(step for step in checks if step.step == result.kept_step)
    assert kept.validation_loss == min(step.validation_loss or 9 for step in checks)

    # The kept adapter on the held rows, one at a time, by transformers' own loss.
    from pipeline.training.examples.encode import encode_rows

    base.use(result.adapter_dir)
    total, count = 0.0, 0
    for row in encode_rows(base, rows[24:], allow_rejects=0).rows:
        ids = torch.from_numpy(row.input_ids).long()[None]
        labels = torch.from_numpy(row.labels).long()[None]
        with torch.no_grad():
            loss = base.model(input_ids=ids, labels=labels).loss
        total, count = total + float(loss) * row.trained_tokens, count + row.trained_tokens
    base.use(None)
    assert total / count == pytest.approx(kept.validation_loss, rel=1e-4)


def test_it_stops_early_and_keeps_the_best(base: LoadedModel, tmp_path: Path) -> None:
    probes = iter([0.25, 0.75, 0.5, 0.5, 1.0])
    asked: list[torch.nn.Module] = []

    def probe(model: torch.nn.Module) -> float:
        asked.append(model)
        assert not model.training
        return next(probes)

    watch = RunWatch(conversations(4), probe)
    result = fit(base, conversations(24), WATCHED, tmp_path / "run", watch=watch)
    assert len(asked) == 4
    assert result.kept_step == 4
    assert len(result.losses) == 8 < result.losses[0].steps
    # What is kept are the weights of step 4: a run whose patience ends there has the same.
    short = WATCHED.model_copy(update={"validation": ValidationSpec(every=4, patience=1)})
    falling = iter([0.5, 0.25])
    again = fit(base, conversations(24), short, tmp_path / "short",
                watch=RunWatch(conversations(4), lambda _: next(falling)))  # fmt: skip
    assert again.kept_step == 4
    assert weights_of(again).keys() == weights_of(result).keys()
    for name, tensor in weights_of(again).items():
        assert torch.equal(tensor, weights_of(result)[name])


@pytest.mark.parametrize("at", [3, 5, 7])
def test_a_watched_run_that_was_stopped_ends_the_same(
    base: LoadedModel, tmp_path: Path, at: int
) -> None:
    watch = RunWatch(conversations(30)[24:])
    whole = fit(base, conversations(24), WATCHED, tmp_path / "whole", watch=watch)

    def stop(step: StepMetrics) -> None:
        if step.step == at:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(base, conversations(24), WATCHED, tmp_path / "cut", watch=watch, on_step=stop)
    again = fit(base, conversations(24), WATCHED, tmp_path / "cut", watch=watch)
    assert files_of(again) == files_of(whole)
    assert again.kept_step == whole.kept_step
    pairs = zip(again.losses, whole.losses, strict=True)
    assert all(a.validation_loss == b.validation_loss for a, b in pairs)


# ------------------------------------------------------------------------------ out of memory


class Short:
    """A loss that runs out of memory on more rows than fit, after a part of its backward pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.rows = rows
        self.raised = 0
        self._own = packed_loss
        monkeypatch.setattr(objective, "packed_loss", self)

    def __call__(self, model: torch.nn.Module, rows: Any, kept: Any) -> torch.Tensor:
        loss = self._own(model, rows, kept)
        if len(rows.lengths) > self.rows:
            self.raised += 1
            loss.backward(retain_graph=True)  # leaves gradients behind, as a real one may
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] can't allocate memory")
        return loss


@pytest.mark.parametrize("accumulation", [1, 3])
def test_in_pieces_the_gradients_are_the_same(
    base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    spec = SPEC.model_copy(update={"accumulation": accumulation})
    whole = fit(base, conversations(), spec, tmp_path / "whole")
    short = Short(monkeypatch, rows=2)
    told: list[str] = []
    pieces = fit(base, conversations(), spec, tmp_path / "pieces", log=told.append)
    assert pieces.pieces in {2, 4}
    told = [line for line in told if not line.startswith("warning")]
    assert short.raised == len(told) == {2: 1, 4: 2}[pieces.pieces]  # once per size
    assert "in 2 pieces" in told[0]
    for one, other in zip(whole.losses, pieces.losses, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=2e-4)
        assert (one.tokens, one.trained_tokens) == (other.tokens, other.trained_tokens)
    expected = weights_of(whole)
    for name, tensor in weights_of(pieces).items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-3, rtol=1e-2)


def test_a_row_that_does_not_fit_alone_is_one_line(
    base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Short(monkeypatch, rows=0)
    with pytest.raises(
        UserError, match=r"memory is used up by a single row of .* tokens"
    ) as raised:
        fit(base, conversations(), SPEC, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not any(p.requires_grad for p in base.model.parameters())


_LIMITED = """
import resource, sys
from pathlib import Path
from pipeline.training.fit import fit
from pipeline.spec.train import TrainSpec
from registry.models.base import BaseSpec
from registry.models.load import load_model
from tests.integration.pipeline.training.test_training import conversations
import torch
torch.set_num_threads(1)
root, work = Path(sys.argv[1]), Path(sys.argv[2])
loaded = load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)
small = TrainSpec(base="tiny", rank=4, epochs=1, batch_tokens=64, min_steps=1)
fit(loaded, conversations(4), small, work / "first")  # all libraries are loaded
rows = conversations(4000)
large = {"batch_tokens": 60_000, "batch_rows": 10**6, "min_steps": 1}
spec = TrainSpec(base="tiny", rank=4, epochs=1, learning_rate=1e-3, **large)
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
limit = used + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
done = fit(loaded, rows, spec, work / "run", log=print)
print("pieces", done.pieces, "loss", done.losses[-1].loss)
"""


@pytest.mark.soak  # three quarters of a minute
def test_under_a_limit_of_the_system(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "base", "llama")
    found = []
    for name, room in (("free", 8 << 30), ("short", 300 << 20)):
        done = subprocess.run(
            [sys.executable, "-c", _LIMITED, tmp_path / "base", tmp_path / name, str(room)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(done.stdout.split())
    free, short = (dict(zip(words[-4::2], words[-3::2], strict=True)) for words in found)
    assert int(free["pieces"]) == 1
    assert int(short["pieces"]) >= 2
    assert float(short["loss"]) == pytest.approx(float(free["loss"]), rel=1e-3)


def test_other_errors_are_not_taken_for_it(
    base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("shapes don't match")

    monkeypatch.setattr(objective, "packed_loss", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(base, conversations(), SPEC, tmp_path / "run")
    assert not batches.is_out_of_memory(RuntimeError("shapes don't match"))
