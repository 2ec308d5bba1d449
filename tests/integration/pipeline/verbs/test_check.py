"""`gapmend check` finds what gap would stop at, and names the place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.verbs.check import check
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.models.load import nano_folder

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"


def checked(folder: Path, *changes: tuple[str, str]) -> None:
    shutil.copytree(STARTER, folder, dirs_exist_ok=True)
    spec = folder / "gapmend.yaml"
    text = spec.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text, "utf-8")
    check(OpenWorkspace.open(folder))


def test_the_starter_is_fit(tmp_path: Path) -> None:
    checked(tmp_path)
    checked(tmp_path, ("{input}", "One of {labels}.\\n{input}"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("{input}", "{inputt}")], "capabilities.routing: the prompt names {inputt}, which"),
        (
            [("answer: choice  ", 'answer: regex\n    pattern: "{inpu}"  ')],
            "capabilities.routing: the prompt names {inpu}, which is not a column",
        ),
        (
            [("answer: choice  ", 'answer: regex\n    pattern: "(x"  ')],
            "gapmend.yaml:14: capabilities.routing: the pattern '(x' is not valid",
        ),
        (
            [("answer: choice  ", "answer: choice\n    labels: '{teams}'  ")],
            "tickets.csv:2: the row has no column 'teams', which labels names",
        ),
    ],
)
def test_a_template_that_fits_no_row_is_found(
    tmp_path: Path, changes: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        checked(tmp_path, *changes)
    assert message in str(raised.value)


def test_a_base_without_a_tokenizer_is_found(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(nano_folder() / name, base)
    with pytest.raises(UserError) as raised:
        checked(tmp_path, ("{model: nano}", "{model: base}"))
    assert str(raised.value).startswith("bases.nano: no tokenizer can be loaded")
    assert "\n" not in str(raised.value)
