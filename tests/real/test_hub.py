"""SmolLM2 by its id on the Hub, at a commit: fetched by the real client, and the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.loopback_hub import serving

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SPEC = """
bases:
  hub: {{model: {model}, revision: {commit}, dtype: fp32}}
  gguf: {{model: smollm2, dtype: fp32}}
datasets:
  capitals: {{path: {{dev: capitals.jsonl}}, columns: {{input: q, output: a}}}}
capabilities:
  capitals:
    data: capitals
    answer: choice
    goal: 0.95
    prompts: {{zero_shot: "{{input}}", few_shot: []}}
train: {{base: hub, pool: []}}
"""
CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid"}


def found(folder: Path, base: str, environment: dict[str, str]) -> Any:
    """Call `gapmend gap` as a user has it, and return what it says."""
    program = Path(sys.executable).parent / "gapmend"
    done = subprocess.run(
        [program, "gap", "--base", base, "-C", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    return report


def test_the_hub_s_commit_is_the_same_base_as_the_file(smol_folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "hub") as hub:
        commit = hub.add_folder(HUB_ID, smol_folder)
        space = tmp_path / "space"
        space.mkdir()
        lines = [{"q": f"What is the capital of {a}?", "a": b} for a, b in CAPITALS.items()]
        (space / "capitals.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        (space / "gapmend.yaml").write_text(SPEC.format(model=HUB_ID, commit=commit))
        online = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
        }
        fetched = found(space, "hub", online)
        asked = len(hub.requests)
        assert asked
        again = found(space, "hub", online | {"HF_HUB_OFFLINE": "1"})
        assert len(hub.requests) == asked  # a commit that is here is not asked for
    unpacked = found(space, "gguf", {"HF_HUB_OFFLINE": "1"})
    assert again["gap_id"] == fetched["gap_id"]
    (one,), (other,) = fetched["findings"], unpacked["findings"]
    assert one["base"] == other["base"]
    assert one["base"]["mean"] > 0
