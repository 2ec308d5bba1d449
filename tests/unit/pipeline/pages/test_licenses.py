"""The licences in a report: by the spec, by what lies beside the files, or plainly unknown."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.pages.account import VersionUsed
from pipeline.pages.licenses import base_license, dataset_licenses
from pipeline.pages.parts import parts
from pipeline.pages.tables import Table
from pipeline.spec.spec import load_spec
from registry.intake.license import SaidLicense, license_in
from registry.models.base import BaseSpec, identify, nano_folder
from tests.support.accounts import account

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.spec.spec import Spec

CARD = "---\nlicense: mit\n---\nA model.\n"
FILE = "\n# Apache License\n   Version 2.0, January 2004\n"
NONE = dict.fromkeys(("gap", "forgetting", "selection", "training", "mending", "lineage"), ())


def spec_of(root: Path, bases: str, datasets: str = "d: {path: rows/d.csv}") -> Spec:
    (root / "gapmend.yaml").write_text(
        f"bases:\n  {bases}\ndatasets:\n  {datasets}\n"
        "capabilities:\n  c: {data: d, answer: exact, goal: 0.5}\ntrain: {base: b}\n"
    )
    return load_spec(root / "gapmend.yaml")


def a_base(root: Path, **files: str) -> str:
    """Put the built-in base into a folder, with these files instead of its card."""
    shutil.copytree(nano_folder(), root / "m", ignore=shutil.ignore_patterns("README.md", "recipe"))
    for name, text in files.items():
        (root / "m" / name.replace("_md", ".md")).write_text(text)
    return identify("b", BaseSpec(model="m"), root).digest


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README_md": CARD, "LICENSE": FILE}, SaidLicense("mit", "its card")),
        ({"README_md": "no head", "LICENSE": FILE}, SaidLicense("Apache License", "LICENSE")),
        ({"COPYING_md": "x\x07y"}, None),  # not a name for a line
        ({}, None),
    ],
)
def test_a_base_in_a_folder(
    tmp_path: Path, files: dict[str, str], said: SaidLicense | None
) -> None:
    digest = a_base(tmp_path, **files)
    spec = spec_of(tmp_path, "b: {model: m}")
    assert base_license(tmp_path, spec, "b", digest, None) == said


def test_the_spec_speaks_before_the_card_and_of_this_base_alone(tmp_path: Path) -> None:
    digest = a_base(tmp_path, README_md=CARD)
    spec = spec_of(tmp_path, "b: {model: m, license: cc0-1.0}")
    assert base_license(tmp_path, spec, "b", digest, None) == SaidLicense("cc0-1.0", "the spec")
    assert base_license(tmp_path, spec, "b", "0" * 64, None) is None  # another was trained on
    assert base_license(tmp_path, None, "b", digest, None) is None  # the spec isn't valid


def test_the_built_in_base_says_its_own(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "b: {model: nano}")
    digest = identify("b", spec.bases["b"], tmp_path).digest
    found = base_license(tmp_path, spec, "b", digest, None)
    assert found == SaidLicense("apache-2.0", "its card")


def test_a_base_of_the_hub_by_what_the_cache_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "1" * 40
    kept = tmp_path / "hub" / "models--me--m"
    (kept / "snapshots" / commit).mkdir(parents=True)
    (kept / "snapshots" / commit / "README.md").write_text(CARD)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = spec_of(tmp_path, "b: {model: me/m}")
    known = account().facts
    assert known
    facts = replace(known, base="me/m", revision=commit)
    found = SaidLicense("mit", "its card")
    assert base_license(tmp_path, spec, "b", "0" * 64, facts) == found
    assert base_license(tmp_path, None, "b", "0" * 64, facts) == found  # it isn't named any more
    other = replace(facts, revision="2" * 40)
    assert base_license(tmp_path, spec, "b", "0" * 64, other) is None


def test_rows_say_theirs_in_the_spec_or_beside_them(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    spec = spec_of(tmp_path, "b: {model: nano}", "d: {path: rows/d.csv}\n  e: {path: e.csv}")
    names = ["d", "e", "gone"]
    assert dataset_licenses(tmp_path, spec, names) == {"d": None, "e": None}
    (tmp_path / "rows" / "LICENSE.txt").write_text("MIT License\n")
    (tmp_path / "LICENSE").write_text("of the workspace, not of the rows\n")
    found = dataset_licenses(tmp_path, spec, names)
    assert found == {"d": SaidLicense("MIT License", "LICENSE.txt"), "e": None}
    told = spec_of(tmp_path, "b: {model: nano}", "d: {path: rows/d.csv, license: CC0-1.0}")
    assert dataset_licenses(tmp_path, told, names) == {"d": SaidLicense("CC0-1.0", "the spec")}


def tables(**changed: object) -> dict[str, Table]:
    made = parts(account(**changed), NONE, ())
    return {table.title: table for part in made if part.id == "lineage" for table in part.tables}


def test_the_page_has_the_licence_of_the_base_and_of_every_version() -> None:
    versions = (
        VersionUsed("a", "7" * 64, 3, 1, 1, 1, "CC0-1.0"),
        VersionUsed("b", "8" * 64, 3, 1, 1, 1, None, SaidLicense("MIT License", "LICENSE")),
        VersionUsed("c", "9" * 64, 3, 1, 1, 1, None),
    )
    found = tables(base_license=SaidLicense("apache-2.0", "its card"), versions=versions)
    assert found["Base"].rows == (("tiny", "d" * 12, "apache-2.0", "its card"),)
    assert [row[-2:] for row in found["Data"].rows] == [
        ("CC0-1.0", "the version"),
        ("MIT License", "LICENSE"),
        ("unknown", "neither the spec (datasets.c.license) nor a file beside its data"),
    ]


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    row = dict(zip(tables()["Base"].columns, tables()["Base"].rows[0], strict=True))
    assert row["licence"] == "unknown"
    assert "bases.tiny.license" in row["as said by"]


def test_a_pipe_named_as_a_licence_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "LICENSE")
    assert license_in(tmp_path) is None
