"""Whole weights through the loop, and the same rows by several methods and settings."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import torch

from pipeline.forget import forget
from pipeline.gap import gap
from pipeline.measure.measure import TunedModel
from pipeline.mend import _publish_scaled, _State
from pipeline.merge import merge
from pipeline.promote import promote
from pipeline.select import select
from pipeline.verbs.adapter import diff, show
from pipeline.verbs.compare import by_methods, by_setting, compare
from pipeline.verbs.reproduce import reproduce
from pipeline.workspace.stage import StageContext
from pipeline.workspace.store import adapter_named
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import GateRefusedError, UserError
from registry.models.adapters import adapter_path
from registry.models.base import BaseSpec, identify
from registry.models.changed import read_changed
from registry.models.files import holds_changed
from registry.models.load import load_model
from registry.store.kinds import RunMeta
from tests.integration.pipeline.test_select_to_merge import make_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    return make_workspace(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def selection(ws: OpenWorkspace) -> str:
    return select(ws, Ui()).selection_id


@dataclass(frozen=True)
class Whole:
    """A workspace whose method is `full`, and what it trained."""

    ws: OpenWorkspace
    tuned: str


@pytest.fixture(scope="module")
def full(ws: OpenWorkspace, selection: str) -> Whole:
    (variant,) = by_methods(ws.spec, ["full"])
    (done,) = compare(ws, Ui(), selection, [variant]).variants
    return Whole(ws.with_spec(variant.spec), done.adapter_id)


def test_each_method_on_the_same_rows(ws: OpenWorkspace, selection: str) -> None:
    variants = by_methods(ws.spec, ["lora", "freeze", "full"])
    report = compare(ws, Ui(), selection, variants)
    lora, freeze, full = report.variants
    assert [one.method for one in report.variants] == ["lora", "freeze", "full"]
    assert len({one.adapter_id for one in report.variants}) == 3
    assert lora.trainable < freeze.trainable < full.trainable
    loaded = ws.models.get("tiny")
    assert full.trainable == sum(p.numel() for p in loaded.model.parameters())
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    assert all(one.memory > size for one in report.variants)
    assert lora.closed.keys() == {"mood"}
    assert not report.failed
    runs = [m.meta for m in ws.catalog.committed(RunMeta) if m.meta.stage == "train"]
    methods = [meta.config["method"] for meta in runs]
    assert {"lora", "freeze", "full"} <= set(methods)
    again = compare(ws, Ui(), selection, variants)
    assert again == report


def test_a_variant_that_cannot_be_trained_leaves_the_others(
    ws: OpenWorkspace, selection: str
) -> None:
    report = compare(ws, Ui(), selection, by_setting(ws.spec, "rank=2,1000"))
    assert [one.name for one in report.variants] == ["rank 2"]
    assert [one.name for one in report.failed] == ["rank 1000"]
    assert "above the size of every layer" in report.failed[0].why


def test_dtypes_make_bases_of_their_own(ws: OpenWorkspace, selection: str) -> None:
    report = compare(ws, Ui(), selection, by_setting(ws.spec, "dtype=fp32,int4"))
    whole, small = report.variants
    assert (whole.base, small.base) == ("tiny-fp32", "tiny-int4")
    made = [ws.catalog.manifest(one.adapter_id).identity["base"] for one in (whole, small)]
    assert made[0] != made[1]


def test_full_is_a_model_of_changed_tensors(full: Whole) -> None:
    ws, tuned = full.ws, full.tuned
    assert adapter_named(ws, tuned) == tuned
    manifest = ws.catalog.manifest(tuned)
    assert manifest.kind == "model"
    assert set(manifest.files) >= {"changed.safetensors", "changed.json", "tokenizer.json"}
    assert holds_changed(adapter_path(ws.store, tuned))
    assert [parent.role for parent in manifest.parents] == ["run", "selection"]
    listed = ws.catalog.query("SELECT adapter_id FROM adapters WHERE method = 'full'").rows
    assert (tuned,) in listed
    assert show(ws, tuned).config["method"] == "full"
    assert not diff(ws, tuned, tuned).weights
    assert identify("b", BaseSpec(model="base"), ws.root).digest == manifest.identity["base"]
    with pytest.raises(UserError, match="holds the tensors alone that training changed"):
        identify("merged", BaseSpec(model=f"merged:{tuned}"), ws.root)


def test_full_goes_through_the_gates_and_is_merged(full: Whole) -> None:
    ui = Ui()
    ws, tuned = full.ws, full.tuned
    report = forget(ws, ui, TunedModel(tuned))
    assert report.closed["mood"].verdict
    with contextlib.suppress(GateRefusedError):  # chance decides what a random base learns
        assert promote(ws, ui, tuned).adapter_id == tuned
    assert [run for run in ws.catalog.committed(RunMeta) if run.meta.stage == "promote"]
    made = merge(ws, ui, tuned)
    assert made.merged < made.bound
    assert made.reloaded < made.bound
    whole = load_model("m", BaseSpec(model=f"merged:{made.model_id}", dtype="fp32"), ws.root)
    changed = read_changed(adapter_path(ws.store, tuned))
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter.detach(), changed.get(name, parameter.detach()))
    assert len(changed) > 10


def test_full_is_scaled_by_mending(full: Whole, selection: str) -> None:
    ui = Ui()
    ws, tuned = full.ws, full.tuned
    state = _State(0, tuned, selection, gap(ws, ui), forget(ws, ui, TunedModel(tuned)), {})
    run = ws.catalog.committed("run")[-1].id
    with ws.store.draft() as draft:
        ref = _publish_scaled(ws, StageContext(run, draft, ui), state, 0.5)
        ids = torch.arange(7, 40)[None]
        loaded = ws.models.get("tiny")
        logits = []
        for path, scale in ((adapter_path(ws.store, tuned), 0.5), (ref.path, 1.0)):
            loaded.use(path, scale)
            with torch.no_grad():
                logits.append(loaded.model(input_ids=ids).logits)
        loaded.use(None)
    assert torch.allclose(logits[0], logits[1], atol=1e-6)


def test_full_is_trained_again_to_the_byte(full: Whole) -> None:
    report = reproduce(full.ws, Ui(), full.tuned)
    assert report.same
    assert not report.apart


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("rank", "'rank' is no sweep"),
        ("rank=a", "rank=a: "),
        ("rank=0", "rank=0: "),
        ("ranks=8", "'ranks' is not swept"),
        ("dtype=int3", "no dtype 'int3'"),
        ("base=other", "no base 'other'"),
        ("pool=a", "'pool' is not swept"),
    ],
)
def test_what_is_no_sweep(ws: OpenWorkspace, sweep: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        by_setting(ws.spec, sweep)
    assert message in str(raised.value)


def test_what_is_no_method(ws: OpenWorkspace) -> None:
    with pytest.raises(UserError, match=r"no method .lore..*dora"):
        by_methods(ws.spec, ["lore"])


def test_a_method_that_the_objective_is_not_for(ws: OpenWorkspace) -> None:
    train_spec = ws.spec.train.model_copy(update={"objective": "dpo"})
    spec = ws.spec.model_copy(update={"train": train_spec})
    with pytest.raises(UserError, match="full: dpo needs the base beside what is trained"):
        by_methods(spec, ["lora", "full"])


def test_a_sweep_of_bases(ws: OpenWorkspace) -> None:
    spec = ws.spec.model_copy(update={"bases": {**ws.spec.bases, "nano": BaseSpec(model="nano")}})
    names = [one.spec.train.base for one in by_setting(spec, "base=tiny,nano")]
    assert names == ["tiny", "nano"]
