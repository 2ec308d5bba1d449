"""Merging by mergekit's rules: the plumbing against mergekit's own command, formulas and seeds."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from pipeline.merge import merge
from pipeline.report.merge import merge_tables
from pipeline.workspace.ui import Ui
from registry.errors import GateRefusedError, UserError
from registry.merge.mergekit import _alone, merge_by_mergekit, mergekit_targets
from registry.merge.one import targets_of
from registry.merge.rules import ties, weighted_sum
from registry.merge.spec import MERGEKIT, MergeSpec, Method, checked, read_spec, weights_of
from registry.merge.weights import kept_as_loaded, merged_weights, save_merged
from registry.models.base import nano_folder
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.models.parity import distance, logits_of, prompt_tokens
from tests.integration.registry.merge.test_merge_several import by_formula, workspace
from tests.support import tiny_models

# PEFT warns of what it does wrong itself: tied weights, adapters side by side.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RULES: list[Method] = [name for name in get_args(Method) if name.startswith("mergekit:")]
ATTENTION = ["q_proj", "v_proj"]


def adapters_of(folder: Path, base: Path, count: int = 2) -> list[Path]:
    """Adapters that change the same modules, but for the last, which leaves some alone."""
    targets = [["q_proj", "up_proj"]] * (count - 1) + [ATTENTION]
    return [
        tiny_models.save_adapter(folder / f"a{seed}", base, seed=seed, target_modules=modules)
        for seed, modules in enumerate(targets, start=1)
    ]


def opened(folder: Path, count: int = 2, dtype: str = "fp32") -> tuple[LoadedModel, list[Path]]:
    base = tiny_models.save(folder / "base", "llama")
    spec = BaseSpec(model=str(base), dtype=dtype)
    return load_model("tiny", spec, folder), adapters_of(folder, base, count)


def all_targets(
    loaded: LoadedModel, adapters: list[Path], *specs: MergeSpec
) -> list[dict[str, torch.Tensor]]:
    with kept_as_loaded(loaded, adapters) as kept:
        parts = [_alone(loaded, adapter, kept) for adapter in adapters]
        state = torch.get_rng_state()
        made = [mergekit_targets(spec, parts, kept) for spec in specs]
        found = [{name: one[name] for name in one.names} for one in made]
        assert torch.equal(state, torch.get_rng_state())  # others draw as if nothing had been
        return found


def test_the_table_of_rules_is_mergekit_s_own() -> None:
    from mergekit.merge_methods import BasePolicy, get

    assert set(RULES) == set(MERGEKIT)
    for name, rule in MERGEKIT.items():
        spec = get(name.removeprefix("mergekit:")).spec
        taken = {parameter.name for parameter in spec.parameters}
        assert ("weight" in taken) == rule.weighted, name
        assert rule.density in (taken | {None}), name
        if name != "mergekit:task_arithmetic":  # has a density, and never looks at it
            assert rule.density or not taken & {"density", "select_topk"}, name
        assert rule.over_base == (spec.contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL))
        assert rule.pair == (spec.contract.max_non_base is not None)
        assert not [p.name for p in spec.parameters if p.required and p.name != "weight"]
        checked(read_spec({"method": name}), 2)


def test_every_rule_is_finite_moves_the_base_and_is_drawn_by_its_seed(tmp_path) -> None:
    loaded, adapters = opened(tmp_path)
    specs = [MergeSpec(method=method) for method in RULES]
    first = all_targets(loaded, adapters, *specs)
    torch.manual_seed(99)  # somebody else's draws have no say
    second = all_targets(loaded, adapters, *reversed(specs))[::-1]
    others = all_targets(loaded, adapters, *(s.model_copy(update={"seed": 1}) for s in specs))
    own = loaded.model.state_dict()
    for method, one, two, other in zip(RULES, first, second, others, strict=True):
        assert len(one) == 9, method  # q, up and v of three layers
        for name, target in one.items():
            assert target.dtype == torch.float64
            assert target.isfinite().all(), (method, name)
            assert torch.equal(target, two[name]), (method, name)
        assert any(not torch.equal(t, own[n].double()) for n, t in one.items()), method
        alike = all(torch.equal(target, other[name]) for name, target in one.items())
        assert alike != MERGEKIT[method].drawn, method


def test_task_arithmetic_is_our_own_sum_of_deltas_in_the_order_of_the_weights(tmp_path) -> None:
    loaded, adapters = opened(tmp_path)
    weights = (0.7, -0.4)
    spec = MergeSpec(method="mergekit:task_arithmetic", weights=weights)
    (made,) = all_targets(loaded, adapters, spec)
    own = loaded.model.state_dict()
    for name, target in made.items():
        deltas = [by_formula(a, name).expand(own[name].shape) for a in adapters]
        wanted = own[name].double() + weighted_sum(deltas, weights)
        assert float((target - wanted).abs().max()) < 1e-9, name


def test_our_ties_is_mergekit_s_where_all_weights_are_1() -> None:
    """Elsewhere theirs divides by the sum of the weights, so that halving all changes nothing."""
    from mergekit.merge_methods import merge_tensors

    draw = torch.Generator().manual_seed(0)
    base, *deltas = (torch.randn(40, 50, generator=draw, dtype=torch.float64) for _ in range(4))
    for weight, alike in ((1.0, True), (0.5, False)):
        given = {"weight": dict.fromkeys((1, 2, 3), weight), "density": 0.3}
        theirs = merge_tensors(
            [base, *(base + delta for delta in deltas)],
            "ties",
            parameters=given,
            base_index=0,
            name="w",
        )
        ours = base + ties(deltas, [weight] * 3, 0.3)
        assert bool(torch.allclose(ours, theirs, rtol=0, atol=1e-12)) is alike


@pytest.mark.parametrize("density", [0.02, 0.97, 1])
def test_della_takes_any_density(tmp_path, density) -> None:
    """By its own epsilon the odds would leave 0 to 1, which mergekit refuses."""
    loaded, adapters = opened(tmp_path)
    spec = MergeSpec(method="mergekit:della", density=density)
    (made,) = all_targets(loaded, adapters, spec)
    name = "model.layers.0.mlp.up_proj.weight"  # the second adapter leaves it alone
    kept = (made[name] != loaded.model.state_dict()[name].double()).double().mean()
    assert float(kept) == pytest.approx(density, abs=0.03)


def run_by_mergekit(spec: MergeSpec, base: Path, models: list[Path], out: Path) -> Path:
    """As `mergekit-yaml` does it: whole folders, in fp32."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    rule = MERGEKIT[spec.method]
    given = weights_of(spec, len(models)) or (None,) * len(models)
    shared = {rule.density: spec.kept} if rule.density else {}
    config = {
        "merge_method": spec.method.removeprefix("mergekit:"),
        "dtype": "float32",
        "parameters": shared,
        "models": [
            {"model": str(model), "parameters": {} if weight is None else {"weight": weight}}
            for model, weight in zip(models, given, strict=True)
        ],
        **({"base_model": str(base)} if rule.over_base else {}),
    }
    options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)
    return out


