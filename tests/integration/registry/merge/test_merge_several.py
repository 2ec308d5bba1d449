"""Several adapters of one base, merged: each method against its formula in float64."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipeline.cli.verb import json_line
from pipeline.ingest import resolve
from pipeline.measure.merge_search import search
from pipeline.merge import merge
from pipeline.report.merge import merge_tables
from pipeline.workspace.stage import StageContext
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import GateRefusedError, UserError
from registry.merge.as_adapter import write_adapter
from registry.merge.changes import Changes
from registry.merge.proof import on_target, unlike_targets
from registry.merge.rules import dropped, elect, slerp, ties, weighted_sum
from registry.merge.several import _changes, _Plan, _plan, _SeveralMerge, merge_adapters
from registry.merge.spec import MergeSpec, Method, weights_of
from registry.merge.weights import LoadedBase, kept_as_loaded, merged_weights, save_merged
from registry.models.adapters import adapter_path, publish
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.models.parity import distance, logits_of, prompt_tokens
from tests.support import tiny_models

# PEFT warns of what it does wrong itself: tied weights, whole modules, adapters side by side.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ATTENTION = ["q_proj", "v_proj"]


@dataclass
class Case:
    """Adapters of one base, read."""

    base: Path
    adapters: list[Path]
    loaded: LoadedModel
    kept: LoadedBase
    changes: list[Changes]

    def plan(self, spec: MergeSpec) -> _Plan:
        return _plan(spec, weights_of(spec, len(self.changes)), self.changes, self.kept)

    def deltas(self, name: str) -> list[torch.Tensor]:
        """By formula, from the files: alpha / r (or its root) times B A."""
        return [by_formula(adapter, name) for adapter in self.adapters]


def by_formula(adapter: Path, name: str) -> torch.Tensor:
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    key = f"base_model.model.{name.removesuffix('.weight')}"
    if f"{key}.lora_A.weight" not in tensors:
        return torch.zeros(1, dtype=torch.float64)
    a, b = (tensors[f"{key}.lora_{side}.weight"].double() for side in "AB")
    root = config["r"] ** 0.5 if config["use_rslora"] else config["r"]
    return config["lora_alpha"] / root * (b @ a)


ADAPTERS: dict[str, list[dict[str, Any]]] = {
    "plain": [{}, {"r": 4}],
    "square": [{"target_modules": ["q_proj", "o_proj"]}] * 2,
    "unlike": [
        {"r": 4, "use_rslora": True, "lora_alpha": 6},
        {"r": 2, "target_modules": ATTENTION},
        {"r": 3, "lora_alpha": 3, "target_modules": ["q_proj", "up_proj"]},
    ],
    "dora": [{"use_dora": True}, {"target_modules": ATTENTION}],
    "gpt2": [{"target_modules": ["c_attn", "wte"]}, {"target_modules": ["c_attn", "c_fc"]}],
    "more": [
        {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
        {"target_modules": ATTENTION, "trainable_token_indices": [1, 7]},
    ],
    "tied": [
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
        {"target_modules": ATTENTION, "trainable_token_indices": [1, 7]},
    ],
}


def is_moved(key: str, name: str) -> bool:
    whole = "lora_" not in key and "base_layer" not in key
    return whole or (name == "gpt2" and "lora_embedding_A" in key)


@contextmanager
def opened(folder: Path, name: str, dtype: str = "fp32") -> Iterator[Case]:
    kind, tied = ("gpt2" if name == "gpt2" else "llama"), {"tie_word_embeddings": name == "tied"}
    base = tiny_models.save(folder / "base", kind, **(tied if kind == "llama" else {}))
    more = {"fan_in_fan_out": True} if kind == "gpt2" else {}
    adapters = []
    for place, settings in enumerate(ADAPTERS[name]):
        path = folder / f"adapter-{place}"
        tiny_models.save_adapter(path, base, seed=place + 1, **more, **settings)
        tensors = load_file(path / "adapter_model.safetensors")
        torch.manual_seed(place)
        moved = {  # what else is trained is zero or as the base has it: move it too
            key: tensor + 0.1 * torch.randn_like(tensor) * is_moved(key, name)
            for key, tensor in tensors.items()
        }
        save_file(moved, path / "adapter_model.safetensors", metadata={"format": "pt"})
        adapters.append(path)
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype=dtype), folder)
    with kept_as_loaded(loaded, adapters) as kept:
        yield Case(base, adapters, loaded, kept, [_changes(loaded, a, kept) for a in adapters])


def exact_logits(
    base: Path,
    tokens: list[list[int]],
    adapter: Path | None = None,
    deltas: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """In float64 throughout: with an adapter on by PEFT, or with these deltas added."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    own = dict(model.named_parameters())
    with torch.inference_mode():
        for name, delta in (deltas or {}).items():
            own[name] += delta
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).double().eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([row])).logits[0] for row in tokens])


