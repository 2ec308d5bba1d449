"""The licence of a base: as the spec says, else as its own card does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.models.base import locate

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.base import BaseSpec


def license_of_base(name: str, spec: BaseSpec, root: Path) -> str | None:
    """Return a base's licence by the Hub's name, or None where nothing says it.

    A Hub base's card is fetched if it isn't in the cache.

    Raises:
        UserError: the base isn't there.
    """
    if spec.license is not None:
        return spec.license
    folder = locate(name, spec, root)
    card = folder.path / "README.md"
    if not card.is_file() and folder.hub is not None:
        return _from_hub(folder.hub)
    return _from_card(card) if card.is_file() else None


def _from_card(path: Path) -> str | None:
    from huggingface_hub import metadata_load

    data = metadata_load(path) or {}
    given = data.get("license")
    return given if isinstance(given, str) else None


def _from_hub(source: str) -> str | None:
    from huggingface_hub.errors import EntryNotFoundError

    from registry.hub.repository import Repository

    repo, _, commit = source.partition("@")
    repository = Repository(repo)
    try:
        return _from_card(repository.fetch("README.md", commit))
    except EntryNotFoundError:
        return None
