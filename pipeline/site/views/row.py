"""A row: what it says, the files and lines it stands in, and all that it went into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pages.charts.rows import WHY
from pipeline.site.contents import rows_by_uid, turns
from pipeline.site.render import Grid, Link, href, lines, page, short
from registry.errors import StoreRequestError
from registry.lineage.rows import row_lineage

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site
    from registry.lineage.rows import RowLineage

_MOST_DIGITS = 18
_MOST = 25  # selections, and things made of it, that are listed


def row(site: Site, asked: Asked) -> bytes:
    """Show a row by its uid."""
    given = asked.path["uid"]
    if not (given.isascii() and given.isdecimal() and len(given) <= _MOST_DIGITS):
        raise StoreRequestError(f"'{given[:80]}' is no row's number")
    uid = int(given)
    found = site.once(("row", uid), lambda: row_lineage(site.catalog, uid, most=_MOST))
    content = rows_by_uid(site, found.places[-1].version_id, [uid]) if found.places else {}
    return page(
        site,
        "row",
        f"Row {uid}",
        here="/data",
        turns=turns(content[uid]) if uid in content else [],
        tables=_tables(found),
    )


def _tables(found: RowLineage) -> list[tuple[str, str, Grid]]:
    places = [
        (f"{one.file}:{one.line}", one.split,
         Link(f"{one.dataset} {short(one.version_id)}",
              href(f"/data/{one.dataset}@{one.version_id}")))
        for one in found.places
    ]  # fmt: skip
    picks = [
        (Link(short(one.selection_id), href(f"/selection/{one.selection_id}")), one.capability,
         WHY.get(one.reason, one.reason), one.rank)
        for one in found.picks
    ]  # fmt: skip
    made = [
        (Link(short(one.id), href(f"/thing/{one.id}")), one.kind.replace("_", " "), one.label)
        for one in found.made[-_MOST:]
    ]
    return [
        ("places", "Where it stands",
         Grid("Files and versions", ("file and line", "split", "version"), lines(places),
              "no version has it any more")),
        ("picks", "Chosen by",
         Grid(_title("Selections", found.chosen), ("selection", "for", "why", "rank"),
              lines(picks), "nothing chose it")),
        ("made", "What it went into",
         Grid(_title("Adapters and what was made of them", len(found.made)),
              ("id", "kind", "what"), lines(made), "no adapter was trained on it")),
    ]  # fmt: skip


def _title(what: str, total: int) -> str:
    return what if total <= _MOST else f"{what}, the newest {_MOST} of {total:,}"
