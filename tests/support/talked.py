"""A workspace to talk in: nano, and an adapter of it that wasn't trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.served import add_adapter

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
bases: {nano: {model: nano, dtype: fp32}}
datasets:
  sums:
    path: {train: data/sums.jsonl, dev: data/dev.jsonl}
    columns: {input: question, output: answer}
capabilities:
  sums: {data: sums, answer: exact, goal: 0.9, prompts: {few_shot: [2], cot: "{input}{x}"}}
train: {base: nano, pool: [sums]}
"""


def make_talked(root: Path) -> Path:
    """Make it; the adapter's name is `mine`."""
    (root / "data").mkdir(parents=True)
    (root / "gapmend.yaml").write_text(SPEC)
    rows = [{"question": _words(n), "answer": str(n)} for n in range(1, 31)]
    for name, part in (("sums", rows[:20]), ("dev", rows[20:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (root / "data" / f"{name}.jsonl").write_text(lines)
    add_adapter(root, seed=1, alias="mine")
    return root


def _words(number: int) -> str:
    """A question that is like no other one."""
    return " ".join(f"{'bcdfghklm'[number * n % 9]}a{number * n % 97}" for n in range(1, 9))
