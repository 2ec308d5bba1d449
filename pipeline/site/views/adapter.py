"""An adapter: the same account as its report, and ways to go on from each part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pages.account import account
from pipeline.pages.charts import pictures
from pipeline.pages.html import badge, lead, title
from pipeline.pages.parts import parts
from pipeline.pages.words import story
from pipeline.site.charts import drawn, shown
from pipeline.site.render import Link, href, page
from pipeline.workspace.running import running

if TYPE_CHECKING:
    from starlette.responses import Response

    from pipeline.pages.account import Account
    from pipeline.site.site import Asked, Site


def adapter(site: Site, asked: Asked) -> bytes:
    """Tell of an adapter, a merged model's or a gap, by id, the beginning of one, or alias."""
    told = told_of(site, asked.path["id"])
    drawn_of = pictures(told)
    made = [
        {"id": one.id, "title": one.title, "text": one.text, "tables": one.tables,
         "pictures": shown(drawn_of.get(one.id, ()), f"/adapter/{told.id}/chart")}
        for one in parts(told, drawn_of, ())
    ]  # fmt: skip
    return page(
        site,
        "adapter",
        title(told),
        here="/adapters",
        lead=lead(told),
        verdict=badge(told),
        story=story(told),
        made=made,
        links=_links(told),
    )


def chart(site: Site, asked: Asked) -> Response:
    """Draw one of its charts."""
    told = told_of(site, asked.path["id"])
    every = [one for found in pictures(told).values() for one in found]
    return drawn(site, told.id, every, asked.path["name"])


def told_of(site: Site, name: str) -> Account:
    """Return what is told of an adapter, a merged model or a gap, by id, prefix or alias."""
    begun = tuple((one.stage, one.state) for one in running(site.ws))  # it says these, too
    return site.once(("account", name, begun), lambda: account(site.ws, name))


def _links(told: Account) -> list[Link]:
    links = [Link("Lineage", href(f"/lineage/{told.id}"))]
    if told.facts:
        of = {"of": told.id}
        lost, gained = ({**of, "way": way} for way in ("lost", "gained"))
        if told.tested:
            lost, gained = ({**one, "split": "test"} for one in (lost, gained))
        links += [
            Link("Items that were lost", href("/items", lost)),
            Link("Items that were gained", href("/items", gained)),
            *(
                Link(
                    f"Rows of round {one.number}" if one.number else "Rows it was trained on",
                    href(f"/selection/{one.selection_id}"),
                )
                for one in told.trainings
            ),
            Link("Talk to it", href("/chat", {"model": told.id})),
            Link("Give it a name", href("/alias/champion", {"to": told.id})),
        ]
    return links
