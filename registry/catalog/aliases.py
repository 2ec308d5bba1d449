"""Aliases: moving names of adapters and versions, what may be one, and their history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.catalog.lists import dataset_names
from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from registry.catalog.catalog import Catalog
_LIKE_AN_ID = re.compile(r"[0-9a-f]{4,64}")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}")


def check_alias_name(catalog: Catalog, name: str) -> None:
    """Check that `name` can be an alias: of an adapter, or (a tag) of a dataset version.

    Raises:
        UserError: it is a dataset's name, reads like an id, or has other characters.
    """
    taken = {one.name for one in dataset_names(catalog)}
    if name in taken or name == "none" or _LIKE_AN_ID.fullmatch(name):
        raise StoreRequestError(
            f"'{name}' can't be an alias: it is a dataset's name, or reads like an id",
            expected="a name of its own",
        )
    if not _ALIAS.fullmatch(name):
        raise StoreRequestError(
            f"'{name}' can't be an alias",
            expected="a lower-case letter, then letters, digits, '.', '_' or '-' (63 at most)",
        )