def off(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).abs().max() / reference.abs().max())


@pytest.mark.parametrize("method", ["cat", "linear"])
def test_the_exact_methods_are_the_sum_of_deltas(tmp_path, method) -> None:
    """rsLoRA, unlike ranks and unlike modules: one model and one adapter, both as the formula."""
    weights = (0.7, -0.5, 1.2)
    with opened(tmp_path, "unlike") as case:
        plan = case.plan(MergeSpec(method=method, weights=weights))
        tokens = prompt_tokens(case.loaded)
        total = {
            name: sum(
                (w * d for w, d in zip(weights, case.deltas(name), strict=True)), torch.zeros(1)
            )
            for name in plan.targets.names
        }
        wanted = exact_logits(case.base, tokens, deltas=total)
        merged = merged_weights(plan.targets)
        save_merged(case.loaded, merged, tmp_path / "out")
        assert off(wanted, exact_logits(case.base, tokens)) > 0.2
        assert off(wanted, exact_logits(tmp_path / "out", tokens)) < 2e-6
        assert plan.lora.no_adapter is None
        write_adapter(
            plan.lora, case.loaded.model, case.adapters[0], tmp_path / "new", case.kept.base
        )
        assert off(wanted, exact_logits(case.base, tokens, tmp_path / "new")) < 2e-6
        assert plan.lora.rank == 9
        with on_target(case.loaded, plan.targets):
            reference = logits_of(case.loaded.model, tokens)
        assert distance(wanted.numpy(), reference) < 1e-5
        for lost in total:
            fewer = total | {lost: torch.zeros(1)}
            assert off(wanted, exact_logits(case.base, tokens, deltas=fewer)) > 1e-4
            dropped = {n: w for n, w in merged.items() if n != lost}
            assert unlike_targets(dropped, plan.targets) == [lost.removesuffix(".weight")]


