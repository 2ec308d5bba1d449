"""The pages on formats: every spec in them is valid, every record is found and becomes a row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from registry.datasets.formats.format import FormatName
from registry.datasets.sources.resolve import sources
from registry.datasets.spec import DatasetSpec

ROOT = Path(__file__).resolve().parents[4]
PAGES = sorted((ROOT / "docs/reference/formats").glob("*.md"))
BLOCK = re.compile(r"^(?:## (\S+)[^\n]*|```(yaml|jsonl)\n(.*?)^```)$", re.MULTILINE | re.DOTALL)


def specs(text: str) -> list[dict[str, Any]]:
    """Return the datasets of a YAML block: one, or several by name."""
    block = yaml.safe_load(text)
    one = block.keys() & {"path", "hub", "sql"}
    return [block] if one else list(block.values())


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in PAGES])
def test_specs_are_valid(page: Path) -> None:
    for _, language, text in BLOCK.findall(page.read_text("utf-8")):
        for spec in specs(text) if language == "yaml" else ():
            DatasetSpec.model_validate(spec)


def test_records_are_found_and_read_as_the_page_says(tmp_path: Path) -> None:
    seen: dict[str, int] = {}
    for page in PAGES:
        heading = ""
        spec: dict[str, Any] = {}
        for title, language, text in BLOCK.findall(page.read_text("utf-8")):
            if title:
                heading, spec = title, {}
            elif language == "yaml":
                (spec, *_) = specs(text)
            else:
                seen[heading] = seen.get(heading, 0) + read(tmp_path, heading, spec, text)
    assert seen == {
        "alpaca": 2,
        "columns": 1,
        "feedback": 4,
        "messages": 3,
        "Other": 1,
        "preference": 4,
        "prompt_completion": 2,
        "sharegpt": 2,
        "text": 1,
    }
    assert set(get_args(FormatName)) - {"llamafactory"} == set(seen) - {"Other"}


def read(folder: Path, heading: str, spec: dict[str, Any], text: str) -> int:
    """Read each line by itself, as a file of its own; return how many there were."""
    lines = text.splitlines()
    for line in lines:
        (folder / "rows.jsonl").write_text(line + "\n", "utf-8")
        made = DatasetSpec.model_validate({**spec, "path": "rows.jsonl"})
        found = sources(made, folder)
        assert found.name == (heading if heading != "Other" else "messages"), line
        record = json.loads(line)
        assert found.format.content(record).messages, line
        assert found.format.meta(record).startswith("{")
    return len(lines)
