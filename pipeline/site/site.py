"""What every view is given: the workspace, who may ask, and what was asked."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.site.talks.talks import Talks
from pipeline.workspace.store import WorkspaceStore
from registry.catalog.resident import ResidentCatalog
from registry.errors import MachineError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.site.guard import Access

_T = TypeVar("_T")
_WAIT_S = 3.0  # who looks at a page doesn't wait for half a minute
_PATIENT_S = 10.0  # who asks for what takes long waits for others who do
_REMEMBERED = 64


@dataclass(frozen=True)
class Site:
    """A workspace that is looked at.

    Attributes:
        ws: what it keeps.
        catalog: the same as its catalog: a copy in memory, made anew when something is committed.
        access: who may ask.
        talks: the talks that pages have open.
        questions: keeps what may take long to two at a time; see `question`.
    """

    ws: WorkspaceStore
    catalog: ResidentCatalog
    access: Access
    talks: Talks = field(repr=False)
    questions: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(2), repr=False)
    _known: OrderedDict[object, Any] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def of(cls, root: Path, access: Access) -> Site:
        """Open the workspace in a folder.

        Raises:
            UserError: `root` is no workspace.
        """
        ws = WorkspaceStore.open(root)
        catalog = ResidentCatalog(ws.state, wait_s=_WAIT_S)
        return cls(replace(ws, catalog=catalog), catalog, access, Talks(ws.root, catalog))

    def fault(self, error: Exception) -> str:
        """Keep the traceback of a fault of ours in a file; return the line that names it."""
        line = f"a fault of ours: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        log = self.ws.state / "fault.log"
        try:
            log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:  # a full or read-only disk
            return line
        return f"{line} (traceback in {log}; please report it)"

    def once(self, key: object, made: Callable[[], _T], *, of: object = None) -> _T:
        """Return what was made under this key, or make it.

        Who asks for it meanwhile waits, instead of making it as well.

        Args:
            key: what it is.
            made: makes it.
            of: what it depends on; by default on all that is committed.
        """
        whole = (key, self.catalog.stamp() if of is None else of)
        with self._lock:
            found: Future[_T] | None = self._known.get(whole)
            begins = found is None
            if found is None:
                found = self._known[whole] = Future()
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            self._known.move_to_end(whole)
        if begins:
            try:
                found.set_result(made())
            except BaseException as error:  # noqa: BLE001 - it is raised below, for all who wait
                with self._lock:
                    self._known.pop(whole, None)
                found.set_exception(error)
        return found.result()

    @contextmanager
    def question(self) -> Iterator[None]:
        """Keep what reads much to two at a time; others wait for a while.

        Raises:
            MachineError: two others are still being answered.
        """
        if not self.questions.acquire(timeout=_PATIENT_S):
            raise MachineError(
                "two other questions are being answered", fix="ask again when they are"
            )
        try:
            yield
        finally:
            self.questions.release()


@dataclass(frozen=True)
class Asked:
    """What a browser asked for.

    Attributes:
        path: the parts of the address that a view names.
        query: what stands behind its question mark, each name with all its values.
        form: what a form sent; None where none was.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: Mapping[str, str] | None = None

    def one(self, name: str, default: str = "") -> str:
        """Return the last value of a name."""
        return (self.query.get(name) or [default])[-1]

    def choice(self, name: str, among: Sequence[str]) -> str:
        """Return the value of a name, by default the first of those that it may have.

        Raises:
            UserError: it is another.
        """
        found = self.one(name) or among[0]
        if found not in among:
            raise UserError(f"no {name} '{found}'", expected=", ".join(filter(None, among)))
        return found

    def number(self, name: str, default: int) -> int:
        """Return a whole number from 0, of at most nine digits.

        Raises:
            UserError: it is something else.
        """
        found = self.one(name) or str(default)
        if not (found.isascii() and found.isdecimal() and len(found) <= 9):  # noqa: PLR2004
            raise UserError(f"'{found}' is no {name}", expected="a whole number")
        return int(found)
