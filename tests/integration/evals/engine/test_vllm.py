"""vLLM as the backend: what is asked of it, by a stand-in; and itself, where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from evals.engine.backend import backend_of, open_vllm
from evals.engine.journal import Journal
from evals.engine.limits import NotFiniteError, OverlongError
from evals.scoring.evaluate import evaluate
from evals.tasks.capability import CapabilitySpec, Item
from evals.tasks.prompts import arms_of
from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.models.load import BaseSpec, identify, load_model
from registry.store.objects import Store
from tests.support import stand_in_vllm, tiny_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lm_eval.api.instance import Instance

    from evals.engine.vllm import VllmLM

BOUND = 1e-4
SPEC = BaseSpec(model="base", dtype="bf16")
PAIRS = [
    *((context, end) for context in ("Is it?", "Question: card 12 ") for end in (" yes", "no")),
    ("", "hello there"),
    ("  \n", "yes"),
    ("<s>Question", " 1"),
    ("it is " * 40, " never, always and sometimes"),
]  # fmt: skip
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("Question: what is it", {"until": ["\n"], "max_gen_toks": 12}),  # says nothing of sampling
    ("Review: dull", {"until": [" the", "q"], "max_gen_toks": 8, "do_sample": False}),
    ("How much is 12", {"until": [], "max_gen_toks": 5, "num_beams": 1}),
]
WORKSPACE = """\
bases: {base: {model: base, dtype: bf16}}
datasets: {rows: {path: rows.csv, columns: {input: text, output: label}}}
capabilities: {intent: {data: rows, answer: choice, goal: 0.8}}
evals: {backend: vllm}
train: {base: base, pool: [rows], rank: 100}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_models.save(root / "base", "llama")
    tiny_models.save_adapter(root / "adapter", root / "base")
    return root


@pytest.fixture(name="_absent")
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without vLLM, also where there is one."""
    monkeypatch.setitem(sys.modules, "vllm", None)


@pytest.fixture(name="_stand_in")
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with the stand-in for vLLM."""
    (tmp_path / "site").mkdir()
    yield from stand_in_vllm.installed(monkeypatch, tmp_path / "site")


@pytest.fixture
def theirs(_stand_in: None, root: Path) -> Iterator[VllmLM]:
    engine = open_vllm("base", SPEC, root)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ours(root: Path) -> Any:
    from evals.engine.packed import PackedLM

    return PackedLM(load_model("base", BaseSpec(model="base", dtype="fp32"), root, threads=1))


def requests(kind: str, arguments: list[Any]) -> list[Instance]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, index) for index, args in enumerate(arguments)]


def scores(engine: Any) -> list[tuple[float, bool]]:
    return engine.loglikelihood(requests("loglikelihood", PAIRS))


def apart(some: list[tuple[float, bool]], others: list[tuple[float, bool]]) -> float:
    return max(abs(a[0] - b[0]) for a, b in zip(some, others, strict=True))


def workspace(folder: Path, root: Path, text: str = WORKSPACE) -> Path:
    folder.mkdir()
    (folder / "base").symlink_to(root / "base")
    rows = "".join(f"card number {n},{'yes' if n % 3 else 'no'}\n" for n in range(60))
    (folder / "rows.csv").write_text(f"text,label\n{rows}", "utf-8")
    (folder / "gapmend.yaml").write_text(text, "utf-8")
    return folder


# ------------------------------------------------------------- what needs neither


