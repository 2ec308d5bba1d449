"""Used elsewhere: USE.md's own code answers as the engine does, and what fewer bits cost is known.

On nano, with an adapter and its merge.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lm_eval.api.instance import Instance

from evals.engine.packed import PackedLM
from pipeline.forget import forget, tuned
from pipeline.merge import merge
from pipeline.pages.account import account
from pipeline.pages.charts import pictures
from pipeline.pages.parts import parts
from pipeline.verbs.elsewhere.usage import usage_of
from pipeline.verbs.export import export
from pipeline.verbs.pull import take
from pipeline.verbs.push import push
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.chat.form import answer_form
from registry.errors import MachineError
from registry.gguf.quantise import QUANT_BOUNDS, QUANTS, prove_quantised, quantise
from registry.models.adapters import adapter_path
from registry.models.base import BaseSpec
from registry.models.load import load_model, nano_folder
from registry.publish.use.page import use_section
from registry.publish.use.usage import Place
from tests.support.tiny_models import save_adapter

if TYPE_CHECKING:
    from registry.models.load import LoadedModel
    from registry.publish.use.usage import Usage

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"
GUARD = """guards:
  colours: {data: colours, answer: exact, max_new_tokens: 8, max_drop: 0.05}
"""
DATA = """datasets:
  colours:
    path: {train: data/colours-train.jsonl, dev: data/colours-dev.jsonl}
    columns: {input: input, output: output}
    license: CC0-1.0
"""
with_llama_cpp = pytest.mark.skipif(
    find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed (the extra quants)"
)
RUN = """
import contextlib, io, json, os, pathlib, sys
said = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    code = pathlib.Path("USE.md").read_text("utf-8").split("```python\\n")[1].split("\\n```")[0]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "USE.md", "exec"), {})
    said.append(out.getvalue().strip())
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Made:
    ws: OpenWorkspace
    adapter: str
    model: str


@pytest.fixture(scope="module")
def ui() -> Ui:
    return Ui(as_json=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ui: Ui) -> Made:
    """A workspace with an adapter from elsewhere, measured on dev, and its merge."""
    root = tmp_path_factory.mktemp("used") / "workspace"
    shutil.copytree(STARTER, root)
    rng = random.Random(0)
    colours, things = ("red", "black", "blue", "green"), ("pan", "ladder", "box", "cup")
    for split in ("train", "dev"):
        rows = []
        for number in range(12):
            thing, colour, name = rng.choice(things), rng.choice(colours), f"Tri{number}{split}"
            text = f"The {thing} of {name} is {colour}. What colour is the {thing} of {name}?"
            rows.append(json.dumps({"input": text, "output": colour}) + "\n")
        (root / "data" / f"colours-{split}.jsonl").write_text("".join(rows), "utf-8")
    spec = root / "gapmend.yaml"
    text = spec.read_text("utf-8").replace("answer: choice  ", "answer: choice\n    limit: 12  ")
    text = text.replace("datasets:\n", DATA).replace("guards: {}", GUARD + "# ")
    spec.write_text(text.replace("      few_shot: [5]\n", ""), "utf-8")
    ws = OpenWorkspace.open(root)
    save_adapter(root.parent / "theirs", nano_folder())
    (root.parent / "theirs" / "README.md").write_text("---\nlicense: mit\n---\n")
    adapter = take(ws, ui, str(root.parent / "theirs")).object_id
    forget(ws, ui, tuned(ws, adapter))
    return Made(ws, adapter, merge(ws, ui, adapter).model_id)


def engines_answer(loaded: LoadedModel, adapter: Path | None, used: Usage) -> str:
    engine = PackedLM(loaded)
    engine.use(adapter)
    context = engine.chat.context(list(used.example.messages))
    wanted = {
        "until": [answer_form(engine.chat).end],
        "max_gen_toks": used.example.tokens,
        "do_sample": False,
    }
    (said,) = engine.generate_until([Instance("generate_until", {}, (context, wanted), 0)])
    return said.strip()


def used_of(made: Made, thing: str, place: Place | None = None) -> Usage:
    return usage_of(made.ws, made.ws.catalog.manifest(thing), place)


