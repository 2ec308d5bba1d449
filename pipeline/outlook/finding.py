"""A finding: what won't do, before any model is asked, at its key of gapmend.yaml."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spec.errors import InvalidSpecError, Problem
from pipeline.spec.yaml_lines import parse
from registry.errors import SPEC_FILE, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path as Folder

    from pipeline.spec.yaml_lines import Path
    from registry.errors import ErrorRecord


@dataclass(frozen=True)
class Finding:
    """What won't do.

    Attributes:
        path: its key in the spec.
        what: it.
        expected: what would do.
        fix: what to do about it.
        stops: a run would stop at it; else it goes on, to less than is wanted.
    """

    path: Path
    what: str
    expected: str | None = None
    fix: str | None = None
    stops: bool = False


@contextmanager
def with_lines(root: Folder) -> Iterator[None]:
    """Name the line of gapmend.yaml in every error that names a key of it."""

    def line_of(key: str) -> int:
        document, _ = parse((root / SPEC_FILE).read_text("utf-8"), SPEC_FILE)
        return document.line(tuple(key.split(".")))

    try:
        yield
    except UserError as error:
        error.find(line_of)
        raise


def placed(root: Folder, found: Sequence[Finding]) -> tuple[ErrorRecord, ...]:
    """Return findings with their lines in gapmend.yaml.

    Raises:
        InvalidSpecError: some of them would stop a run; all of these.
    """
    if not found:
        return ()
    document, _ = parse((root / SPEC_FILE).read_text("utf-8"), SPEC_FILE)

    def record(one: Finding) -> ErrorRecord:
        return Problem(one.path, one.what, one.expected, one.fix).record(document, SPEC_FILE)

    if stopping := [record(one) for one in found if one.stops]:
        raise InvalidSpecError(stopping)
    return tuple(map(record, found))
