"""What a table's columns are beyond Arrow's types: JSON in text, names of classes, text in bytes.

`datasets` writes its features beside the schema (key `huggingface`): `Json` is a text that holds
any value, `ClassLabel` a number that stands for a name. Arrow has a type of its own for JSON too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.datasets.readers.reading import in_other_encodings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa

    Turn = Callable[[Any], Any]

_KEY = b"huggingface"


class UndecodedError(Exception):
    """A value that isn't what its column is said to hold."""


def decoder_of(schema: pa.Schema, encoding: str | None) -> Decoder | None:
    """Return what makes values of a schema's rows; None where they are values already."""
    features = _features(schema)
    turns: dict[str, tuple[str, Turn]] = {}
    for field in schema:
        found = _turn(field.type, features.get(field.name), encoding or "utf-8")
        if found is not None:
            turns[field.name] = found
    return Decoder(turns) if turns else None


class Decoder:
    """The columns of a table that are decoded; `said` names each with what it holds."""

    def __init__(self, turns: Mapping[str, tuple[str, Turn]]) -> None:
        self._turns = {name: turn for name, (_, turn) in turns.items()}
        self.said = {name: kind for name, (kind, _) in turns.items()}

    def decode(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with its columns decoded.

        Raises:
            UndecodedError: a value is not what its column is said to hold.
        """
        return row | {name: self._one(name, turn, row[name]) for name, turn in self._turns.items()}

    def _one(self, name: str, turn: Turn, value: object) -> Any:
        try:
            return turn(value)
        except UndecodedError as error:
            message = f"column '{name}' {error}"
            raise UndecodedError(message) from None


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return the features that `datasets` wrote; what isn't as it writes them is passed over."""
    try:
        said = json.loads((schema.metadata or {}).get(_KEY, b"{}"))
        features = said["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _turn(kind: pa.DataType, feature: Any, encoding: str) -> tuple[str, Turn] | None:
    """Return what a value of a type holds and how it is decoded; None: it is a value already."""
    import pyarrow as pa

    name = feature.get("_type") if isinstance(feature, dict) else None
    if getattr(kind, "extension_name", None) == "arrow.json" or (name == "Json" and _is_text(kind)):
        return "JSON", _maybe(_json)
    if name == "ClassLabel" and pa.types.is_integer(kind):
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            return "names of classes", _maybe(lambda value: _class(names, value))
    types = pa.types
    if any(one(kind) for one in (types.is_binary, types.is_large_binary, types.is_binary_view)):
        return "bytes as text", _maybe(lambda value: _bytes(value, encoding))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _elements(kind, feature, encoding)
    if types.is_struct(kind):
        return _struct(kind, feature, encoding)
    return None


def _elements(kind: Any, feature: Any, encoding: str) -> tuple[str, Turn] | None:
    if isinstance(feature, dict):
        inner = feature.get("feature")
    else:
        inner = feature[0] if isinstance(feature, list) and len(feature) == 1 else None
    found = _turn(kind.value_type, inner, encoding)
    if found is None:
        return None
    said, turn = found
    return said, _maybe(lambda values: [turn(value) for value in values])


def _struct(kind: Any, feature: Any, encoding: str) -> tuple[str, Turn] | None:
    features = feature if isinstance(feature, dict) else {}
    if features.get("_type") == "Sequence":  # as TensorFlow's: a structure of lists
        inner = features.get("feature")
        features = {name: [one] for name, one in inner.items()} if isinstance(inner, dict) else {}
    turns = {}
    kinds = []
    for field in kind:
        found = _turn(field.type, features.get(field.name), encoding)
        if found is not None:
            kinds.append(found[0])
            turns[field.name] = found[1]
    if not turns:
        return None
    said = " and ".join(dict.fromkeys(kinds))
    return said, _maybe(
        lambda value: value | {name: turns[name](value[name]) for name in turns if name in value}
    )


def _maybe(turn: Turn) -> Turn:
    return lambda value: None if value is None else turn(value)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _json(value: object) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        message = f"is no JSON: {error}"
        raise UndecodedError(message) from None


def _class(names: list[str], value: int) -> str | None:
    """Return the name of a class; -1 is `datasets`' word for none."""
    if value == -1:
        return None
    if not 0 <= value < len(names):
        message = f"has no such class: {value} of {len(names)}"
        raise UndecodedError(message)
    return names[value]


def _bytes(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding)
    except UnicodeDecodeError as error:
        named = encoding.upper().replace("UTF8", "UTF-8")
        message = f"holds bytes that are no {named}: {in_other_encodings(value, error.start)}"
        raise UndecodedError(message) from None
