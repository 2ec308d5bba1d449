"""A new workspace, as `init` makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.conftest import gapmend

if TYPE_CHECKING:
    from pathlib import Path


def test_the_starter_runs_as_it_is_and_ends_promoted(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert gapmend("init", folder).code == 0
    done = gapmend("run", "-C", folder, timeout=300)
    assert done.code == 0, done.err
    assert "is champion" in done.out
    assert "│ routing │ 0.90 │" in done.out
    assert "nothing asked (the spec has no guards)" in done.out
