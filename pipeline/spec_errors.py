"""Errors of a spec: each one line with file, line, key, what was given and what is allowed."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from pipeline.yaml_lines import Document, Path

_LONG = 60  # characters of a given value that are shown
_PREFIXES = ("Input should be ", "String should ", "Value error, ")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at the dotted key `path`."""

    path: Path
    what: str
    expected: str | None = None
    hint: str | None = None

    def line(self, document: Document, file: str) -> str:
        """Return the problem as one line."""
        key = ".".join(str(part) for part in self.path)
        text = f"{file}:{document.line(self.path)}: {key + ': ' if key else ''}{self.what}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f"; {self.hint}"
        return " ".join(text.split())


class SpecError(UserError):
    """Everything that is wrong with a spec, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        """Keep the lines."""
        self.lines = tuple(lines)
        super().__init__(" | ".join(lines))

    def __str__(self) -> str:
        """Return one line a problem."""
        return "\n".join(self.lines)


def unknown_name(path: Path, given: str, known: Iterable[str], what: str) -> Problem:
    """Return the problem of a name that refers to nothing: `what` is what it should name."""
    names = tuple(known)
    allowed = f"one of {', '.join(names)}" if names else f"a {what}, and the spec has none"
    return Problem(path, f"no {what} is called '{given}'", allowed, _near(given, names))


def problems_of(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """Return pydantic's errors as problems, those of one place in a union as one."""
    found: dict[Path, Problem] = {}
    for details in error.errors(include_url=False, include_context=True):
        problem = _problem(details, document, model)
        before = found.get(problem.path)
        if before and before.expected and problem.expected and before.what == problem.what:
            expected = " or ".join(dict.fromkeys((before.expected, problem.expected)))
            problem = Problem(problem.path, problem.what, expected, before.hint or problem.hint)
        found[problem.path] = problem
    deeper = {path[:i] for path in found for i in range(len(path))}
    # A union's other branches complain about the whole value when one key inside is wrong.
    kept = [p for path, p in found.items() if path not in deeper or not p.what.startswith("given ")]
    return sorted(kept, key=lambda problem: document.line(problem.path))


def _problem(details: ErrorDetails, document: Document, model: type[BaseModel]) -> Problem:
    path, value = _located(details["loc"], document.value)
    kind = details["type"]
    if kind == "missing":
        path = (*path, details["loc"][-1])
        return Problem(path, "this key is missing", _described(model, path))
    if kind == "extra_forbidden" or details["loc"][-1] == "[key]":
        known = _known_keys(model, path[:-1])
        if known:
            expected = f"one of {', '.join(known)}"
            return Problem(path, "unknown key", expected, _near(str(path[-1]), known))
        return Problem(path, "not a usable name", "letters, digits, '_', '-' and '.'")
    shown = f"given {_shown(value)}"
    if kind == "literal_error":
        allowed = str(details["ctx"]["expected"])
        choices = allowed.replace(" or ", ", ").replace("'", "").split(", ")
        return Problem(path, shown, allowed, _near(str(value), choices))
    if kind == "string_pattern_mismatch":
        allowed = _choices(str(details["ctx"]["pattern"]))
        return Problem(path, shown, ", ".join(allowed), _near(str(value), allowed))
    if kind == "value_error":
        return Problem(path, details["msg"].removeprefix("Value error, "))
    return Problem(path, shown, _allowed(details["msg"]))


def _choices(pattern: str) -> tuple[str, ...]:
    """Return the alternatives of a pattern such as `^(choice|exact)$`, readable."""
    return tuple(pattern.strip("^$()").split("|"))


def _allowed(message: str) -> str:
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return message[:1].lower() + message[1:]


def _located(location: Sequence[int | str], value: Any) -> tuple[Path, Any]:
    """Return the part of a pydantic location that the file has, and the value there.

    The rest are names of union branches and models.
    """
    path: list[int | str] = []
    for part in location:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path), value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONG else text[:_LONG] + "…"


def _near(given: str, known: Iterable[str]) -> str | None:
    found = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'?" if found else None


def _known_keys(model: type[BaseModel], path: Path) -> tuple[str, ...]:
    """Return the keys that the mapping at `path` may have; () where any name is allowed."""
    known: dict[str, None] = {}
    for kind in _kinds_at(model, path):
        if _is_model(kind):
            known.update(dict.fromkeys(kind.model_fields))
        elif get_origin(kind) is dict:
            known.update(dict.fromkeys(map(str, _literals(get_args(kind)[0]))))
    return tuple(known)


def _described(model: type[BaseModel], path: Path) -> str | None:
    """Return what the missing key at `path` is for, as its model describes it."""
    for kind in _kinds_at(model, path[:-1]):
        field = kind.model_fields.get(str(path[-1])) if _is_model(kind) else None
        if field is not None and field.description:
            return field.description[:1].lower() + field.description[1:].rstrip(".")
    return None


def _kinds_at(model: type[BaseModel], path: Path) -> list[Any]:
    """Return the types that the spec's models allow at `path`."""
    kinds: list[Any] = [model]
    for part in path:
        kinds = [plain for kind in kinds for inner in _inside(kind, part) for plain in _plain(inner)]
    return kinds


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    if _is_model(kind):
        if part in kind.model_fields:
            yield kind.model_fields[str(part)].annotation
    elif get_origin(kind) in (dict, list, tuple) and get_args(kind):
        yield get_args(kind)[1 if get_origin(kind) is dict else 0]


def _plain(kind: Any) -> Iterator[Any]:
    """Yield the alternatives of a union, without annotations."""
    if get_origin(kind) is Annotated:
        yield from _plain(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for inner in get_args(kind):
            yield from _plain(inner)
    else:
        yield kind


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