def peft_s(case: Case, method: str, weights: list[float], **more: Any) -> dict[str, torch.Tensor]:
    """The delta of every module in PEFT's own weighted merge, in float64."""
    model: Any = AutoModelForCausalLM.from_pretrained(case.base, dtype=torch.float64)
    names = [f"a{place}" for place in range(len(case.adapters))]
    model = PeftModel.from_pretrained(model, str(case.adapters[0]), adapter_name=names[0])
    for name, adapter in zip(names[1:], case.adapters[1:], strict=True):
        model.load_adapter(str(adapter), adapter_name=name)
    model = model.double()
    model.add_weighted_adapter(names, weights, "new", combination_type=method, **more)
    return {
        f"{name.removeprefix('base_model.model.')}.weight": module.get_delta_weight("new").detach()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def test_where_peft_is_right_ours_is_peft_s(tmp_path) -> None:
    with opened(tmp_path, "plain") as case:
        weights = (0.7, 0.4)
        for method, more in (("cat", {}), ("svd", {"svd_rank": 5})):
            rank = more.get("svd_rank")
            plan = case.plan(MergeSpec(method=method, weights=weights, rank=rank))
            for name, delta in peft_s(case, method, list(weights), **more).items():
                ours = plan.targets[name] - case.kept.base[name].double()
                assert float((ours - delta).abs().max()) < 1e-6 * float(delta.abs().max())


def test_ties_is_peft_s_on_whole_deltas(tmp_path) -> None:
    """At full rank, as a cut to a rank is no part of TIES; PEFT's takes none above a side."""
    same = (0.7, 0.7)
    with opened(tmp_path, "square") as case:
        plan = case.plan(MergeSpec(method="ties", weights=same, density=0.3))
        for name, delta in peft_s(case, "ties_svd", list(same), density=0.3, svd_rank=48).items():
            ours = plan.targets[name] - case.kept.base[name].double()
            assert float((ours - delta).abs().max()) < 1e-6 * float(delta.abs().max())


def test_where_peft_is_wrong_ours_is_the_sum(tmp_path) -> None:
    """PEFT's linear adds B1 A2 and B2 A1."""
    with opened(tmp_path, "plain") as case:
        plan = case.plan(MergeSpec(method="linear", weights=(0.5, 0.5)))
        for name, delta in peft_s(case, "linear", [0.5, 0.5]).items():
            total = sum((0.5 * d for d in case.deltas(name)), torch.zeros(1))
            ours = plan.targets[name] - case.kept.base[name].double()
            assert float((ours - total).abs().max()) < 1e-12
            assert float((delta - total).abs().max()) > 0.1 * float(total.abs().max())


def test_a_cut_shows_what_it_loses(tmp_path) -> None:
    errors = []
    with opened(tmp_path, "unlike") as case:
        for rank in (1, 4, 9):
            plan = case.plan(MergeSpec(method="svd", rank=rank))
            lost = whole = 0.0
            for name in plan.targets.names:
                total = sum(case.deltas(name), torch.zeros(1))
                own = case.kept.base[name].double()
                lost += float((plan.targets[name] - own - total).square().sum())
                whole += float(total.square().sum())
            assert plan.lora.relative_error == pytest.approx((lost / whole) ** 0.5, abs=1e-9)
            errors.append(plan.lora.relative_error)
        assert errors[0] > errors[1] > 0.1
        assert errors[2] == 0
        assert case.plan(MergeSpec(method="svd")).lora.rank == 4  # the highest of the adapters'


METHODS: tuple[Method, ...] = ("cat", "linear", "svd", "ties", "dare_ties", "dare_linear", "slerp")


@pytest.mark.parametrize("name", ["dora", "more", "gpt2", "tied"])
def test_what_is_not_b_a_is_merged_as_whole_deltas(tmp_path, name) -> None:
    """W' - W of each adapter alone, held against PEFT, put together by the method."""
    with opened(tmp_path, name) as case:
        for method in METHODS:
            check_whole_deltas(case, name, method)


def by_rule(
    method: Method, own: torch.Tensor, ends: list[torch.Tensor], drawn_as: str
) -> torch.Tensor:
    weights, deltas = (0.6, 0.8), [end - own for end in ends]
    if method == "slerp":
        return slerp(*ends, share=0.8 / 1.4)  # type: ignore[misc, arg-type]
    if method == "ties":
        return own + ties(deltas, weights, 0.5)
    if method.startswith("dare"):
        thinned = dropped(deltas, 0.5, 0, drawn_as)
        assert any(
            int((d == 0).sum()) > int((e == 0).sum()) for d, e in zip(thinned, deltas, strict=True)
        )
        return own + (elect if method == "dare_ties" else weighted_sum)(thinned, weights)
    return own + weights[0] * deltas[0] + weights[1] * deltas[1]


def check_whole_deltas(case: Case, name: str, method: Method) -> None:
    spec = MergeSpec(method=method, weights=(0.6, 0.8))
    plan = case.plan(spec)
    merged = merged_weights(plan.targets)
    for changed in plan.targets.names:
        own = case.kept.base[changed].double()
        ends = [c[changed].apply(own) if changed in c else own for c in case.changes]
        if method != "svd":
            drawn_as = changed.replace(
                "lm_head", "model.embed_tokens" if name == "tied" else "lm_head"
            )
            assert torch.equal(merged[changed], by_rule(method, own, ends, drawn_as).float())
        assert merged[changed].isfinite().all()
        assert not torch.equal(merged[changed], case.kept.base[changed])
    assert bool(plan.targets.parted()) == (name == "gpt2")  # wte alone is changed there
    again = merged_weights(case.plan(spec).targets)
    assert all(torch.equal(again[n], w) for n, w in merged.items())  # drawn by the seed
    why = plan.lora.no_adapter
    if method not in ("cat", "linear", "svd"):
        assert why == f"what {method} leaves of a delta has no low rank"
    elif name == "dora":
        assert (why or "").endswith("no low rank") == (method != "svd")
    elif name == "gpt2":
        assert why is None
    else:
        assert "changed by more than B A" in (why or "")


@pytest.mark.parametrize(
    ("method", "name", "dtype"),
    [
        ("cat", "unlike", "bf16"),
        pytest.param("dare_ties", "tied", "fp32", marks=pytest.mark.soak),
        pytest.param("svd", "dora", "fp32", marks=pytest.mark.soak),
        pytest.param("linear", "gpt2", "fp32", marks=pytest.mark.soak),
        pytest.param("slerp", "more", "fp32", marks=pytest.mark.soak),
        pytest.param("ties", "gpt2", "bf16", marks=pytest.mark.soak),
        pytest.param("dare_linear", "dora", "bf16", marks=pytest.mark.soak),
    ],
)
def test_a_merge_of_several_is_proven_here_and_in_a_new_process(
    tmp_path, method, name, dtype
) -> None:
    with opened(tmp_path, name, dtype) as case:
        loaded, adapters = case.loaded, case.adapters
    before = logits_of(loaded.model, prompt_tokens(loaded))
    # Random adapters move the logits by their own size: at full weight bf16 is at its bound.
    spec = MergeSpec(method=method, weights=(0.5,) * len(adapters) if dtype == "bf16" else None)
    made = merge_adapters(loaded, adapters, spec, tmp_path / "out", tmp_path / "new")
    print(made)
    assert max(made.parity.merged, made.parity.reloaded) <= made.parity.bound
    assert made.parity.moved > 0.1
    assert made.weights == weights_of(spec, len(adapters))
    assert (made.density, made.seed) == ((0.5, 0) if "dare" in method else (made.density, None))
    if made.no_adapter is None:
        assert made.adapter is not None
        assert made.adapter <= made.parity.bound
        assert (tmp_path / "new" / "adapter_model.safetensors").is_file()
    else:
        assert made.adapter is made.rank is None
        assert not (tmp_path / "new").exists()
    assert np.array_equal(before, logits_of(loaded.model, prompt_tokens(loaded)))


def test_a_new_adapter_that_lost_a_module_is_refused_by_name(tmp_path) -> None:
    with opened(tmp_path, "plain") as case:
        spec = MergeSpec()
        work = _SeveralMerge(case.loaded, case.adapters, spec, tmp_path / "out", tmp_path / "new")
        plan = case.plan(spec)
        lost = "model.layers.1.mlp.up_proj"
        found = plan.lora.factors[f"{lost}.weight"]
        found.b.mul_(0.9)
        write_adapter(
            plan.lora, case.loaded.model, case.adapters[0], tmp_path / "new", case.kept.base
        )
        with on_target(case.loaded, plan.targets):
            reference = logits_of(case.loaded.model, prompt_tokens(case.loaded))
        with pytest.raises(GateRefusedError, match=f"new adapter on.*differs: {lost}$"):
            work._check_adapter(case.kept, plan.targets, reference)


@pytest.mark.soak
@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_several_adapters_of_a_quantised_base(tmp_path, quantize) -> None:
    base = tiny_models.save(
        tmp_path / "base", "llama", hidden_size=64, head_dim=16, intermediate_size=128
    )
    adapters = [tiny_models.save_adapter(tmp_path / f"a{seed}", base, seed=seed) for seed in (1, 2)]
    spec = BaseSpec(model=str(base), dtype="fp32", quantize=quantize)
    loaded = load_model("small", spec, tmp_path)
    made = merge_adapters(
        loaded, adapters, MergeSpec(method="linear"), tmp_path / "out", tmp_path / "new"
    )
    assert made.quantised is not None
    assert made.quantised.dequantised == made.parity.merged <= made.parity.bound
    assert made.quantised.dequantised < made.quantised.in_place
    assert loaded.model.is_quantized


def test_an_adapter_of_a_kind_that_isn_t_merged_is_refused_by_name(tmp_path) -> None:
    with opened(tmp_path, "plain") as case:
        path = case.adapters[1] / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"kasa_config": {"beta": 1}}))
        with pytest.raises(UserError, match="kasa_config"):
            merge_adapters(
                case.loaded, case.adapters, MergeSpec(), tmp_path / "out", tmp_path / "new"
            )


