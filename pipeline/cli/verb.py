"""What every verb of the command line shares: options, the answer, exit codes.

0 done; 1 a gate said no; 2 the user's mistake; 3 a fault of ours. Mistakes are one line on
stderr (and one JSON object on stdout with `--json`), never a traceback; a fault's traceback goes
to a file that the line names.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields, is_dataclass
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import signals
from pipeline.workspace.inert import inert
from registry.errors import ErrorRecord, GapmendError, MachineError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from pipeline.api.workspace import Workspace
    from pipeline.workspace.ui import Ui

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-C", help="The workspace's folder.", show_default=".")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with one JSON value on stdout.")]

HERE = Path()


@dataclass(frozen=True)
class Answer:
    """A verb's answer: `data` for programs, `shown` for people, `code` for the shell.

    Dataclasses in `data` are written by their fields, or as their `as_json()` says. `is_written`:
    the verb has written its values itself, a line each.
    """

    data: Any
    shown: Sequence[RenderableType] = field(default_factory=tuple)
    code: int = 0
    is_written: bool = False


def answer(work: Callable[[Ui], Answer], *, as_json: bool, state: Path | None = None) -> None:
    """Run a verb's work, print its answer and leave with its exit code.

    Args:
        work: does it; what it raises decides the exit code.
        as_json: print `data` as one JSON value instead of what is for people.
        state: the folder where a fault's traceback may be kept.
    """
    try:
        from pipeline.workspace.ui import Ui

        ui = Ui(as_json=as_json)
        # What a user's own scorer or task prints must not get into the answer.
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            given = work(ui)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - what isn't known is a fault
        _refuse(*_refusal(error, state), as_json=as_json)
    else:
        if as_json and not given.is_written:
            sys.stdout.write(json_line(given.data) + "\n")
        for renderable in given.shown:
            ui.show(renderable)
        raise typer.Exit(given.code)


def in_workspace(
    root: Path, work: Callable[[Workspace], Answer], *, as_json: bool, together: bool = False
) -> None:
    """Open the workspace `root`, run `work` on it and answer.

    `together`: the verb knows what to do when a launcher has started it in several processes.
    """
    from pipeline.outlook.finding import with_lines

    def alone(ws: Workspace) -> Answer:
        if not together and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "this verb runs in one process, and a launcher has started several",
                expected="gapmend train, for several; everything else without a launcher",
            )
        with with_lines(root):
            return work(ws)

    in_store(root, alone, as_json=as_json)


def in_store(root: Path, work: Callable[[Workspace], Answer], *, as_json: bool) -> None:
    """Open the workspace `root` for `work` that needs no spec, run it and answer."""
    from pipeline.api.workspace import Workspace
    from registry.store.filenames import STATE

    answer(lambda ui: work(Workspace.open(root, ui=ui)), as_json=as_json, state=root / STATE)


def run_app(app: typer.Typer) -> None:
    """Run the command line; a mistake in how it was called is one line of JSON with `--json`."""
    as_json = "--json" in sys.argv[1:]
    told = logging.StreamHandler()
    told.setFormatter(_InertFormatter())
    logging.getLogger("gapmend").addHandler(told)
    try:
        with signals.caught():
            code = _called(app, as_json=as_json)
    finally:
        logging.getLogger("gapmend").removeHandler(told)
    sys.exit(code)


def whole_sentences(app: typer.Typer) -> None:
    """Have the help of a group list each verb's first sentence whole; it cuts at 45 characters."""
    for verb in app.registered_commands:
        first = (getdoc(verb.callback) or "").partition("\n\n")[0]
        verb.short_help = " ".join(first.split())


class _InertFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return inert(super().format(record))


def _called(app: typer.Typer, *, as_json: bool) -> int:
    """Call typer's program; return its exit code."""
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - typer's classes are private
        if not isinstance(error, KeyboardInterrupt) and not signals.has_come():
            return _wrong_call(error, as_json=as_json)
        code = None
    if signals.has_come() and not signals.is_told():  # it came before or after a verb's work
        record = signals.record()
        _write(record.message, record, as_json=as_json)
        return record.exit_code
    return code if isinstance(code, int) else 0


def _wrong_call(error: Exception, *, as_json: bool) -> int:
    if not hasattr(error, "format_message"):
        raise error
    said = str(error.format_message())
    if as_json:
        line = " ".join(said.split())
        record = UserError(line).record()
        _write(line, record, as_json=True)
        return record.exit_code
    from typer.rich_utils import rich_format_error

    vars(error)["format_message"] = lambda: inert(said)
    rich_format_error(error)  # type: ignore[arg-type]
    return int(getattr(error, "exit_code", 2))


def json_line(value: Any) -> str:
    """Return one line of JSON; NaN and the infinities, which JSON lacks, are null."""
    try:
        return inert(json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False))
    except ValueError:
        return inert(json.dumps(_finite(value), ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    """Return a dataclass as the values of its fields, or by its own `as_json`; the rest as text."""
    if not is_dataclass(value) or isinstance(value, type):
        return str(value)
    shaped: Callable[[], Any] | None = getattr(value, "as_json", None)
    if shaped is not None:
        return shaped()
    return {part.name: getattr(value, part.name) for part in fields(value)}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if is_dataclass(value):
        return _finite(_plain(value))
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _refusal(error: BaseException, state: Path | None) -> tuple[str, ErrorRecord]:
    """Return what is said of an error, for people and for programs."""
    if isinstance(error, KeyboardInterrupt) or signals.has_come():
        record = signals.record()
        return record.message, record
    if isinstance(error, OSError):
        error = _of_machine(error)
    if isinstance(error, GapmendError):
        return str(error), error.record()
    line = _fault_line(error, state)
    return line, GapmendError(line).record()


def _refuse(line: str, record: ErrorRecord, *, as_json: bool) -> None:
    _write(line, record, as_json=as_json)
    raise typer.Exit(record.exit_code)


def _write(line: str, record: ErrorRecord, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_line(record) + "\n")
    sys.stderr.write(inert(f"gapmend: {line}\n"))


def _of_machine(error: OSError) -> MachineError:
    """Say in one line what the machine refused: a full disk, a missing permission."""
    from registry.store.disk import FULL, is_disk_full

    again = "nothing acknowledged is lost; mend it and call again"
    what, fix = (FULL, None) if is_disk_full(error) else (error.strerror or str(error), again)
    where = None if error.filename is None else str(error.filename)
    return MachineError(what, where, fix=fix)


def _fault_line(error: BaseException, state: Path | None) -> str:
    text = "".join(traceback.format_exception(error))
    said = next(iter(str(error).splitlines()), "")
    line = f"a fault of ours: {type(error).__name__}: {said}"
    if state is None or not state.is_dir():
        sys.stderr.write(inert(text))
        return line
    log = state / "fault.log"
    try:
        log.write_text(text, encoding="utf-8")
    except OSError:  # a full or read-only disk
        sys.stderr.write(inert(text))
        return line
    return f"{line} (traceback in {log}; please report it)"
