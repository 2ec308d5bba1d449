"""What can't be a base, a pool or a guard, as a user meets it: one line, nothing half-written."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.support.called import Called, fork, forked
from tests.support.loaded import with_models

SPEC = """
bases: {b: {model: %s}}
datasets:
  mood: {path: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}}
  word: {path: {dev: dev.jsonl, test: test.jsonl}}
  chat: {path: {train: chat.jsonl}}
capabilities: {mood: {data: mood, answer: choice, goal: 0.95}}
%s
train: {base: b, pool: [%s], budget_rows: 20, replay: 0.2}
"""
# Whatever it is asked, it says "a" and goes on saying it.
ROUND_AND_ROUND = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from tests.support import tiny_models
folder = tiny_models.save(sys.argv[1], "llama", tie_word_embeddings=False)
model, tokens = (one.from_pretrained(folder) for one in (AutoModelForCausalLM, AutoTokenizer))
with torch.no_grad():
    for weight in model.parameters():
        weight.zero_()
    model.model.embed_tokens.weight.normal_()
    model.model.embed_tokens.weight[:, 0] = 1
    model.model.norm.weight.fill_(1)
    model.lm_head.weight[tokens.encode("a", add_special_tokens=False)[0], 0] = 30
model.save_pretrained(folder)
"""
GGUF_FILES = """
import sys
from pathlib import Path
from tests.support import tiny_models
from tests.support.gguf_files import changed, written
root = Path(sys.argv[1])
whole = written(tiny_models.save(root / "made", "llama", bos=True), root / "whole.gguf")
tokens = {"tokenizer.ggml.tokens": None, "tokenizer.ggml.token_type": None}
changed(whole, root / "unknown.gguf", figures={"general.architecture": "rwkv6"})
changed(whole, root / "mute.gguf", figures=tokens)
(root / "cut.gguf").write_bytes(whole.read_bytes()[:9000])
"""


def workspace(root: Path, base: str, *, pool: str = "mood", guards: str = "") -> Path:
    (root / "gapmend.yaml").write_text(SPEC % (base, guards, pool))
    rng = random.Random(0)
    words = [f"w{number}" for number in range(2000)]
    for name in ("train", "dev", "test"):
        asked = [" ".join(rng.sample(words, 6)) for _ in range(60)]
        rows = [{"input": one, "output": rng.choice(("up", "down"))} for one in asked]
        (root / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    talk = [{"input": f"Tell me all of {n}", "output": f"It is {n * n}"} for n in range(40)]
    (root / "chat.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in talk))
    return root


def made(code: str, *arguments: Path) -> None:
    done = fork(["-c", code, *map(str, arguments)], loaded=with_models)
    assert done.code == 0, done.err


def called(verb: str, root: Path) -> Called:
    return forked(verb, "-C", root, loaded=with_models)


def refused(verb: str, root: Path) -> str:
    """The one line that is said, where nothing else is left of the call than its run."""
    done = called(verb, root)
    assert done.code == 2, done.err
    (line,) = [one for one in done.err.splitlines() if one.startswith("gapmend: ")]
    assert done.err.splitlines()[-1] == line
    assert "Traceback" not in done.err
    return line


def kept(root: Path) -> set[str]:
    """Kinds of objects, and what was unpacked of a GGUF file."""
    state = root / ".gapmend"
    unpacked = {p.name for p in state.glob("cache/gguf/*") if p.suffix != ".lock"}
    drafts = {p.name for p in state.glob("drafts/*")}
    return {path.name for path in state.glob("objects/*")} | unpacked | drafts


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    made(GGUF_FILES, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unknown", "the architecture 'rwkv6' isn't"),
        ("mute", "it has no tokenizer"),
        ("cut", "not a whole GGUF file"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_gguf_file_that_is_no_base(
    files: Path, tmp_path: Path, name: str, said: str, verb: str
) -> None:
    root = workspace(tmp_path, f"{files / name}.gguf")
    line = refused(verb, root)
    assert line.startswith("gapmend: gapmend.yaml:2: bases.b")
    assert f"{name}.gguf" in line
    assert said in line
    assert kept(root) <= {"uids", "rows", "dataset_version", "run"}


def test_a_base_that_only_repeats_itself(tmp_path: Path) -> None:
    made(ROUND_AND_ROUND, tmp_path / "base")
    root = workspace(tmp_path, "base", pool="mood, chat")
    line = refused("select", root)
    assert line.startswith("gapmend: gapmend.yaml:2: bases.b: none of the")
    assert "endless repetition" in line
    assert "expected a base that answers, and ends" in line
    assert "selection" not in kept(root)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_pool_in_which_every_row_is_for_dev(tmp_path: Path, verb: str) -> None:
    root = workspace(tmp_path, "nano", pool="word")
    line = refused(verb, root)
    assert "gapmend.yaml:9: train.pool: no row of the pool can be trained on (mood: its " in line
    assert not kept(root) & {"eval", "selection", "adapter"}


def test_a_guard_at_chance(tmp_path: Path) -> None:
    guards = "guards: {word: {data: word, answer: choice, max_drop: 0.5}}"
    done = called("gap", workspace(tmp_path, "nano", guards=guards))
    assert done.code == 0, done.err
    (line,) = [one for one in done.out.splitlines() if one.startswith("guard word: ")]
    assert "and guessing 0.500: what it can't do it can't be seen to lose" in line
