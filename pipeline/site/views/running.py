"""What runs now: how far it is, its curve, and what was killed on its way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.pages.charts.training import drawn_curves
from pipeline.site.charts import drawn, shown
from pipeline.site.render import Shown, page, template
from pipeline.workspace.amounts import counted
from pipeline.workspace.durations import in_time
from pipeline.workspace.running import running as begun
from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.responses import Response

    from pipeline.pages.charts import Picture
    from pipeline.site.site import Asked, Site
    from pipeline.workspace.running import Running

_METRICS = "metrics.jsonl"
_FOLDER = re.compile(r"[a-z]+-[0-9a-f]{16}")
_KINDS = {"running": "good", "stopped": "bad"}
_FIGURES = ("loss", "validation_loss", "learning_rate")


@dataclass(frozen=True)
class Stage:
    """A stage that has begun and not ended, as it is shown."""

    title: str
    state: str
    kind: str
    line: str
    done: int | None
    total: int | None
    pictures: list[Shown]


def running(site: Site, asked: Asked) -> bytes:
    """Show what runs; a script brings it up to date, and without scripts the page comes again."""
    del asked
    return page(site, "running", "Running", here="/running", stages=stages(site, charts=True))


def fragment(site: Site, asked: Asked) -> bytes:
    """Show the same without the page around it."""
    del asked
    return template("now", stages=stages(site, charts=True))


def chart(site: Site, asked: Asked) -> Response:
    """Draw a curve of a training that runs, or was killed."""
    folder = asked.path["folder"]
    if not _FOLDER.fullmatch(folder):
        raise StoreRequestError(f"no stage has the folder '{folder[:80]}'")
    path = site.ws.state / "work" / folder
    step, made = _curves(path)
    return drawn(site, (folder, step), made, asked.path["name"])


def stages(site: Site, *, charts: bool = False) -> list[Stage]:
    """Return what has begun and not ended."""
    return [_stage(one, charts=charts) for one in begun(site.ws)]


def _stage(one: Running, *, charts: bool) -> Stage:
    pictures: list[Shown] = []
    if charts and (one.workdir / _METRICS).exists():
        step, made = _curves(one.workdir)
        pictures = shown(made, f"/running/{one.workdir.name}", {"step": step})
    return Stage(
        title=f"{one.stage} {one.about}" if one.about else one.stage,
        state=one.state,
        kind=_KINDS.get(one.state, "open"),
        line=_line(one),
        done=one.done,
        total=one.total,
        pictures=pictures,
    )


def _line(one: Running) -> str:
    parts = [one.doing or "", one.note, one.why]
    if one.done or one.total:
        parts.insert(1, counted(one.done or 0, one.total, one.unit))
    if one.seconds_left is not None:
        parts.append(f"about {in_time(one.seconds_left)} left")
    if one.since is not None:
        parts.append(f"since {one.since:%Y-%m-%d %H:%M} UTC, process {one.pid}")
    return "; ".join(part for part in parts if part)


def _curves(folder: Path) -> tuple[int, list[Picture]]:
    """Return the last step of a training and its curves so far."""
    from pipeline.training.record.metrics import MetricsFile

    steps = MetricsFile(folder / _METRICS).read()
    curves = {
        name: tuple(
            (one.step, float(getattr(one, name))) for one in steps if getattr(one, name) is not None
        )
        for name in _FIGURES
    }
    return (steps[-1].step if steps else 0), [*drawn_curves([("so far", curves)])]
