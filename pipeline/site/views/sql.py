"""SQL: a person's question or one of the cookbook's; the answer as table, CSV or chart."""

from __future__ import annotations

import csv
import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from pipeline.pages.charts.draw import WIDTH, Picture
from pipeline.site.charts import drawn
from pipeline.site.render import Grid, Shown, href, lines, page
from registry.errors import UserError

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site
    from registry.catalog.catalog import QueryResult

_COOKBOOK = Path(__file__).parent.parent / "cookbook.md"
_ENTRY = re.compile(
    r"^## (?P<title>[^\n]+)\n(?:(?!^## ).)*?^```sql\n(?P<query>.*?)^```", re.MULTILINE | re.DOTALL
)
_SHOWN, _WHOLE, _DRAWN = 500, 100_000, 2000  # rows: in a table, as CSV, in a chart
_WITHIN_S = 20.0
_MOST_TEXT = 6000
_BARS = 40  # names along an axis that can be told apart


def sql(site: Site, asked: Asked) -> bytes:
    """Ask what the form has; without a question show the cookbook."""
    q = asked.one("q")
    answer, refused = None, ""
    if q.strip():
        try:
            answer = _ask(site, q, _SHOWN)
        except UserError as error:
            refused = str(error)
    x, y, numbers = _axes(answer, asked) if answer else ("", "", [])
    query = {"q": q, "x": x, "y": y}
    return page(
        site,
        "sql",
        "SQL",
        here="/sql",
        q=q,
        refused=refused,
        answer=_grid(answer) if answer else None,
        said=_said(answer) if answer else "",
        csv=href("/sql.csv", {"q": q}),
        drawn=_shown(answer, x, y, query) if answer and y else [],
        columns=[(one, one) for one in (answer.columns if answer else ())],
        numbers=[(one, one) for one in numbers],
        x=x,
        y=y,
        cookbook=[(title, href("/sql", {"q": text})) for title, text in cookbook()],
        views=", ".join(_views()),
    )


def as_csv(site: Site, asked: Asked) -> Response:
    """Answer with all rows, at most 100,000, as CSV."""
    found = _ask(site, asked.one("q"), _WHOLE)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(found.columns)
    writer.writerows(found.rows)
    content = out.getvalue().encode("utf-8", "replace")
    headers = {"content-disposition": 'attachment; filename="answer.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def chart(site: Site, asked: Asked) -> Response:
    """Draw one column of an answer over another."""
    q = asked.one("q")
    found = _ask(site, q, _DRAWN)  # not remembered: a cell of it may have megabytes
    x, y, _ = _axes(found, asked)
    picture = [_picture(found, x, y)] if y else []
    return drawn(site, ("sql", q, x, y), picture, "sql")


@cache
def cookbook() -> tuple[tuple[str, str], ...]:
    """Return the questions of the reference, each with its query."""
    text = _COOKBOOK.read_text("utf-8")
    return tuple((one["title"], one["query"].strip()) for one in _ENTRY.finditer(text))


@cache
def _views() -> tuple[str, ...]:
    from registry.catalog.views import all_names

    return tuple(sorted(name for name in all_names() if not name.startswith("stored_")))


def _ask(site: Site, q: str, most: int) -> QueryResult:
    if len(q) > _MOST_TEXT:
        raise UserError("the question is too long", expected=f"at most {_MOST_TEXT:,} characters")
    with site.question():
        return site.catalog.sql(q, max_rows=most, within_s=_WITHIN_S)


def _said(found: QueryResult) -> str:
    rows = len(found.rows)
    if found.truncated:
        return f"The first {rows:,} rows; there are more."
    return f"{rows:,} row{'' if rows == 1 else 's'}."


def _grid(found: QueryResult) -> Grid:
    return Grid("Answer", found.columns, lines(found.rows), "no rows")


def _axes(found: QueryResult, asked: Asked) -> tuple[str, str, list[str]]:
    """Return what goes across and upwards, and what may go upwards: columns of numbers."""
    columns = list(found.columns)
    numbers = [name for at, name in enumerate(columns) if _is_number(found, at)]
    x = asked.one("x") if asked.one("x") in columns else ""
    x = x or next((one for one in columns if one not in numbers), columns[0] if columns else "")
    y = asked.one("y") if asked.one("y") in numbers else ""
    return x, y or next((one for one in numbers if one != x), ""), numbers


def _is_number(found: QueryResult, at: int) -> bool:
    values = [row[at] for row in found.rows if row[at] is not None]
    return bool(values) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )


def _shown(found: QueryResult, x: str, y: str, query: dict[str, str]) -> list[Shown]:
    one = _picture(found, x, y)
    return [Shown(one.title, one.says, href("/sql.svg", query))]


def _picture(found: QueryResult, x: str, y: str) -> Picture:
    across, up = found.columns.index(x), found.columns.index(y)
    rows = [
        {"x": row[across] if _is_number(found, across) else str(row[across]), "y": float(row[up])}
        for row in found.rows[:_DRAWN]
        if row[up] is not None and row[across] is not None
    ]
    says = f"{y} over {x}: {len(rows):,} rows of the table below."
    named = any(isinstance(row["x"], str) for row in rows)
    return Picture("sql", f"{y} over {x}", says, lambda: _chart(rows, x, y, named=named))


def _chart(rows: list[dict[str, Any]], x: str, y: str, *, named: bool) -> Any:
    import altair as alt

    if named:
        first = rows[:_BARS]
        names = list(dict.fromkeys(row["x"] for row in first))
        bars = alt.Chart(alt.Data(values=first)).mark_bar()
        return bars.encode(x=alt.X("y:Q", title=y), y=alt.Y("x:N", sort=names, title=x)).properties(
            width=WIDTH
        )
    points = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    return points.encode(x=alt.X("x:Q", title=x), y=alt.Y("y:Q", title=y)).properties(width=WIDTH)
