"""Records of the store as the dataclasses that they were written from, validated by pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from registry.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter

Record = TypeVar("Record")

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # making one takes milliseconds


def read_back(record: type[Record], values: Mapping[str, Any], where: str) -> Record:
    """Return `values` as a `record`; lists become tuples, and keys that it lacks are left out.

    Args:
        record: a dataclass whose annotations can be resolved when the program runs.
        values: as they were read from JSON or Parquet.
        where: what they were read from, for the message.

    Raises:
        StoreError: they don't fit.
    """
    from pydantic import ValidationError

    try:
        return cast("Record", _adapter(record).validate_python(dict(values)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"{where}: not what gapmend wrote there ({key}: {first['msg']}). `gapmend fsck` lists "
            "what is damaged; put it back from a copy, or move .gapmend away and run again"
        ) from error


def _adapter(record: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if record not in _ADAPTERS:
        _ADAPTERS[record] = TypeAdapter(record)
    return _ADAPTERS[record]