@pytest.mark.filterwarnings("ignore")  # mergekit's own
def test_what_is_saved_is_what_mergekit_s_command_makes_of_whole_models(tmp_path) -> None:
    """Its command reads merged fp32 folders, all of their weights; we give it tensors."""
    loaded, adapters = opened(tmp_path)
    models = [tmp_path / f"m{place}" for place, _ in enumerate(adapters)]
    with kept_as_loaded(loaded, adapters) as kept:
        for adapter, model in zip(adapters, models, strict=True):
            targets, _ = targets_of(loaded, adapter, kept)
            save_merged(loaded, merged_weights(targets), model)
    same: list[Method] = [m for m in RULES if not MERGEKIT[m].drawn]
    weights = {m: (0.6, 0.8) if MERGEKIT[m].weighted else None for m in same}
    specs = [MergeSpec(method=method, weights=weights[method]) for method in same]
    ours = all_targets(loaded, adapters, *specs)
    for spec, made in zip(specs, ours, strict=True):
        out = run_by_mergekit(spec, tmp_path / "base", models, tmp_path / spec.method[9:])
        theirs = load_file(out / "model.safetensors")
        for name, target in made.items():
            off = (theirs[name].double() - target).abs()
            # At the edge of what is kept the last digit decides: an entry may go either way.
            assert float((off < 1e-6).double().mean()) > 0.999, (spec.method, name, off.max())
        for name in set(theirs) - set(made):  # what no adapter changes
            own = loaded.model.state_dict()[name]
            assert torch.allclose(theirs[name], own, atol=1e-6), (spec.method, name)


