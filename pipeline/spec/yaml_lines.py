"""YAML with the line of every key, so that an error can name its place.

Only plain YAML is read (`safe_load`'s tags); a key that occurs twice is an error, because YAML
would silently keep the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from registry.errors import SpecError

_MOST_KEYS = 50_000  # aliases of aliases can make billions of a few lines
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_NOTHING = "tag:yaml.org,2002:null"

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlDocument:
    """A parsed file.

    Attributes:
        value: what it says.
        lines: the line (from 1) of each key and list element.
        written: how the values stand in the file that YAML reads as no text: 0123456 is 42798.
    """

    value: Any
    lines: dict[Path, int]
    written: dict[Path, str] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest key above it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass(frozen=True)
class RepeatedKey:
    """A key that occurs twice: at `line` again, first at `first`."""

    path: Path
    line: int
    first: int


class _TextLoader(yaml.SafeLoader):
    """Keys are texts as written: YAML 1.1 would read `on` as true and `1` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - yaml's signature
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                key.tag = _TEXT
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> tuple[YamlDocument, tuple[RepeatedKey, ...]]:
    """Parse one YAML document; `where` names the file in errors.

    Raises:
        UserError: not YAML, or more than plain data.
    """
    document = YamlDocument(None, {})
    repeated: list[RepeatedKey] = []
    try:
        loader = _TextLoader(text)
    except yaml.YAMLError as error:  # a control character
        raise SpecError(f"not YAML: {' '.join(str(error).split())}", where=where) from error
    try:
        root = loader.get_single_node()
        if root is not None:
            _walk(root, (), document, repeated)
        value = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        raise SpecError(f"not YAML: {error.problem or error.context}", where=at) from error
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {error}", where=where) from error
    except (ValueError, RecursionError, TypeError) as error:
        raise SpecError(f"not YAML: {error}", where=where) from error
    finally:
        loader.dispose()
    return replace(document, value=value), tuple(repeated)


def _walk(node: yaml.Node, path: Path, document: YamlDocument, repeated: list[RepeatedKey]) -> None:
    lines = document.lines
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > _MOST_KEYS:
        message = f"more than {_MOST_KEYS} keys"
        raise ValueError(message)
    if isinstance(node, yaml.ScalarNode) and node.tag not in (_TEXT, _NOTHING):
        document.written[path] = str(node.value)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*path, index), document, repeated)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            if key.tag == _MERGE:
                continue
            name, line = str(key.value), key.start_mark.line + 1
            here = (*path, name)
            if name in seen:
                repeated.append(RepeatedKey(here, line, seen[name]))
            seen.setdefault(name, line)
            lines[here] = line
            _walk(child, here, document, repeated)
