"""Every stage with SmolLM2 as the base, from the gap to a GGUF file of the merged model."""

from __future__ import annotations

import json
import random
from pathlib import Path

from pipeline.forget import forget
from pipeline.gap import gap
from pipeline.measure.measure import TunedModel
from pipeline.merge import merge
from pipeline.select import select
from pipeline.train import train
from pipeline.verbs.check import check
from pipeline.verbs.export import export
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.gguf.file import GgufFile

SPEC = """
bases: {smol: {model: smollm2, dtype: fp32}}
datasets:
  desk: {path: {train: desk-train.jsonl, dev: desk-dev.jsonl}, columns: {input: q, output: a}}
  days: {path: {train: days-train.jsonl, dev: days-dev.jsonl}, columns: {input: q, output: a}}
capabilities:
  desk: {data: desk, answer: choice, goal: 0.95, prompts: {zero_shot: "{input}", few_shot: []}}
guards:
  days: {data: days, answer: choice, max_drop: 0.3, prompts: {zero_shot: "{input}", few_shot: []}}
train: {base: smol, rank: 4, epochs: 1, batch_tokens: 256, pool: [desk], budget_rows: 16}
"""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
NAMES = ("Ann", "Bob", "Cem", "Dora", "Eva", "Finn", "Gus", "Hao", "Ida", "Jan")


def desk(rng: random.Random) -> dict[str, str]:
    what, where = rng.choice((("a parcel", "zeta"), ("a bill", "kappa"), ("a visit", "tau")))
    return {"q": f"{rng.choice(NAMES)} {rng.randrange(999)} asks about {what}. Desk?", "a": where}


def days(rng: random.Random) -> dict[str, str]:
    day = rng.randrange(4)
    return {"q": f"{rng.choice(NAMES)}: which day is after {DAYS[day]}?", "a": DAYS[day + 1]}


def test_every_stage_takes_it(smol_root: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for name, make in (("desk", desk), ("days", days)):
        for split, count in (("train", 60), ("dev", 24)):
            lines = "".join(json.dumps(make(rng)) + "\n" for _ in range(count))
            (smol_root / f"{name}-{split}.jsonl").write_text(lines)
    (smol_root / "gapmend.yaml").write_text(SPEC)
    ws, ui = OpenWorkspace.open(smol_root), Ui(as_json=True)
    (note,) = (one for one in check(ws, ui).notes if one.startswith("bases."))
    assert "210 as Q4_1 and 1 as Q8_0; what is left of them is kept in float32, exactly" in note
    found = gap(ws, ui)
    assert found.verdict("desk") == "tune"
    selected = select(ws, ui)
    made = train(ws, ui, selected.selection_id)
    forgotten = forget(ws, ui, TunedModel(made.adapter_id))
    assert "days" in forgotten.changes
    merged = merge(ws, ui, made.adapter_id)
    sent = export(ws, ui, merged.model_id, tmp_path / "out", form="gguf", dtype="f16")
    assert sent.proof is not None
    assert sent.proof.logits <= sent.proof.bound
    (file,) = (tmp_path / "out").glob("*.gguf")
    assert GgufFile(file).figures["tokenizer.ggml.pre"] == "smollm"
