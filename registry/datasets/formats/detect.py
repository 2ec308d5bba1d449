"""Detection of a file's format from its first readable record, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.turns import SHAREGPT, Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.datasets.formats.format import FormatName


@dataclass(frozen=True)
class DetectedFormat:
    """A format that fits, and what of it is not as usual.

    Attributes:
        name: the format.
        why: what it was recognised by, for people.
        columns: columns that hold its parts under other names.
        dialect: how its turns are written, where it isn't the format's usual way.
    """

    name: FormatName
    why: str
    columns: Mapping[str, str] = field(default_factory=dict)
    dialect: Dialect | None = None


def detect(record: Mapping[str, Any], columns: Mapping[str, str]) -> DetectedFormat | None:
    """Return the format that a first record looks like; None when it looks like none.

    Args:
        record: the record.
        columns: part -> column, as the spec maps them; what it maps decides first.
    """
    if columns:
        found = _look(_Seen(record, columns, frozenset(columns)), "the spec maps")
        if found is not None:
            return found
    everything = frozenset(columns) | frozenset(record)
    return _look(_Seen(record, columns, everything), "its first record has")


def why_not(record: Mapping[str, Any]) -> str:
    """Say why a record that no format fits is none, and what to do about it."""
    keys = set(record)
    if {"completions", "labels"} <= keys:
        return "its steps are judged one by one (TRL's stepwise form), which is not trained here"
    if "instruction" in keys and keys & {"chosen", "label"}:
        return (
            "alpaca's pairs and verdicts are read through a dataset_info.json: format: "
            "llamafactory, with ranking: true or kto_tag in the entry"
        )
    if "prompt" in keys:
        return (
            "prompts without an answer (TRL's prompt-only form) can't be trained on: name the "
            "column with the answer, as in columns: {prompt: prompt, completion: answer}"
        )
    return "name its format, or map its columns, as {input: question, output: answer}"


@dataclass(frozen=True)
class _Seen:
    """A record with the names that count as its parts: mapped ones, or its columns too."""

    record: Mapping[str, Any]
    columns: Mapping[str, str]
    names: frozenset[str]

    def has(self, *parts: str) -> bool:
        return self.names.issuperset(parts)

    def value(self, part: str) -> Any:
        return self.record.get(self.columns.get(part, part))

    @property
    def is_judged(self) -> bool:
        """Whether there is a verdict: mapped as one, or a column `label` of true and false."""
        if "label" in self.columns:
            return True
        said = self.value("label")
        return isinstance(said, bool) or (
            isinstance(said, str) and said.strip().lower() in ("true", "false")
        )


def _look(seen: _Seen, by: str) -> DetectedFormat | None:
    for parts, rule in _RULES:
        if seen.has(*parts):
            found = rule(seen, f"{by} {_listed(parts)}")
            if found is not None:
                return found
    if seen.names == {"text"} or set(seen.record) == {"text"}:
        return DetectedFormat("text", f"{by} text alone")
    return None


def _listed(parts: tuple[str, ...]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _preference(seen: _Seen, why: str) -> DetectedFormat | None:
    """Return preference pairs; a conversation beside two answers is their question."""
    if "instruction" in seen.record and "prompt" not in seen.columns:
        return None  # alpaca's question has two parts
    columns: dict[str, str] = {}
    if not seen.has("prompt"):
        named = [name for name in ("conversations", "messages") if name in seen.record]
        columns = {"prompt": named[0]} if named else {}
    return DetectedFormat("preference", why, columns, _dialect(seen.value("chosen")))


def _judged(part: str) -> Callable[[_Seen, str], DetectedFormat | None]:
    """Return the rule for answers with a verdict, whose turns are in `part`."""

    def rule(seen: _Seen, why: str) -> DetectedFormat | None:
        columns = {"messages": part} if part == "conversations" else {}
        dialect = _dialect(seen.value(part))
        return DetectedFormat("feedback", why, columns, dialect) if seen.is_judged else None

    return rule


def _conversations(seen: _Seen, why: str) -> DetectedFormat:
    return _turns(seen, "conversations", why)


def _messages(seen: _Seen, why: str) -> DetectedFormat:
    return _turns(seen, "messages", why)


def _turns(seen: _Seen, column: str, why: str) -> DetectedFormat:
    """Return conversations: by the keys of the first turn, whatever the column is called."""
    first = _first_turn(seen.value(column))
    is_sharegpt = {"from", "value"} <= first.keys() if first else column == "conversations"
    usual = "conversations" if is_sharegpt else "messages"
    columns = {} if column in seen.columns or column == usual else {"messages": column}
    keys = f", whose turns have {', '.join(list(first)[:2])}" if first else ""
    return DetectedFormat("sharegpt" if is_sharegpt else "messages", why + keys, columns)


def _alpaca(seen: _Seen, why: str) -> DetectedFormat | None:
    special = seen.has("chosen") or (seen.has("label") and seen.is_judged)
    return None if special else DetectedFormat("alpaca", why)


def _completion(seen: _Seen, why: str) -> DetectedFormat:
    return DetectedFormat("prompt_completion", why, dialect=_dialect(seen.value("prompt")))


def _columns(_: _Seen, why: str) -> DetectedFormat:
    return DetectedFormat("columns", why)


def _dialect(value: object) -> Dialect | None:
    first = _first_turn(value)
    return SHAREGPT if {"from", "value"} <= first.keys() else None


def _first_turn(value: object) -> dict[str, Any]:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


_RULES: tuple[tuple[tuple[str, ...], Callable[[_Seen, str], DetectedFormat | None]], ...] = (
    (("chosen", "rejected"), _preference),
    (("messages", "label"), _judged("messages")),
    (("conversations", "label"), _judged("conversations")),
    (("prompt", "completion", "label"), _judged("prompt")),
    (("conversations",), _conversations),
    (("messages",), _messages),
    (("instruction", "output"), _alpaca),
    (("prompt", "completion"), _completion),
    (("input", "output"), _columns),
)
