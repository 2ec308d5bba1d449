"""Templates that write today's date: a workspace has one, and it is part of what a base is."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.chat import settings
from registry.chat.chat import Chat
from registry.errors import UserError
from registry.models.base import BaseSpec, identify
from registry.models.tokenizer import load_chat
from tests.support import tiny_models

DATED = "{{ strftime_now('%d %b %Y') }}" + tiny_models.CHAT_TEMPLATE
ASKED = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dated")
    tiny_models.save(root, "llama")
    (root / "chat_template.jinja").write_text(DATED)
    return root


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Any:
    def be(day: int) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return cls(2026, 5, day, tzinfo=tz)

        monkeypatch.setattr(settings, "datetime", Clock)

    return be


def chat(folder: Path, root: Path, **spec: Any) -> Chat:
    return load_chat("b", BaseSpec(model=str(folder), **spec), root)


def test_it_is_the_same_on_another_day(folder: Path, tmp_path: Path, today: Any) -> None:
    today(1)
    first = chat(folder, tmp_path / "one")
    today(2)
    again, other = chat(folder, tmp_path / "one"), chat(folder, tmp_path / "two")
    assert first.context(ASKED).startswith("01 May 2026")
    assert again.context(ASKED) == first.context(ASKED)
    assert again.identity.digest == first.identity.digest
    assert other.context(ASKED).startswith("02 May 2026")
    assert other.identity.digest != first.identity.digest


def test_the_spec_may_say_it(folder: Path, tmp_path: Path) -> None:
    said = chat(folder, tmp_path, date="2024-07-26")
    assert said.context(ASKED).startswith("26 Jul 2024")
    assert not (tmp_path / ".gapmend").exists()
    with pytest.raises(ValueError, match="date"):
        BaseSpec(model="nano", date="2024-13-01")


def test_yaml_s_off_and_days_are_what_they_say() -> None:
    said = yaml.safe_load("{model: nano, thinking: off, date: 2024-07-26}")
    assert said["thinking"] is False
    spec = BaseSpec.model_validate(said)
    assert (spec.thinking, spec.date) == ("off", "2024-07-26")
    assert BaseSpec.model_validate(yaml.safe_load("{model: nano, thinking: on}")).thinking == "on"
    odd: tuple[Any, ...] = ("maybe", 0, 1, [])
    for wrong in odd:
        with pytest.raises(ValueError, match="thinking"):
            BaseSpec.model_validate({"model": "nano", "thinking": wrong})


def test_other_bases_have_none(tmp_path: Path) -> None:
    plain = identify("b", BaseSpec(model="nano"), tmp_path)
    assert plain.chat.date is None
    assert identify("b", BaseSpec(model="nano", date="2024-07-26"), tmp_path) == plain
    assert not (tmp_path / ".gapmend" / "date").exists()


def test_how_it_is_asked_is_part_of_what_a_base_is(tmp_path: Path) -> None:
    digests = {
        identify("b", BaseSpec(model="nano", **said), tmp_path).digest
        for said in ({}, {"thinking": "off"}, {"thinking": "on"}, {"system": "join"})
    }
    assert len(digests) == 4


def test_a_workspace_that_cannot_keep_it_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".gapmend").write_text("not a folder")
    with pytest.raises(UserError, match="Say it in the spec"):
        chat(folder, tmp_path)
