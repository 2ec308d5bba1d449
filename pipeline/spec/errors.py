"""Errors of a spec: each one line with file, line, key, what was given and what is allowed."""

from __future__ import annotations

import json
import re
import types
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from registry.errors import ErrorRecord, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from pipeline.spec.yaml_lines import Path, YamlDocument

_MISSING = "this key is missing"
_GUESS = "did you mean "
_LONG = 60  # characters of a given value that are shown
# pydantic's words -> a reader's.
_WORDS = (
    (re.compile(r"^(Input|String) should (be )?"), ""),
    (re.compile(r", (unable to parse|got a).*"), ""),
    (re.compile(r"a valid dictionary( or instance of \w+)?"), "a mapping"),
    (re.compile(r"a valid (tuple|list)"), "a list"),
    (re.compile(r"a valid string"), "a text"),
    (re.compile(r"a valid integer"), "a whole number"),
    (re.compile(r"a valid "), "a "),
    (re.compile(r"greater than or equal to"), "at least"),
    (re.compile(r"less than or equal to"), "at most"),
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at the dotted key `path`; `given` is the value, as JSON."""

    path: Path
    what: str
    expected: str | None = None
    hint: str | None = None
    given: str | None = None

    def record(self, document: YamlDocument, file: str) -> ErrorRecord:
        """Return the problem as programs read it."""
        return ErrorRecord(
            kind=SpecError.kind,
            message=" ".join(self.what.split()),
            file=file,
            line=document.line(self.path),
            key=".".join(str(part) for part in self.path) or None,
            given=self.given,
            expected=self.expected,
            fix=self.hint,
            exit_code=SpecError.exit_code,
        )


class InvalidSpecError(SpecError):
    """Everything that is wrong with a spec: one line each for people, `records` for programs."""

    def __init__(self, records: Sequence[ErrorRecord]) -> None:
        """Keep the records, at least one."""
        self.records = tuple(records)
        super().__init__(" | ".join(map(line_of, records)))

    def __str__(self) -> str:
        """Return one line a problem."""
        return "\n".join(map(line_of, self.records))

    def record(self) -> ErrorRecord:
        """Return the first problem, with the others in `more`."""
        return replace(self.records[0], more=self.records[1:])


def line_of(problem: ErrorRecord) -> str:
    """Return a problem as people read it."""
    text = f"{problem.file}:{problem.line}: {problem.key + ': ' if problem.key else ''}"
    text += problem.message
    if problem.expected:
        text += f"; expected {problem.expected}"
    if problem.fix:
        text += f"; {problem.fix}"
    return " ".join(text.split())


def unknown_name(path: Path, given: str, known: Iterable[str], what: str) -> Problem:
    """Return the problem of a name that refers to nothing: `what` is what it should name."""
    names = tuple(known)
    allowed = f"one of {', '.join(names)}" if names else f"a {what}, and the spec has none"
    said = f"no {what} is called '{given}'"
    return Problem(path, said, allowed, _near(given, names), given)


def problems_of(
    error: ValidationError, document: YamlDocument, model: type[BaseModel]
) -> list[Problem]:
    """Return pydantic's errors as problems, those of one place in a union as one."""
    found: dict[Path, Problem] = {}
    for details in error.errors(include_url=False, include_context=True):
        problem = _problem(details, document, model)
        before = found.get(problem.path)
        if before and before.expected and problem.expected and before.what == problem.what:
            expected = " or ".join(dict.fromkeys((before.expected, problem.expected)))
            problem = replace(problem, expected=expected, hint=before.hint or problem.hint)
        found[problem.path] = problem
    guesses = [(p.path, p.hint) for p in found.values() if p.hint and p.hint.startswith(_GUESS)]
    misspelt = {(*path[:-1], hint.split("'")[1]) for path, hint in guesses}
    deeper = {path[:i] for path in found for i in range(len(path))}
    # A union's other branches complain about the whole value when one key inside is wrong.
    kept = [
        p
        for path, p in found.items()
        if (path not in deeper or not p.what.startswith("given "))
        and (path not in misspelt or p.what != _MISSING)
    ]
    return sorted(kept, key=lambda problem: document.line(problem.path))


def _problem(details: ErrorDetails, document: YamlDocument, model: type[BaseModel]) -> Problem:
    path, value = _located(details["loc"], document.value)
    kind = details["type"]
    if kind in ("missing", "extra_forbidden") or details["loc"][-1] == "[key]":
        return _key_problem(details, path, model)
    if kind == "value_error":
        return Problem(path, details["msg"].removeprefix("Value error, "), given=_shown(value))
    if kind == "string_type" and path in document.written:
        written = document.written[path]
        return Problem(path, f"given {written}", "a text", f'quote it: "{written}"', written)
    given = _shown(value)
    shown = f"given {given}"
    choices = _choices(details)
    if choices:
        return Problem(path, shown, ", ".join(choices), _near(str(value), choices), given)
    if kind == "string_pattern_mismatch":
        return Problem(path, shown, _described(model, path), given=given)
    return Problem(path, shown, _allowed(details["msg"]), given=given)


def _key_problem(details: ErrorDetails, path: Path, model: type[BaseModel]) -> Problem:
    """Return the problem of a key that is missing, unknown, or no name."""
    if details["type"] == "missing":
        path = (*path, details["loc"][-1])
        return Problem(path, _MISSING, _described(model, path))
    known = _known_keys(model, path[:-1])
    if known:
        expected = f"one of {', '.join(known)}"
        return Problem(path, "unknown key", expected, _near(str(path[-1]), known), str(path[-1]))
    expected = "letters, digits, '_', '-' and '.'"
    return Problem(path, "not a usable name", expected, given=str(path[-1]))


def _choices(details: ErrorDetails) -> tuple[str, ...]:
    """Return the words that are allowed, of a literal or of a pattern such as `^(a|b)$`."""
    if details["type"] == "literal_error":
        return tuple(re.findall(r"'([^']*)'", str(details["ctx"]["expected"])))
    if details["type"] != "string_pattern_mismatch":
        return ()
    readable = str(details["ctx"]["pattern"]).replace(r"[\w.]+:\w+", "module:function")
    words = tuple(readable.strip("^$()").split("|"))
    return words if len(words) > 1 else ()


def _allowed(message: str) -> str:
    for words, plainer in _WORDS:
        message = words.sub(plainer, message)
    return message[:1].lower() + message[1:]


def _located(location: Sequence[int | str], value: Any) -> tuple[Path, Any]:
    """Return the part of a pydantic location that the file has, and the value there.

    The rest are names of union branches and models.
    """
    path: list[int | str] = []
    for part in location:
        known = isinstance(value, dict) and part in value
        if known or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
            path.append(part)
    return tuple(path), value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONG else text[:_LONG] + "…"


def _near(given: str, known: Iterable[str]) -> str | None:
    found = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"{_GUESS}'{found[0]}'?" if found else None


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
    """Return what the key at `path` is for: the first phrase of its model's description."""
    for kind in _kinds_at(model, path[:-1]):
        field = kind.model_fields.get(str(path[-1])) if _is_model(kind) else None
        if field is not None and field.description:
            phrase = re.split(r"[;:]|\. ", field.description.rstrip("."))[0]
            return phrase[:1].lower() + phrase[1:]
    return None


def _kinds_at(model: type[BaseModel], path: Path) -> list[Any]:
    """Return the types that the spec's models allow at `path`."""
    kinds: list[Any] = [model]
    for part in path:
        kinds = [
            plain for kind in kinds for inner in _inside(kind, part) for plain in _plain(inner)
        ]
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