@pytest.mark.soak
@pytest.mark.usefixtures("_absent")
def test_where_it_is_not_installed_one_line_says_so(
    root: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    from pipeline.cli.main import main
    from pipeline.workspace.workspace import OpenWorkspace

    line = (
        "evals.backend: this needs the extra 'vllm', and vllm isn't installed. In the folder of "
        "gapmend's pyproject.toml: pip install '.[vllm]', or set evals.backend: gapmend"
    )
    folder = workspace(tmp_path / "ws", root)
    with pytest.raises(UserError) as caught:
        OpenWorkspace.open(folder).models.engine("base")
    assert (str(caught.value), caught.value.exit_code) == (line, 2)
    for verb, code in (("check", 2), ("gap", 2), ("ingest", 0), ("plan", 2)):
        monkeypatch.setattr(sys, "argv", ["gapmend", verb, "-C", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        assert (f"{line}\n" in capsys.readouterr().err) == (code == 2)


@pytest.mark.usefixtures("_absent")
def test_the_default_needs_no_vllm_and_is_in_no_key(root: Path, tmp_path) -> None:
    from pipeline.gap import dev_inputs
    from pipeline.ingest import resolve
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    text = WORKSPACE.replace("evals: {backend: vllm}\n", "")
    ws = OpenWorkspace.open(workspace(tmp_path / "ws", root, text))
    assert ws.spec.evals.backend == "gapmend"
    assert ws.models.backend("base") is None
    inputs, _ = dev_inputs(resolve(ws, Ui(as_json=True)), "base")
    assert set(inputs) == {"base", "subjects"}


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"quantize": "nf4"},
            (
                "bases.base.quantize: vLLM doesn't compute nf4 as training does: it would be "
                "another model. Leave quantize out, or set evals.backend: gapmend"
            ),
        ),
        (
            {"dtype": "fp32"},
            (
                "bases.base.dtype: vLLM takes adapters in 16 bits only, and this base is computed "
                "in fp32; expected bf16 or fp16. Set it, or evals.backend: gapmend"
            ),
        ),
    ],
)
def test_a_base_that_would_be_another_model_is_refused(
    root: Path, changes: dict[str, Any], line: str
) -> None:
    spec = SPEC.model_copy(update=changes)
    identity = identify("base", spec, root)
    with pytest.raises(UserError) as caught:
        backend_of("vllm", spec, identity)
    assert str(caught.value) == line
    assert backend_of("gapmend", spec, identity) is None


# ---------------------------------------------------------------- by the stand-in


def test_what_it_is_started_with(theirs: VllmLM, root: Path) -> None:
    (started,) = stand_in_vllm.STARTED
    assert started.arguments == {
        "model": str((root / "base").resolve()),
        "tokenizer": None,
        "tokenizer_mode": "auto",
        "tokenizer_revision": None,
        "trust_remote_code": False,
        "tensor_parallel_size": 1,
        "dtype": "bfloat16",
        "quantization": None,
        "revision": None,
        "seed": 0,
        "gpu_memory_utilization": 0.5,
        "max_model_len": theirs.max_length,
        "max_num_seqs": None,
        "enable_prefix_caching": False,
        "enable_lora": True,
        "max_lora_rank": 64,
        "load_format": "safetensors",
    }


def test_its_figures_are_those_of_our_engine(theirs: VllmLM, ours: Any, root: Path) -> None:
    for adapter, scale in ((None, 1.0), (root / "adapter", 1.0), (root / "adapter", 0.5)):
        theirs.use(adapter, scale)
        ours.use(adapter, scale)
        assert apart(scores(theirs), scores(ours)) < BOUND
        assert [greedy for _, greedy in scores(theirs)] == [greedy for _, greedy in scores(ours)]
        texts: list[tuple[str]] = [("it is " * 30,), ("x",)]
        rolled = [
            one.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
            for one in (theirs, ours)
        ]
        assert rolled[0] == pytest.approx(rolled[1], abs=BOUND)
        written = [one.generate_until(requests("generate_until", ASKED)) for one in (theirs, ours)]
        assert written[0] == written[1]
    ours.use(None)


def test_a_text_longer_than_the_context_is_read_in_windows(theirs: VllmLM) -> None:
    long = [("it is the card " * 300,), ("no",)]
    found = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", long))
    asked = [len(prompt) for prompt, _ in stand_in_vllm.STARTED[-1].asked]
    assert len(asked) > 3
    assert max(asked) == theirs.max_length - 1
    assert found[0] < found[1] < 0


