"""The documents: their links lead somewhere, their commands exist, their specs are valid."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from pipeline.spec import Spec, load_spec

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/*.md"),
        ROOT / "registry/nano/README.md",
    ]
)
SPECS = sorted(ROOT.glob("examples/*/gapmend.yaml"))
README_YAML_LINES = 20


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The fragments that a hosted page gives to the headings of a Markdown text."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def leads_somewhere(document: Path, link: str) -> bool:
    file, _, fragment = link.partition("#")
    target = document.parent / file if file else document
    if fragment and target.is_file():
        return fragment in anchors(target.read_text("utf-8"))
    return target.exists()


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in link]
    assert [link for link in links if not leads_somewhere(document, link)] == []


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_commands_exist(document: Path) -> None:
    just = subprocess.run(
        [Path(sys.executable).with_name("just"), "--justfile", ROOT / "justfile", "--summary"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    recipes = set(just.stdout.split())
    text = document.read_text("utf-8")
    called = set(re.findall(r"\./just (?:\w+=\S+ )?([a-z][a-z0-9-]*)", text))
    verbs = set(re.findall(r"`gapmend ([a-z][a-z-]*)", text))
    assert (called | verbs) - recipes == set()


@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_the_readme_s_spec_is_valid_and_short(document: str) -> None:
    (block,) = blocks((ROOT / document).read_text("utf-8"), "yaml")
    assert len(block.splitlines()) < README_YAML_LINES
    Spec.model_validate(yaml.safe_load(block))


@pytest.mark.parametrize("spec", named(SPECS))
def test_the_examples_specs_are_valid(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The labels' file is all that has to be there for a spec to be read.
    (tmp_path / "banking77").mkdir()
    (tmp_path / "banking77/categories.json").write_text('["card_arrival", "age_limit"]', "utf-8")
    monkeypatch.setenv("GAPMEND_DATA", str(tmp_path))
    assert load_spec(spec).capabilities


def test_the_picture_stands_alone() -> None:
    picture = (ROOT / "docs/loop.svg").read_text("utf-8")
    shown = " ".join(ET.fromstring(picture).itertext())  # noqa: S314 - our own file
    for stage in ("ingest", "gap", "select", "train", "forget", "mend", "promote", "merge"):
        assert stage in shown
    assert set(re.findall(r"https?://[^\s\"]+", picture)) == {"http://www.w3.org/2000/svg"}
