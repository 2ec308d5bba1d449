"""Bases from elsewhere: what no model can be made of, or never ends, is refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UserError
from registry.intake import base as intake
from registry.intake.base import check_base
from registry.models.base import BaseSpec, identify
from tests.support import tiny_models

SPEC = BaseSpec(model="base")
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("whole") / "base", "llama")


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    (tmp_path / ".gapmend").mkdir()
    return Path(shutil.copytree(whole, tmp_path / "base"))


def checked(root: Path) -> None:
    check_base("b", SPEC, root, identify("b", SPEC, root))


def test_a_whole_one_is_tried_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked(base.parent)
    monkeypatch.setattr(subprocess, "run", None)
    checked(base.parent)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(TypeError):
        checked(base.parent)  # another base, tried anew


def test_a_workspace_that_may_only_be_read_is_no_reason(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    checked(base.parent)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("config.json", {"hidden_size": 0, "head_dim": None}, "making a model of config.json"),
        ("config.json", {"num_attention_heads": "four"}, "making a model of config.json fails: "),
        ("config.json", {"model_type": "no_such_type"}, "making a model of config.json fails: "),
        ("config.json", {"vocab_size": 1 << 24}, "config.json describes "),
        ("config.json", {"num_hidden_layers": 9_999}, "config.json takes too much time"),
        ("tokenizer.json", "{}", "reading the tokenizer fails: "),
        ("tokenizer_config.json", {"eos_token": 3}, "reading the tokenizer fails: "),
        ("chat_template.jinja", ENDLESS, "rendering the chat template takes too much time"),
        ("chat_template.jinja", "{% for %}", "rendering the chat template fails: Template"),
        ("chat_template.jinja", "{{ ''.__class__ }}", "fails: it reaches for __class__"),
    ],
)
def test_what_can_not_be_used_is_one_line(
    base: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: Any, message: str
) -> None:
    monkeypatch.setattr(intake, "_SECONDS", 1)
    path = base / name
    text = given
    if isinstance(given, dict):
        text = json.dumps(json.loads(path.read_text("utf-8")) | given)
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"^bases\.b: ") as raised:
        checked(base.parent)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