SPEC = """
bases: {tiny: {model: base}, other: {model: other}}
datasets:
  mood:
    path: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
    columns: {input: text, output: label}
capabilities:
  mood: {data: mood, answer: choice, goal: 0.95, prompts: {zero_shot: "Mood? {input}"}}
train: {base: tiny, pool: [mood]}
"""


def workspace(root: Path) -> tuple[OpenWorkspace, list[str]]:
    """A workspace with two adapters of one base and one of another, as training leaves them."""
    (root / "gapmend.yaml").write_text(SPEC)
    for count, split in ((20, "train"), (16, "dev"), (4, "test")):
        rows = [{"text": f"{split} {n} is {n * 7}", "label": "ab"[n % 2]} for n in range(count)]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_models.save(root / "base", "llama")
    tiny_models.save(root / "other", "llama", hidden_size=32)
    ws = OpenWorkspace.open(root)
    ids: list[str] = []
    for name, folder, seed in (("tiny", "base", 1), ("tiny", "base", 2), ("other", "other", 1)):
        made = tiny_models.save_adapter(root / f"made-{len(ids)}", root / folder, seed=seed)
        config = json.loads((made / "adapter_config.json").read_text())
        (made / "adapter_config.json").write_text(json.dumps(config | {"revision": None}))
        ref = publish(
            ws.store,
            made,
            base=ws.models.identity(name),
            tokenizer=tiny_models.tokenizer(),
            meta={},
            parents=[],
        )
        ws.catalog.commit([ref])
        ids.append(ref.id)
    return ws, ids


