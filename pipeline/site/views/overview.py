"""The overview: what the workspace has, what came of it, what runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pages.charts import pictures
from pipeline.pages.words import listed
from pipeline.site.charts import shown
from pipeline.site.render import Grid, Link, Shown, href, lines, page, short
from pipeline.site.views.adapter import told_of
from pipeline.site.views.running import stages
from pipeline.site.views.runs import adapter_grid, run_grid
from pipeline.workspace.store import CHAMPION
from registry.catalog.sql import fill

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site

_DATASETS = """
SELECT name, version_id, rows, train, dev, test, rejects, license, created_at FROM datasets
"""
_VERDICTS = """
SELECT capability, base, goal, score, low, high, best_prompt, best_prompt_score, verdict, gap_id
FROM gaps QUALIFY row_number() OVER (PARTITION BY base, capability ORDER BY created_at DESC) = 1
ORDER BY base, capability
"""
_ALIASES = """
SELECT name, target, coalesce(nodes.kind, ''), reason, moved_at
FROM catalog.alias_moves AS moves LEFT JOIN catalog.nodes AS nodes ON nodes.id = moves.target
QUALIFY row_number() OVER (PARTITION BY name ORDER BY seq DESC, moved_at DESC, moves.id DESC) = 1
ORDER BY name
"""
_LOOKS = "SELECT subject, dataset, looks, evaluations, last_at FROM looks"
_SCORED = """
SELECT 1 FROM catalog.objects
WHERE kind = 'eval' AND contains(manifest, '"split":"test"') LIMIT 1
"""
_DECIDED = """
SELECT manifest->>'$.meta.promoted' FROM catalog.objects
WHERE kind = 'promotion' AND (manifest->>'$.meta.adapter_id') = ? ORDER BY created_at DESC LIMIT 1
"""
_ABOUT = """
SELECT child FROM catalog.edges JOIN catalog.objects ON id = child
WHERE parent = ? AND kind IN ('forgetting', 'promotion') ORDER BY child
"""


def overview(site: Site, asked: Asked) -> bytes:
    """Show what the workspace has."""
    del asked
    champion = site.catalog.alias(CHAMPION)
    running = [(one.title, one.state, one.line) for one in stages(site)]
    tables = [
        ("verdicts", "What is lacking", _verdicts(site), None),
        ("adapters", "Adapters", adapter_grid(site, 0, 8)[0], Link("All adapters", "/adapters")),
        ("names", "Names", _aliases(site), Link("Move champion", "/alias/champion")),
        ("datasets", "Datasets", _datasets(site), Link("Versions, diff, rows", "/data")),
        ("runs", "Runs", run_grid(site, 0, 12)[0], Link("All runs", "/runs")),
        ("looks", "How often test was looked at", _looks(site), None),
    ]
    return page(
        site,
        "overview",
        "Overview",
        here="/",
        lead=_lead(site, champion),
        champion=champion and Link(f"Its report: {short(champion)}", href(f"/adapter/{champion}")),
        pictures=_pictures(site, champion) if champion else [],
        running=Grid("Running", ("stage", "state", "how far"), lines(running)),
        tables=tables,
    )


def _pictures(site: Site, champion: str) -> list[Shown]:
    """Return what the champion can do now, and what became of the guards."""

    def some() -> list[Shown]:
        drawn_of = pictures(told_of(site, champion))
        found = [one for part in ("gap", "forgetting") for one in drawn_of[part][:1]]
        return shown(found, f"/adapter/{champion}/chart")

    with site.catalog.reading() as connection:  # what was measured of it: not every commit
        about = connection.execute(fill(_ABOUT, [champion])).fetchall()
    return site.once(("pictures", champion), some, of=tuple(about))


def _lead(site: Site, champion: str | None) -> str:
    with site.catalog.reading() as connection:
        counts = dict(
            connection.execute("SELECT kind, count(*) FROM catalog.objects GROUP BY 1").fetchall()
        )
    if not counts:
        return "Nothing has been run here yet: gapmend run does all of it, gapmend plan says what."
    said = f"The champion is {champion[:8]}." if champion else "No adapter is champion yet."
    parts = [
        f"{counts.get(kind, 0):,} {name if counts.get(kind, 0) == 1 else several}"
        for kind, name, several in (
            ("dataset_version", "dataset version", "dataset versions"),
            ("run", "run", "runs"),
            ("adapter", "adapter", "adapters"),
            ("eval", "evaluation", "evaluations"),
        )
    ]
    return f"{said} {listed(parts)}."


def _verdicts(site: Site) -> Grid:
    rows = [
        (Link(name, href("/items", {"subject": name, "of": "base"})), base, goal,
         f"{score:.3f} ({low:.3f} to {high:.3f})",
         f"{prompt} {prompted:.3f}" if prompt else "", verdict, _thing(key))
        for name, base, goal, score, low, high, prompt, prompted, verdict, key
        in site.catalog.query(_VERDICTS).rows
    ]  # fmt: skip
    head = ("capability", "base", "goal", "score with its 95% interval", "best prompt")
    note = "nothing was measured yet: gapmend gap"
    return Grid("Newest verdicts", (*head, "verdict", "gap"), lines(rows), note)


def _datasets(site: Site) -> Grid:
    rows = [
        (Link(name, href(f"/data/{name}@{key}")), short(key), *rest)
        for name, key, *rest in site.catalog.query(_DATASETS).rows
    ]
    head = ("dataset", "version", "rows", "train", "dev", "test", "rejects", "licence", "made")
    note = "nothing was read in yet: gapmend ingest"
    return Grid("Newest version of each dataset", head, lines(rows), note)


def _aliases(site: Site) -> Grid:
    with site.catalog.reading() as connection:
        found = connection.execute(_ALIASES).fetchall()
        decided = {
            target: connection.execute(fill(_DECIDED, [target])).fetchone()
            for name, target, *_ in found
            if name == CHAMPION
        }
    rows = []
    for name, target, kind, reason, moved in found:
        passed = (decided.get(target) or ("",))[0]
        gates = {"true": "all gates passed", "false": "refused by a gate"}.get(passed or "", "")
        rows.append(
            (Link(name, href(f"/alias/{name}")), _thing(target), kind, gates, reason, moved)
        )
    head = ("name", "points at", "what it is", "promotion", "why", "since")
    return Grid("Names that are in use", head, lines(rows))


def _looks(site: Site) -> Grid:
    with site.catalog.reading() as connection:
        scored = connection.execute(_SCORED).fetchone()
    rows = site.catalog.query(_LOOKS).rows if scored else []
    head = ("capability or guard", "dataset", "looks", "evaluations", "last")
    return Grid("Looks at test", head, lines(rows), "test was not looked at yet")


def _thing(key: str) -> Link:
    return Link(short(key), href(f"/thing/{key}"))