@pytest.mark.parametrize(
    ("base", "dtype", "method"),
    [
        ("nano", "bf16", "mergekit:della"),
        pytest.param("tiny", "fp32", "mergekit:multislerp", marks=pytest.mark.soak),
    ],
)
def test_the_model_is_proven_here_and_in_a_new_process(
    tmp_path, base, dtype, method, capfd
) -> None:
    if base == "tiny":
        loaded, adapters = opened(tmp_path, count=3, dtype=dtype)
    else:
        loaded = load_model("nano", BaseSpec(model="nano", dtype=dtype), tmp_path)
        adapters = adapters_of(tmp_path, nano_folder())
    before = logits_of(loaded.model, prompt_tokens(loaded))
    capfd.readouterr()
    spec = MergeSpec(method=method, weights=(0.3,) * len(adapters))
    made = merge_by_mergekit(loaded, adapters, spec, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    print(made)
    assert made.parity.reference.startswith("the base with mergekit's own weights")
    assert max(made.parity.merged, made.parity.reloaded) <= made.parity.bound
    assert made.parity.moved > 2 * made.parity.bound
    assert made.parity.dtype == dtype
    assert distance(before, logits_of(loaded.model, prompt_tokens(loaded))) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"README.md", "mergekit_config.yml"}
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    saved = load_file(tmp_path / "out" / "model.safetensors")
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert {tensor.dtype for tensor in saved.values()} == {wanted}