def test_the_stage_searches_weights_and_keeps_model_and_adapter_with_their_parents(
    tmp_path,
) -> None:
    ws, (one, two, foreign) = workspace(tmp_path)
    ui = Ui()
    with pytest.raises(UserError, match="of different bases"):
        merge(ws, ui, [one, foreign])
    with pytest.raises(UserError, match="named twice"):
        merge(ws, ui, [one, one])
    with pytest.raises(UserError, match="rank: 0 can't be"):
        merge(ws, ui, [one, two], method="svd", rank=0)
    made = merge(ws, ui, [one, two], method="linear", weights="search")
    tried = {tuple(score["weights"]): score["score"] for score in made.scores}
    assert set(tried) == {(0.5, 0.5), (0.3, 0.7), (0.7, 0.3)}
    assert tried[tuple(made.weights)] == max(tried.values())
    assert max(made.merged, made.reloaded) <= made.bound
    for kind, found, role in (
        ("model", made.model_id, "adapter"),
        ("adapter", made.adapter_id, "part"),
    ):
        manifest = ws.catalog.manifest(str(found))
        assert manifest.kind == kind
        parents = {p.id for p in manifest.parents if p.role == role}
        assert parents == {one, two}
    row = ws.catalog.query("SELECT adapter_id, max_difference, bound FROM merges").rows[0]
    assert row[0] == made.adapter_id
    assert row[1] <= row[2]
    screen = Console(width=200, file=io.StringIO(), record=True)
    for shown in merge_tables(made):
        screen.print(shown)
    text = screen.export_text()
    for said in (one[:8], str(made.adapter_id)[:12], "rank 8", "weights that were tried", "sum of"):
        assert said in text
    again = merge(ws, ui, [one, two], method="linear", weights="search")
    assert again.cached
    assert again.model_id == made.model_id
    assert json.loads(json_line(again))["weights"] == list(made.weights)
    # What was scored is not scored again: the candidates are known by their weights.
    loaded, paths = ws.models.get("tiny"), [adapter_path(ws.store, one) for one in (one, two)]
    before = len(ws.catalog.committed("eval"))
    ctx = StageContext("", tmp_path / "work", ui)
    spec, scores = search(
        resolve(ws, ui), ctx, loaded, paths, MergeSpec(method="linear", weights="search")
    )
    assert spec.weights == tuple(made.weights)
    assert scores == list(made.scores)
    assert len(ws.catalog.committed("eval")) == before == 3
