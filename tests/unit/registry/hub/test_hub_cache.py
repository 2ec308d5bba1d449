"""A base in the Hub's cache without a reference to its commit, as a copied cache is."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import HubError
from registry.hub.base import fetch_snapshot

ONE, OTHER = "a1" * 20, "a2" * 20


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    made = tmp_path / "models--me--it" / "snapshots"
    (made / ONE).mkdir(parents=True)
    return made


@pytest.mark.parametrize("revision", [None, ONE, ONE[:12]])
def test_it_is_found_by_its_commit(snapshots: Path, revision: str | None) -> None:
    assert fetch_snapshot("me/it", revision, ["config.json"], "bases.b", Path()) == snapshots / ONE


@pytest.mark.parametrize(("revision", "found"), [(ONE[:8], ONE), (OTHER[:8], OTHER)])
def test_of_two_the_one_that_is_meant(snapshots: Path, revision: str, found: str) -> None:
    (snapshots / OTHER).mkdir()
    path = fetch_snapshot("me/it", revision, ["config.json"], "bases.b", Path())
    assert path == snapshots / found


@pytest.mark.parametrize(("revision", "known"), [(None, "main"), ("v1", "v1"), ("a", "a")])
def test_what_is_not_known_by_a_commit_names_those_there(
    snapshots: Path, revision: str | None, known: str
) -> None:
    (snapshots / OTHER).mkdir()
    with pytest.raises(HubError) as raised:
        fetch_snapshot("me/it", revision, ["config.json"], "bases.b", Path())
    assert f"has 2 commits of me/it, none of which is known as {known}" in str(raised.value)
    assert f"expected {ONE} or {OTHER}" in str(raised.value)


def test_what_is_not_there_is_one_line(snapshots: Path) -> None:  # noqa: ARG001
    with pytest.raises(HubError, match="neither a folder nor in the Hub's cache"):
        fetch_snapshot("me/other", None, ["config.json"], "bases.b", Path())
