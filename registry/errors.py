"""The one exception family: a branch for each cause, and one line for people.

Everything that gapmend raises on purpose is a `GapmendError`. Its `kind` is the cause, its
`exit_code` what the command line leaves with, and `record()` the same for programs. Anything else
that escapes is a fault of ours (exit code 3).
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC_FILE = "gapmend.yaml"

_FILE_AND_LINE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?:: (?P<key>.+)|(?P<more> .*))?")
_FILE_AND_KEY = re.compile(r"(?P<file>.*[/.].*?): (?P<key>[\w.-]+)")
_SECTIONS = "bases|datasets|capabilities|guards|train|mend|merge|evals|hub"
_KEY = re.compile(rf"(?:{_SECTIONS})(?:\.[\w.-]+)?")
_OPTION = re.compile(r"--[a-z][\w-]*")


@dataclass(frozen=True)
class Place:
    """Where something is wrong, as far as it is known.

    Attributes:
        file: a file or folder, or a repository on the Hub.
        line: counted from 1.
        key: a dotted key of the spec, or an option of the command line.
    """

    file: str | None = None
    line: int | None = None
    key: str | None = None


def place_of(where: str | None) -> Place:
    """Return what `where` names: FILE, FILE:LINE, FILE:LINE: KEY, FILE: KEY, KEY or --option."""
    if not where:
        return Place()
    if found := _FILE_AND_LINE.fullmatch(where):
        return Place(found["file"], int(found["line"]), found["key"])
    if found := _FILE_AND_KEY.fullmatch(where):
        return Place(found["file"], key=found["key"])
    if _OPTION.match(where):
        return Place(key=where)
    return Place(SPEC_FILE, key=where) if _KEY.fullmatch(where) else Place(where)


@dataclass(frozen=True)
class ErrorRecord:
    """An error as programs read it: the answer of every command with `--json` that fails.

    Attributes:
        kind: the cause: usage, spec, data, model, hub, store, machine, gate, stopped or fault.
        message: what is wrong.
        file: where, as far as it is known; so are `line` and `key`.
        line: counted from 1.
        key: a dotted key of the spec, or an option.
        given: the value that was given.
        expected: what would have been accepted.
        fix: what to do about it.
        exit_code: of the command.
        more: the other problems, where one call found several.
    """

    kind: str
    message: str
    file: str | None = None
    line: int | None = None
    key: str | None = None
    given: str | None = None
    expected: str | None = None
    fix: str | None = None
    exit_code: int = 3
    more: tuple[ErrorRecord, ...] = ()


class GapmendError(Exception):
    """Base of the family: a fault of ours unless a subclass says otherwise."""

    kind: ClassVar[str] = "fault"
    exit_code: ClassVar[int] = 3

    def record(self) -> ErrorRecord:
        """Return the error as programs read it."""
        return ErrorRecord(self.kind, str(self), exit_code=self.exit_code)


class StoreError(GapmendError):
    """The store or the catalog is not what its manifests say."""

    kind = "store"


class AliasMovedError(StoreError):
    """An alias does not point where the caller expected: it was moved by someone else."""

    exit_code = 1


def damaged(path: object, error: BaseException) -> GapmendError:
    """Return the error for a stored file that can't be read any more, or not by us, or not now."""
    said = next(iter(str(error).splitlines()), type(error).__name__)
    if why := _of_machine(error):
        return MachineError(why, str(path), fix="mend that and call again: the store is whole")
    return StoreError(
        f"{path}: this stored file can't be read ({said}). `gapmend fsck` lists what is damaged; "
        "put the file back from a copy, or move .gapmend away and run again"
    )


_MACHINES = {
    errno.EACCES: "this file may not be read by us (permission denied)",
    errno.EPERM: "this file may not be read by us (permission denied)",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOMEM: "there is not enough memory to read this file",
    errno.ENOSPC: "the disk is too full to read this file, which takes temporary files",
    errno.EDQUOT: "the disk is too full to read this file, which takes temporary files",
}
# Other libraries raise their own types: the text of the system is in theirs.
_WORDS = {os.strerror(number).lower(): said for number, said in _MACHINES.items()}


def _of_machine(error: BaseException) -> str | None:
    """Return what this machine refuses, where a file that can't be read may be in order."""
    if isinstance(error, MemoryError):
        return _MACHINES[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno in _MACHINES:
        return _MACHINES[error.errno]
    text = str(error).lower()
    return next((said for words, said in _WORDS.items() if words in text), None)


class GateRefusedError(GapmendError):
    """A gate said no: nothing is broken, the measured figures do not allow the step."""

    kind = "gate"
    exit_code = 1


class UserError(GapmendError):
    """A mistake in what the user gave; itself one in the call, else a subclass for each cause.

    Args:
        what: what is wrong, with the value that was given.
        where: the place, in one of the forms that `place_of` reads.
        expected: what would have been accepted.
        fix: what to do about it.
        given: the value alone, for programs.
    """

    kind = "usage"
    exit_code = 2

    def __init__(
        self,
        what: str,
        where: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
        given: str | None = None,
    ) -> None:
        """Keep the parts for programs and join them to the one line for people."""
        self.what = what
        self.where = where
        self.expected = expected
        self.fix = fix
        self.given = given
        super().__init__(self._line())

    def place(self, where: str) -> None:
        """Name the place of an error that has none."""
        if self.where is None:
            self.where = where
            self.args = (self._line(),)

    def find(self, line_of: Callable[[str], int]) -> None:
        """Name the line of an error that names a key of the spec alone, by `line_of(key)`."""
        place = place_of(self.where)
        if place.file == SPEC_FILE and place.key is not None and place.line is None:
            self.where = f"{SPEC_FILE}:{line_of(place.key)}: {place.key}"
            self.args = (self._line(),)

    def record(self) -> ErrorRecord:
        """Return the error as programs read it, its place in parts."""
        place = place_of(self.where)
        return ErrorRecord(
            kind=self.kind,
            message=" ".join(self.what.split()),
            file=place.file,
            line=place.line,
            key=place.key,
            given=self.given,
            expected=self.expected,
            fix=self.fix,
            exit_code=self.exit_code,
        )

    def _line(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            line += f"; expected {self.expected}"
        if self.fix:
            line += f". {self.fix[:1].upper()}{self.fix[1:]}"
        return " ".join(line.split())


class SpecError(UserError):
    """What gapmend.yaml, or a file that it names beside data and models, says can't be."""

    kind = "spec"


class DataError(UserError):
    """A dataset's files or rows can't be used."""

    kind = "data"


class ModelError(UserError):
    """A base, an adapter, a tokenizer or a chat template can't be used, or not for this."""

    kind = "model"


class HubError(UserError):
    """The Hugging Face Hub isn't reached or refuses, or a thing may not be pushed there."""

    kind = "hub"


class StoreRequestError(UserError):
    """What was asked of the store isn't there, isn't of that kind, or another process holds it."""

    kind = "store"


class MachineError(UserError):
    """This machine lacks what is needed: memory, disk, an installed package."""

    kind = "machine"
