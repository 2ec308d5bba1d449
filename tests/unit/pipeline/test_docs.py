"""The documents: their links lead somewhere, their commands exist, their specs are valid."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.main import get_command

from pipeline.cli.main import app
from pipeline.spec.spec import Spec, load_spec

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/*.md"),
        ROOT / "registry/nano/README.md",
    ]
)
TUTORIAL = ROOT / "docs/guide/tutorial.md"
SPECS = sorted(ROOT.glob("examples/*/gapmend.yaml"))
README_YAML_LINES = 12
README_WORDS = 1200
WORDS = 20_000
# Tables that a test writes are looked up, not read: they are outside of the count.
WRITTEN_BY_TESTS = {
    ROOT / "docs/reference/architectures.md",
    ROOT / "docs/reference/templates.md",
    ROOT / "docs/reference/formats/as-people-have-them.md",
}


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


@pytest.fixture(scope="module")
def recipes() -> set[str]:
    just = subprocess.run(
        [Path(sys.executable).with_name("just"), "--justfile", ROOT / "justfile", "--summary"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(just.stdout.split())


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_commands_exist(document: Path, recipes: set[str]) -> None:
    text = document.read_text("utf-8")
    called = set(re.findall(r"\./just (?:\w+=\S+ )?([a-z][a-z0-9-]*)", text))
    verbs = set(re.findall(r"(?:`|^)gapmend ([a-z][a-z-]*)", text, re.MULTILINE))
    assert (called | verbs) - recipes == set()


def test_docs_the_pages_that_the_code_names_are_there() -> None:
    named_in = {
        page
        for package in ("registry", "evals", "pipeline", "tests", "benchmarks")
        for file in (ROOT / package).rglob("*")
        if file.suffix in {".py", ".sql", ".yaml"}
        for page in re.findall(r"\bdocs/[a-z][\w./-]*\w", file.read_text("utf-8"))
    }
    assert len(named_in) > 5
    assert {page for page in named_in if not list(ROOT.glob(f"{page}*"))} == set()


def options_of_verbs() -> dict[str, set[str]]:
    """Every verb of the command line, `adapter ls` and such by both words, with its options."""
    found: dict[str, set[str]] = {}

    def add(prefix: str, group: Any) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                add(f"{prefix}{name} ", command)
            else:
                given = (option for one in command.params for option in one.opts)
                more = (option for one in command.params for option in one.secondary_opts)
                found[prefix + name] = {*given, *more}

    add("", get_command(app))
    return found


def test_docs_the_page_of_verbs_has_every_verb_and_only_options_that_exist() -> None:
    verbs = options_of_verbs()
    assert len(verbs) > 40
    page = (ROOT / "docs/reference/verbs.md").read_text("utf-8")
    listed: dict[str, set[str]] = {}
    for row in re.findall(r"^\|(`[^|]+)\|[^|]*\|([^|]*)\|$", page, re.MULTILINE):
        for called in re.findall(r"`([^`]+)`", row[0]):
            words = " ".join(re.findall(r"(?<!\S)[a-z][a-z-]*", called))
            listed[words] = set(re.findall(r"`(-{1,2}[a-z][a-z-]*)", row[1]))
    listed["adapter export"] = listed["export"]  # the same verb under both names
    assert listed.keys() == verbs.keys()
    assert {verb: listed[verb] - verbs[verb] for verb in listed if listed[verb] - verbs[verb]} == {}


def test_docs_are_short() -> None:
    pages = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")}
    assert pages >= WRITTEN_BY_TESTS
    found = sum(len(page.read_text("utf-8").split()) for page in pages - WRITTEN_BY_TESTS)
    assert found <= WORDS


def test_docs_no_decision_is_longer_than_150_words() -> None:
    decisions = list((ROOT / "docs/internals/decisions").glob("*.md"))
    assert decisions
    lengths = {page.name: len(page.read_text("utf-8").split()) for page in decisions}
    assert {name: words for name, words in lengths.items() if words > 150} == {}


@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_the_readme_s_spec_is_valid_and_short(document: str) -> None:
    (block,) = blocks((ROOT / document).read_text("utf-8"), "yaml")
    assert len(block.splitlines()) <= README_YAML_LINES
    Spec.model_validate(yaml.safe_load(block))


def test_docs_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= README_WORDS
    pages = ROOT.glob("docs/*/*.md")
    assert {page.name for page in pages if f"{page.relative_to(ROOT)}" not in text} == set()


def test_docs_the_tutorial_s_spec_is_valid_with_each_of_its_parts(tmp_path: Path) -> None:
    text = TUTORIAL.read_text("utf-8")
    whole, *parts = blocks(text, "yaml")
    (rows,) = blocks(text, "csv")
    assert parts
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mail.csv").write_text(rows, "utf-8")
    (tmp_path / "gapmend.yaml").write_text(whole, "utf-8")
    spec = load_spec(tmp_path / "gapmend.yaml")
    (data,) = spec.datasets.values()
    header = rows.partition("\n")[0].split(",")
    assert set(data.columns.values()) <= set(header)
    for part in parts:
        given = yaml.safe_load(whole)
        for section, names in yaml.safe_load(part).items():
            given[section] = {**given.get(section, {}), **names}
        Spec.model_validate(given)


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