def test_adapters_come_and_go_under_numbers_of_their_own(
    theirs: VllmLM, root: Path, tmp_path: Path
) -> None:
    other = tiny_models.save_adapter(tmp_path / "other", root / "base", seed=5)
    plain = scores(theirs)
    seen: dict[tuple[Path, float], Any] = {}
    for adapter, scale in [(root / "adapter", 1.0), (other, 1.0), (root / "adapter", 0.5)] * 2:
        theirs.use(adapter, scale)
        found = scores(theirs)
        assert seen.setdefault((adapter, scale), (theirs.lora_request, found)) == (
            theirs.lora_request,
            found,
        )
        assert apart(found, plain) > 0.1
    assert sorted(request.lora_int_id for request, _ in seen.values()) == [1, 2, 3]
    scaled = Path(seen[root / "adapter", 0.5][0].lora_path)
    theirs.use(None)
    assert scores(theirs) == plain
    theirs.close()
    assert not scaled.exists()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("use_dora", True, "DoRA"),
        ("modules_to_save", ["lm_head"], "whole modules (modules_to_save)"),
        ("rank_pattern", {"q_proj": 2}, "rank_pattern"),
        ("alpha_pattern", {"q_proj": 2}, "alpha_pattern"),
        ("bias", "all", "bias: all"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights"),
        ("peft_type", "LOHA", "LOHA"),
        ("r", 65, "rank 65, more than the 64"),
    ],
)
def test_an_adapter_that_it_would_not_compute_is_refused_by_name(
    theirs: VllmLM, root: Path, tmp_path: Path, key: str, value: Any, named: str
) -> None:
    config = json.loads((root / "adapter/adapter_config.json").read_text("utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: value}), "utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    theirs.use(root / "adapter")
    before = theirs.lora_request
    with pytest.raises(UserError) as caught:
        theirs.use(tmp_path)
    assert named in str(caught.value)
    assert theirs.lora_request is before


@pytest.mark.usefixtures("_stand_in")
def test_a_rank_that_it_takes_none_of_is_refused(root: Path) -> None:
    assert open_vllm("base", SPEC, root, rank=100)._max_rank == 128
    with pytest.raises(UserError, match=r"train\.rank: vLLM takes no adapter of rank 1024"):
        open_vllm("base", SPEC, root, rank=1024)


def test_overlong_requests_are_named_and_nothing_is_cut(theirs: VllmLM) -> None:
    engine = stand_in_vllm.STARTED[-1]
    most = theirs.max_length
    tokens = [5 + n % 400 for n in range(most)]
    fits = (("", ""), tokens[: most - 4], tokens[:3])  # and one that vLLM always writes
    theirs._loglikelihood_tokens([fits])
    assert [len(prompt) for prompt, _ in engine.asked] == [most - 1]
    with pytest.raises(OverlongError) as caught:
        theirs._loglikelihood_tokens([fits, (("", ""), tokens[: most - 3], tokens[:3]), fits])
    assert [(one.index, one.tokens) for one in caught.value.requests] == [(1, most + 1)]
    assert caught.value.context == most
    long, short = ("it " * 600, " no"), ("it", " no")
    with pytest.raises(OverlongError) as caught:
        theirs.loglikelihood(requests("loglikelihood", [short, long]))
    assert [one.index for one in caught.value.requests] == [1]
    answer = {"until": [], "max_gen_toks": 300}
    asked = [("it", answer), ("it " * 300, answer)]
    with pytest.raises(OverlongError) as caught:
        theirs.generate_until(requests("generate_until", asked))
    assert [one.index for one in caught.value.requests] == [1]
    assert len(engine.asked) == 1


def test_what_our_engine_refuses_it_refuses(theirs: VllmLM, monkeypatch) -> None:
    with pytest.raises(UserError, match="greedily"):
        theirs.generate_until(requests("generate_until", [("a", {"do_sample": True})]))
    with pytest.raises(UserError, match="request 1 has an empty continuation"):
        theirs.loglikelihood(requests("loglikelihood", [("a", "b"), ("a", "")]))
    assert stand_in_vllm.STARTED[-1].asked == []
    monkeypatch.setattr(type(theirs), "_parse_logprobs", lambda *_a, **_k: (float("nan"), False))
    with pytest.raises(NotFiniteError) as caught:
        theirs.loglikelihood_rolling(
            requests("loglikelihood_rolling", [("",), ("it is the card " * 300,)])
        )
    assert caught.value.request == 1


def test_a_killed_evaluation_goes_on(theirs: VllmLM, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("evals.engine.vllm.CHUNK", 3)
    monkeypatch.setattr("evals.engine.answering.REPORT_S", 0)
    engine = stand_in_vllm.STARTED[-1]
    whole = scores(theirs)
    written = theirs.generate_until(requests("generate_until", ASKED))
    engine.asked.clear()
    seen: list[tuple[int, int]] = []

    def killed(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 6:
            raise KeyboardInterrupt

    theirs.journal, theirs.progress = Journal(tmp_path / "j.jsonl"), killed
    with pytest.raises(KeyboardInterrupt):
        scores(theirs)
    theirs.journal = Journal(tmp_path / "j.jsonl")
    assert theirs.journal.known == 6
    theirs.progress = lambda done, total: seen.append((done, total))
    assert scores(theirs) == whole
    assert len(engine.asked) == len(PAIRS)
    assert seen == [(done, 8) for done in (*range(7), *range(6, 9))]
    for _ in range(2):
        assert theirs.generate_until(requests("generate_until", ASKED)) == written
        theirs.journal = Journal(tmp_path / "j.jsonl")
    assert len(engine.asked) == len(PAIRS) + len(ASKED)


def test_no_score_of_one_backend_is_taken_for_the_others(
    theirs: VllmLM, ours: Any, root: Path, tmp_path: Path
) -> None:
    store, catalog = Store(tmp_path / ".gapmend"), Catalog(tmp_path / ".gapmend")
    spec = CapabilitySpec(data="d", answer="choice", goal=0.5, labels=("yes", "no"))
    items = [
        Item(uid, f"{uid:064x}", {"input": f"card {uid}", "output": "yes"}, "yes", uid)
        for uid in range(6)
    ]
    base = identify("base", SPEC, root)

    def asked(engine: Any, backend: str | None) -> Any:
        return evaluate(
            store, catalog, engine, subject="intent", spec=spec, arm=arms_of(spec.prompts)[0],
            shots=(), items=items, split="dev", base=base, backend=backend,
        )  # fmt: skip

    name = backend_of("vllm", SPEC, base)
    assert name == f"vllm {stand_in_vllm.VERSION}"
    first, second, third = asked(ours, None), asked(theirs, name), asked(theirs, "vllm 0.1")
    assert len({first.id, second.id, third.id}) == 3
    assert [one.cached for one in (first, second, third)] == [False] * 3
    assert asked(ours, None).id == first.id
    assert asked(theirs, name).cached
    for a, b in zip(first.samples, second.samples, strict=True):
        assert (a.answer, a.prompt, a.prompt_tokens) == (b.answer, b.prompt, b.prompt_tokens)
    identities = [store.manifest(ref)["identity"] for ref in map(store.get, *zip(
        ("eval", first.id), ("eval", second.id), strict=True))]  # fmt: skip
    assert "backend" not in identities[0]
    assert identities[1] == {**identities[0], "backend": name}


@pytest.mark.usefixtures("_stand_in")
def test_one_of_the_two_is_in_memory_at_a_time(root: Path, tmp_path: Path) -> None:
    from pipeline.gap import dev_inputs
    from pipeline.ingest import resolve
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    models = (ws := OpenWorkspace.open(workspace(tmp_path / "ws", root))).models
    engine = models.engine("base")
    assert models.engine("base") is engine
    (started,) = stand_in_vllm.STARTED
    assert started.arguments["max_lora_rank"] == 128
    assert models.chat("base") is engine.chat
    assert started.shutdowns == 0
    models.get("base")
    assert started.shutdowns == 1
    assert models._engines == {}
    models.engine("base")
    assert models._loaded == {}
    assert len(stand_in_vllm.STARTED) == 2
    inputs, _ = dev_inputs(resolve(ws, Ui(as_json=True)), "base")
    assert inputs["backend"] == f"vllm {stand_in_vllm.VERSION}"


@pytest.mark.usefixtures("_stand_in")
def test_a_gap_is_measured_anew_with_the_other_backend(root: Path, tmp_path: Path) -> None:
    from pipeline.gap import gap
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    folder, ui = workspace(tmp_path / "ws", root), Ui(as_json=True)
    text = (folder / "gapmend.yaml").read_text("utf-8")
    found = []
    for backend in ("vllm", "vllm", "gapmend", "vllm"):
        (folder / "gapmend.yaml").write_text(text.replace("backend: vllm", f"backend: {backend}"))
        ws = OpenWorkspace.open(folder)
        found.append(gap(ws, ui))
        for engine in ws.models._engines.values():
            engine.close()
    assert [one.cached for one in found] == [False, True, False, True]
    assert len(ws.catalog.committed("eval")) == 2
    assert len(stand_in_vllm.STARTED) == 1


# ------------------------------------------------- itself: a contract, where it is


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that vLLM's kernels take (heads of 64), on a machine that has it and a GPU."""
    pytest.importorskip("vllm", reason="vLLM is not installed: its contract isn't tested here")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU: vLLM's contract isn't tested here")
    root = tmp_path_factory.mktemp("contract")
    size: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    tiny_models.save(root / "base", "llama", **size)
    tiny_models.save_adapter(root / "adapter", root / "base")
    return root


@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # vLLM's and its libraries' own
def test_the_contract_with_vllm(contract: Path) -> None:
    from evals.engine.packed import PackedLM

    settings = ((None, 1.0), (contract / "adapter", 1.0), (contract / "adapter", 0.5), (None, 1.0))

    def measured(engine: Any) -> list[list[tuple[float, bool]]]:
        found = []
        for adapter, scale in settings:
            engine.use(adapter, scale)
            found.append(scores(engine))
        return found

    exact, rounded = (
        measured(PackedLM(load_model("base", BaseSpec(model="base", dtype=dtype), contract)))
        for dtype in ("fp32", "bf16")
    )
    reference = PackedLM(load_model("base", SPEC, contract))
    wanted = reference.generate_until(requests("generate_until", ASKED * 10))
    engine = open_vllm("base", SPEC, contract)
    inner = engine.model.llm_engine
    caching = getattr(inner, "vllm_config", inner).cache_config.enable_prefix_caching
    assert caching is False
    found = measured(engine)
    for ours, theirs, true in zip(rounded, found, exact, strict=True):
        # The rounding of bf16, as our own engine shows it on this very model, and some room.
        assert apart(theirs, true) < 4 * apart(ours, true) + 0.05
    assert apart(found[0], found[1]) > 1  # the adapter's own effect is far above the bound
    assert apart(found[0], found[3]) < 0.05  # and gone again
    engine.use(None)
    written = engine.generate_until(requests("generate_until", ASKED * 10))
    same = sum(a == b for a, b in zip(written, wanted, strict=True))
    assert same >= 0.8 * len(wanted)  # two best tokens may be as good as each other in bf16
    with pytest.raises(OverlongError) as caught:
        engine.loglikelihood(requests("loglikelihood", [("it", " no"), ("it " * 600, " no")]))
    assert [one.index for one in caught.value.requests] == [1]
    engine.close()
    free, total = torch.cuda.mem_get_info()
    assert free > 0.6 * total  # vLLM's half is given back
