"""The one exception family: what went wrong, where, what was expected, what to do.

Everything that gapmend raises on purpose is a `GapmendError`; the command line prints it as one
line and exits with its `exit_code`. Anything else that escapes is a fault of ours (exit code 3).
"""

from __future__ import annotations


class GapmendError(Exception):
    """Base of the family: a fault of ours unless a subclass says otherwise."""

    exit_code = 3


class StoreError(GapmendError):
    """The store or the catalog is not what its manifests say."""


class AliasMovedError(StoreError):
    """An alias does not point where the caller expected: it was moved by someone else."""

    exit_code = 1


def damaged(path: object, error: BaseException) -> StoreError:
    """Return the error for a stored file that can't be read any more."""
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return StoreError(
        f"{path}: this stored file can't be read ({said}). `gapmend fsck` lists what is damaged; "
        "put the file back from a copy, or move .gapmend away and run again"
    )


class GateRefusedError(GapmendError):
    """A gate said no: nothing is broken, the measured figures do not allow the step."""

    exit_code = 1


class UserError(GapmendError):
    """A mistake in what the user gave: spec, data, arguments.

    Args:
        what: what is wrong, with the value that was given.
        where: file, line and key, as far as known.
        expected: what would have been accepted.
        fix: what to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        where: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        """Keep the parts for programs and join them to the one line for people."""
        self.what = what
        self.where = where
        self.expected = expected
        self.fix = fix
        super().__init__(self._line())

    def place(self, where: str) -> None:
        """Name the place of an error that has none."""
        if self.where is None:
            self.where = where
            self.args = (self._line(),)

    def _line(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            line += f"; expected {self.expected}"
        if self.fix:
            line += f". {self.fix[:1].upper()}{self.fix[1:]}"
        return " ".join(line.split())
