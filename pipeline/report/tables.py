"""Tables for the answers that are not a stage's: SQL, status, lineage, check, plan, fsck."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipeline.spec.errors import line_of
from pipeline.workspace.amounts import counted, in_bytes
from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from pipeline.verbs.check import CheckReport
    from registry.catalog.catalog import QueryResult
    from registry.upkeep.fsck import FsckReport

_THOUSAND = 1000
_SMALL = 0.01
_LONG = 60  # characters of a cell, before it is cut in a table (csv and json never cut)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a plain table; a column whose cells are all numbers is aligned to the right."""
    cells = [[*row] for row in rows]
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for position, name in enumerate(columns):
        numeric = cells and all(
            isinstance(row[position], (int, float)) or row[position] is None for row in cells
        )
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        made.add_row(*(_cell(value) for value in row))
    return made


def records(result: QueryResult) -> list[dict[str, Any]]:
    """Return an SQL answer as one dict a row."""
    names: list[str] = []
    for name in result.columns:  # two columns of one name: the second is name_1, as in DuckDB
        same = sum(one == name or one.startswith(f"{name}_") for one in names)
        names.append(f"{name}_{same}" if name in names else name)
    return [dict(zip(names, row, strict=True)) for row in result.rows]


def as_csv(result: QueryResult) -> Text:
    """Return an SQL answer as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(result.rows)
    return Text(out.getvalue().rstrip("\n"), no_wrap=True, overflow="ignore")


def query_table(result: QueryResult, title: str = "") -> Table:
    """Return an SQL answer as a table."""
    return table(title, result.columns, result.rows)


def status_tables(report: Mapping[str, list[dict[str, Any]]]) -> list[RenderableType]:
    """Return what runs, a line each, and what is there, a table a subject; one line if empty."""
    lines: list[RenderableType] = [Text(running_line(one)) for one in report["running"]]
    lines = lines or [Text("running: nothing")]
    for name, found in report.items():
        if name == "running":
            continue
        shown = [{key: value for key, value in row.items() if key != "error"} for row in found]
        lines.append(
            table(name, list(shown[0]), [list(row.values()) for row in shown])
            if shown
            else Text(f"{name}: none yet")
        )
    failed = [row for row in report["runs"] if row.get("error")]
    return lines + [
        Text(f"{row['stage']} of {row['started_at']} failed: {' '.join(str(row['error']).split())}")
        for row in failed
    ]


def running_line(one: Mapping[str, Any]) -> str:
    """Return a stage that has begun and not ended in one line, from what `status` says of it."""
    name = f"{one['stage']} {one['about']}" if one["about"] else one["stage"]
    parts = [one["doing"]] if one["doing"] not in (None, name) else []
    training, left = one["training"], one["seconds_left"]
    if training:
        parts.append(f"step {training['step']:,} of {training['steps']:,}")
        parts.append(f"loss {training['loss']:.3f}")
    elif one["done"] or one["total"]:
        parts.append(counted(one["done"], one["total"], one["unit"]))
    if one["state"] == "running":
        if training:
            parts.append(f"{training['tokens_per_second']:,.0f} tokens/s")
            left = training["seconds_left"]
        parts.append("time left not known" if left is None else f"about {in_time(left)} left")
    elif training and training["checkpoint"]:
        parts.append(f"last checkpoint at step {training['checkpoint']:,}")
    when = _begun(one) if one["since"] else ""
    said = "; ".join(part for part in (", ".join(parts), one["why"]) if part)
    return f"{name} · {one['state']}{when}: {said}"


def _begun(one: Mapping[str, Any]) -> str:
    """Return when a stage began and in which process."""
    since = datetime.fromisoformat(one["since"])
    at = f"{since:%Y-%m-%d %H:%M:%S} UTC, process {one['pid']}"
    if one["state"] != "running":
        return f", begun {at}"
    return f" for {in_time((datetime.now(UTC) - since).total_seconds())}, since {at}"


def check_tables(report: CheckReport) -> list[RenderableType]:
    """Return each base's weights at each precision beside what the machine has."""
    machine = report.machine
    sizes = [
        (
            base.identity.name,
            base.identity.architecture,
            f"{base.sizes.parameters:,}",
            *(in_bytes(getattr(base.sizes, kind)) for kind in ("fp32", "fp16", "int8", "int4")),
            base.identity.context,
        )
        for base in report.bases
    ]
    columns = ("base", "architecture", "parameters", "fp32", "fp16/bf16", "int8", "int4", "context")
    has = (
        f"This machine: {in_bytes(machine.ram_free)} of {in_bytes(machine.ram_total)} memory free, "
        f"{in_bytes(machine.disk_free)} disk free, {machine.cores} cores, "
        + (f"{machine.gpu} with {in_bytes(machine.gpu_total)}" if machine.gpu else "no GPU")
    )
    datasets = [(name, len(files), ", ".join(files)) for name, files in report.files.items()]
    return [
        table("weights by precision", columns, sizes),
        Text(has),
        Text("bf16 has fp16's size and a wider range, not more precision."),
        table("datasets", ("dataset", "files", "where"), datasets),
        *(Text(note, "yellow") for note in report.notes),
        *(Text(line_of(one), "yellow") for one in report.findings),
        Text(
            f"The spec is valid: {len(report.capabilities)} capabilities, "
            f"{len(report.guards)} guards."
        ),
    ]


def fsck_tables(report: FsckReport) -> list[RenderableType]:
    """Return what fsck found; one line when nothing is wrong."""
    line = f"{report.objects} objects, {in_bytes(report.bytes)} hashed again"
    if not report.findings:
        return [Text(f"{line}: all as recorded")]
    found = [(one.problem, one.path, one.detail) for one in report.findings]
    return [Text(line), table("findings", ("problem", "where", "detail"), found)]


def _number(value: float) -> str:
    """Return a number in three decimals, or three digits where these would leave little of it."""
    if abs(value) >= _THOUSAND:
        return f"{value:,.0f}"
    if 0 < abs(value) < _SMALL:
        return f"{value:.3g}"
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(_number(value))
    text = str(value)
    return Text(text if len(text) <= _LONG else text[: _LONG - 1] + "…")