@pytest.mark.parametrize("ensure", [pytest.param(True, marks=pytest.mark.soak), False])
def test_tied_embeddings_stay_tied_or_are_written_apart(tmp_path, ensure) -> None:
    base = tiny_models.save(tmp_path / "base", "llama", tie_word_embeddings=True)
    more = {"ensure_weight_tying": True} if ensure else {}
    adapters = [
        tiny_models.save_adapter(
            tmp_path / f"t{seed}",
            base,
            seed=seed,
            target_modules=["embed_tokens" if ensure else "lm_head", "q_proj"],
            **more,
        )
        for seed in (1, 2)
    ]
    loaded = load_model("tied", BaseSpec(model=str(base)), tmp_path)
    made = merge_by_mergekit(loaded, adapters, MergeSpec(method="mergekit:della"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert made.parity.untied is not ensure
    assert config["tie_word_embeddings"] is ensure
    saved = load_file(tmp_path / "out" / "model.safetensors")
    head = saved.get("lm_head.weight")
    assert (head is None) is ensure
    own = loaded.model.state_dict()["model.embed_tokens.weight"]
    assert torch.equal(saved["model.embed_tokens.weight"], own) is not ensure


@pytest.mark.soak
def test_a_quantised_base_is_dequantised(tmp_path) -> None:
    base = tiny_models.save(
        tmp_path / "base", "llama", hidden_size=64, head_dim=16, intermediate_size=128
    )
    spec = BaseSpec(model=str(base), dtype="fp32", quantize="nf4")
    loaded = load_model("small", spec, tmp_path)
    adapters = adapters_of(tmp_path, base)
    made = merge_by_mergekit(loaded, adapters, MergeSpec(method="mergekit:sce"), tmp_path / "out")
    assert made.parity.reference.endswith("dequantised")
    assert max(made.parity.merged, made.parity.reloaded) <= made.parity.bound
    assert loaded.model.is_quantized


def test_values_that_are_not_finite_are_refused_by_name(tmp_path) -> None:
    loaded, adapters = opened(tmp_path)
    spec = MergeSpec(method="mergekit:task_arithmetic", weights=(1e300, 1))  # not in fp32
    with pytest.raises(GateRefusedError, match=r"finite in model\.layers\.0\..* and 3 more$"):
        merge_by_mergekit(loaded, adapters, spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_do_not_fit_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"method: 'mergekit:nearswap' can't be.*mergekit:sce"):
        read_spec({"method": "mergekit:nearswap"})
    told: list[tuple[dict[str, object], int, str]] = [
        ({"method": "mergekit:sce", "weights": (1, 2)}, 2, "weighs by itself.*mergekit:della"),
        ({"method": "mergekit:della", "weights": "search"}, 2, "aren't searched"),
        ({"method": "mergekit:karcher", "density": 0.5}, 2, "has no density"),
        ({"method": "mergekit:nuslerp"}, 3, "not 3; expected two"),
        ({"method": "mergekit:multislerp", "weights": (1, -1)}, 2, "no negative weights"),
        ({"method": "mergekit:breadcrumbs", "weights": (1,)}, 2, "1 weights for 2 adapters"),
        ({"method": "mergekit:breadcrumbs", "rank": 2}, 2, "has no rank"),
    ]
    for given, adapters, said in told:
        with pytest.raises(UserError, match=said):
            checked(read_spec(given), adapters)


def test_the_stage_keeps_the_model_with_both_adapters_and_finds_it_again(
    tmp_path, monkeypatch
) -> None:
    ws, (one, two, _) = workspace(tmp_path)
    monkeypatch.setitem(sys.modules, "mergekit", None)
    with pytest.raises(UserError, match=r"isn't installed\. .*: pip install '\.\[mergekit\]'$"):
        merge(ws, Ui(), [one, two], method="mergekit:breadcrumbs")
    monkeypatch.undo()
    made = merge(ws, Ui(), [one, two], method="mergekit:della_linear", weights=(0.5, 0.3))
    assert made.adapter_id is None
    assert max(made.merged, made.reloaded) <= made.bound
    assert (made.method, made.density, made.seed) == ("mergekit:della_linear", 0.5, 0)
    for found in (made.model_id, made.merge_id):
        manifest = ws.catalog.manifest(found)
        parents = {p.id for p in manifest.parents if p.role == "adapter"}
        assert parents == {one, two}
        assert manifest.identity["mergekit"].startswith("0.")
        assert str(tmp_path) not in json.dumps(manifest.as_json())
    assert merge(ws, Ui(), [one, two], method="mergekit:della_linear", weights=(0.5, 0.3)).cached
    text = shown(made)
    for said in (f"{one[:8]} · 0.5", "mergekit's own weights", "none: mergekit's rules"):
        assert said in text
    # The same in another workspace: the same id.
    (tmp_path / "again").mkdir()
    elsewhere, ids = workspace(tmp_path / "again")
    assert ids[:2] == [one, two]
    torch.manual_seed(5)
    again = merge(elsewhere, Ui(), ids[:2], method="mergekit:della_linear", weights=(0.5, 0.3))
    assert not again.cached
    assert again.model_id == made.model_id


def shown(made: object) -> str:
    screen = Console(width=200, file=io.StringIO(), record=True)
    for table in merge_tables(made):  # type: ignore[arg-type]
        screen.print(table)
    return screen.export_text()
