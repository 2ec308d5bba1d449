"""Every architecture through everything, and the table of it in the documents.

`./just soak -k architectures` writes docs/reference/architectures.md anew.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.architectures import configs
from tests.architectures.chain import Steps, through

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/architectures.md"
STEPS = ("gap", "train", "forget", "merge", "reload", "GGUF")
# A third, each kind among them; the others in `./just soak`.
QUICK = (
    *("llama", "gpt2", "gemma2", "mixtral", "deepseek_v3", "phimoe", "falcon_h1"),
    *("qwen3_next", "gemma4_text", "gemma3", "qwen2_5_vl", "llama4", "mistral"),
    *("phi3", "olmo2", "bloom", "qwen3_moe", "gpt_oss", "mamba"),
)
HEAD = """# Architectures

A tiny random model of each class of transformers, through the whole loop in fp32: scored, trained by LoRA on `all-linear`, scored with the adapter, merged, loaded again, written as GGUF. Each step was held against plain forward passes of transformers and PEFT, a sequence at a time. Other classes are tried in the same way before the first batch; nothing goes by a class's name.

- **gap, forget**: log-likelihoods and answers are those of plain passes; `packed`: choices and shared prefixes go through the model together, `single`: a sequence a row.
- **train**: the loss is that of plain passes; `packed`: many rows a pass, `single`: one row at a time, as packing would change what they attend to.
- **merge**: proved, as every merge is; **reload**: the logits of base and adapter.
- **GGUF**: the file's logits are the model's; `refused`, by name, where llama.cpp's model isn't known to be the same.

LoRA is on linear layers and the weights of experts, never on a router. Of wrappers for pictures every method trains the part that reads text alone; text of their kin whose class has no pictures (`qwen3_5`, `llama4`) is a base without them, and so is what is merged. Made by `./just soak -k architectures`.
"""  # noqa: E501 - a paragraph is a line


@functools.cache
def steps_of(kind: str, root: Path) -> Steps:
    return through(kind, root / kind)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def line(steps: Steps) -> str:
    cells = [steps.said.get(name, "") for name in STEPS]
    return f"|`{steps.kind}`|`{steps.model}`|{'|'.join(cells)}|"


@pytest.mark.parametrize("kind", QUICK)
def test_it_goes_through_everything(root: Path, kind: str) -> None:
    assert line(steps_of(kind, root)) in PAGE.read_text("utf-8").splitlines()


@pytest.mark.soak
def test_the_table_of_all_is_the_one_in_the_documents(root: Path) -> None:
    rows = [line(steps_of(kind, root)) for kind in configs.ALL]
    table = [f"|model_type|class|{'|'.join(STEPS)}|", "|---" * (len(STEPS) + 2) + "|", *rows]
    made = HEAD + "\n" + "\n".join(table) + "\n"
    before = PAGE.read_text("utf-8") if PAGE.is_file() else ""
    PAGE.write_text(made, encoding="utf-8")
    assert before == made, "docs/reference/architectures.md was out of date, and is written anew"