def test_the_code_in_use_md_answers_as_the_engine_does(made: Made, ui: Ui, tmp_path: Path) -> None:
    things = (made.adapter, made.model)
    folders = [tmp_path / "adapter", tmp_path / "model"]
    for thing, folder in zip(things, folders, strict=True):
        assert "USE.md" in export(made.ws, ui, thing, folder).files
        text = (folder / "USE.md").read_text("utf-8")
        assert not any(path in text for path in (str(made.ws.root), str(tmp_path), "/home/"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(STARTER.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: list[str] = json.loads(done.stdout.splitlines()[-1])
    merged = load_model("m", BaseSpec(model=f"merged:{made.model}"), made.ws.root)
    path = adapter_path(made.ws.store, made.adapter)
    nano = made.ws.models.get("nano")
    assert said[0] == engines_answer(nano, path, used_of(made, made.adapter))
    assert said[1] == engines_answer(merged, None, used_of(made, made.model))
    nano.use(None)
    assert said[0] != engines_answer(nano, None, used_of(made, made.adapter))


def test_use_md_says_how_it_was_measured(made: Made, ui: Ui, tmp_path: Path) -> None:
    used = used_of(made, made.adapter)
    assert {one.name: one.tokens for one in used.asked} == {"routing": 64, "colours": 8}
    assert used.asked[0].prompt == "Which team answers this?\n{input}"
    assert used.example.messages[-1]["content"] == "Which team answers this?\nYOUR INPUT"
    assert used.base.dtype == "float32"
    assert used.no_vllm is not None
    assert "16 bits only" in used.no_vllm
    card = push(made.ws, ui, made.adapter, repo="me/it", dry=True).card
    assert use_section(used_of(made, made.adapter, Place("me/it", made.adapter))) in card
    export(made.ws, ui, made.model, tmp_path / "out", form="gguf")
    text = (tmp_path / "out" / "USE.md").read_text("utf-8")
    assert "llama-server -m nano-" in text
    assert "ollama create nano-" in text


def test_an_adapter_from_elsewhere_has_a_report_too(made: Made) -> None:
    told = account(made.ws, made.adapter)
    assert (told.versions, told.trainings) == ((), ())
    assert told.merge is not None


def test_without_a_spec_less_is_known(made: Made) -> None:
    spec = made.ws.root / "gapmend.yaml"
    kept = spec.read_text("utf-8")
    spec.write_text("bases: [", "utf-8")
    try:
        from pipeline.workspace.store import WorkspaceStore

        ws = WorkspaceStore.open(made.ws.root)
        used = usage_of(ws, ws.catalog.manifest(made.adapter))
    finally:
        spec.write_text(kept, "utf-8")
    assert used.base.dtype is None
    known = used_of(made, made.adapter)
    assert used.example == known.example
    assert used.asked == known.asked


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed")
def test_without_the_extra_one_line_says_what_to_install(
    made: Made, ui: Ui, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match=r"the extra 'quants', and llama_cpp isn't installed"):
        export(made.ws, ui, made.model, tmp_path / "out", form="gguf", dtype="q4_k_m")
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------- llama.cpp


@with_llama_cpp
def test_a_quantised_file_is_scored_again_item_by_item(made: Made, ui: Ui, tmp_path: Path) -> None:
    first = export(made.ws, ui, made.model, tmp_path / "out", form="gguf", dtype="q4_0")
    assert first.dtype == "q4_0"
    assert first.quantised is not None
    assert first.quantised.error <= QUANT_BOUNDS["q4_0"]
    assert {one.guard: one.n for one in first.answers} == {"routing": 12, "colours": 12}
    manifest = made.ws.catalog.manifest(first.export_id)
    evals = [parent.id for parent in manifest.parents if parent.role == "eval"]
    assert len(evals) == 4
    samples = made.ws.catalog.query(
        "SELECT subject, base, adapter_id, row_uid, score FROM eval_samples WHERE eval_id IN ?",
        [tuple(evals)],
    ).rows
    for one in first.answers:
        before, after = (
            {uid: score for name, _, adapter, uid, score in samples
             if name == one.guard and (adapter is None) is in_file}
            for in_file in (False, True)
        )  # fmt: skip
        assert before.keys() == after.keys()
        assert one.lost == sum(after[uid] < before[uid] for uid in before)
        assert one.gained == sum(after[uid] > before[uid] for uid in before)
    again = export(made.ws, ui, made.model, tmp_path / "again", form="gguf", dtype="q4_0")
    assert again.export_id == first.export_id  # nothing was asked: the same evaluations
    told = account(made.ws, made.adapter)
    assert [one.dtype for one in told.quantised] == ["q4_0"]
    shown = {part.id: part for part in parts(told, pictures(told), ())}
    assert [row[0] for row in shown["quantised"].tables[0].rows] == ["routing", "colours"]


@with_llama_cpp
def test_llama_cpp_answers_as_the_engine_does_where_nothing_is_rounded(
    made: Made, ui: Ui, tmp_path: Path
) -> None:
    from evals.engine.llama_cpp import LlamaCppLM

    export(made.ws, ui, made.model, tmp_path / "out", form="gguf", dtype="f32")
    (file,) = (tmp_path / "out").glob("*.gguf")
    ours = PackedLM(load_model("m", BaseSpec(model=f"merged:{made.model}"), made.ws.root))
    theirs = LlamaCppLM(file, ours.chat, ours.max_length)
    asked = [
        ours.chat.context([{"role": "user", "content": text}])
        for text in ("What colour is the pan of Ada?", "Which team answers this? My card broke.")
    ]
    choices = [(context, f"{word}<|end|>") for context in asked for word in ("red", "blue, it is")]
    likely: list[Any] = [Instance("loglikelihood", {}, one, 0) for one in choices]
    for one, two in zip(ours.loglikelihood(likely), theirs.loglikelihood(likely), strict=True):
        assert one[0] == pytest.approx(two[0], abs=0.05)  # llama.cpp keeps keys and values in f16
        assert one[1] == two[1]
    wanted = {"until": ["<|end|>"], "max_gen_toks": 8, "do_sample": False}
    write = [Instance("generate_until", {}, (context, wanted), 0) for context in asked]
    assert ours.generate_until(write) == theirs.generate_until(write)
    whole: list[Any] = [Instance("loglikelihood_rolling", {}, ("Ada has a red pan. " * 9,), 0)]
    assert ours.loglikelihood_rolling(whole) == pytest.approx(
        theirs.loglikelihood_rolling(whole), abs=0.5
    )
    theirs.close()


@with_llama_cpp
def test_each_type_rounds_less_than_the_one_before(made: Made, ui: Ui, tmp_path: Path) -> None:
    from registry.gguf.convert import read_source

    export(made.ws, ui, made.model, tmp_path / "out", form="gguf", dtype="f16")
    (file,) = (tmp_path / "out").glob("*.gguf")
    model = read_source(made.ws.store.get("model", made.model).path)
    errors, sizes = [], []
    for dtype in QUANTS:
        quantise(file, tmp_path / dtype, dtype)
        proof = prove_quantised(model, file, tmp_path / dtype, dtype)
        print(dtype, proof)
        errors.append(proof.error)
        sizes.append((tmp_path / dtype).stat().st_size)
    assert errors[0] > errors[2] > errors[3] > 0
    assert sizes[-1] < file.stat().st_size
