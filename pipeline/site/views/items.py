"""Items: what a model answered, and what it answered before; one of them in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.rows import WHY
from pipeline.pages.items import near_rows
from pipeline.site.evaluations import BASE, subjects
from pipeline.site.render import PAGE, Grid, Link, Pages, cut, href, lines, page, short
from pipeline.workspace.store import CHAMPION, adapter_named
from registry.catalog.lists import adapters
from registry.errors import StoreRequestError, UserError
from registry.store.kinds import EvalMeta

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site

    Pair = tuple[str, str, str]  # a subject, its evaluation before (may be empty) and now

_SPLITS = ("dev", "test", "train")
_WAYS = {
    "": "all",
    "lost": "lost: worse than before",
    "gained": "gained: better than before",
    "changed": "another score",
    "wrong": "not right now",
    "right": "right now",
}
_HOW = {
    "": "true",
    "lost": "now.score < was.score",
    "gained": "now.score > was.score",
    "changed": "now.score <> was.score",
    "wrong": "now.score < 1",
    "right": "now.score = 1",
}
# Which items are shown is decided by narrow columns; the texts of these alone are read then.
_SHOWN = """
WITH pair(number, before, after) AS (VALUES ?), found AS MATERIALIZED (
    SELECT pair.number, now.row_uid, now.row_hash
    FROM pair
    JOIN parquet.stored_samples AS now ON now.object_id = pair.after
    LEFT JOIN parquet.stored_samples AS was
      ON was.object_id = pair.before AND was.row_uid = now.row_uid
    WHERE {how}
), shown AS MATERIALIZED (
    FROM found ORDER BY number, row_hash LIMIT {limit} OFFSET {offset}
)
SELECT (SELECT count(*) FROM found), shown.number, shown.row_uid, now.prompt, now.expected,
       was.answer, was.score, now.answer, now.score
FROM shown
JOIN pair USING (number)
JOIN parquet.stored_samples AS now
  ON now.object_id = pair.after AND now.row_uid = shown.row_uid
LEFT JOIN parquet.stored_samples AS was
  ON was.object_id = pair.before AND was.row_uid = shown.row_uid
ORDER BY shown.number, shown.row_hash
"""
_TEXT = (
    " AND contains(lower(concat_ws(chr(10), now.prompt, now.expected, now.answer, was.answer)),"
    " lower(?))"
)
_HEAD = (
    *("item", "capability or guard", "question", "expected"),
    *("before", "score before", "now", "score now"),
)
_MOST_TEXT = 200  # characters that are looked for
_ONE = """
SELECT object_id, prompt, expected, answer, score, prompt_tokens, loglikelihoods
FROM parquet.stored_samples WHERE row_uid = ?
"""


def items(site: Site, asked: Asked) -> bytes:
    """List items by what became of them; a page at a time, filtered where they are stored."""
    split, way = asked.choice("split", _SPLITS), asked.choice("way", tuple(_WAYS))
    subject, text, number = asked.one("subject"), asked.one("text"), asked.number("page", 0)
    of, pairs = _pairs(site, asked, split)
    names = sorted({pair[0] for pair in pairs})
    chosen = [pair for pair in pairs if subject in ("", pair[0])]
    rows, total = _found(site, chosen, way, text, number)
    query = {"of": of, "split": split, "subject": subject, "way": way, "text": text}
    if asked.one("after"):
        query |= {"before": asked.one("before"), "after": asked.one("after")}
    return page(
        site,
        "items",
        "Items",
        here="/items",
        table=Grid("Items", _HEAD, lines(rows), "no item is so"),
        place=Pages.of("/items", query, number, len(rows), total),
        subjects_of=_models(site, of),
        subjects=[("", "all"), *((name, name) for name in names)],
        splits=[(one, one) for one in _SPLITS],
        ways=[*_WAYS.items()],
        **{key: query[key] for key in ("of", "split", "subject", "way", "text")},
    )


def item(site: Site, asked: Asked) -> bytes:
    """Show one item in full: both answers, where its row stands, and rows that are like it."""
    before, after, uid = asked.one("before"), asked.one("after"), asked.number("row", 0)
    meta = site.catalog.manifest(after, EvalMeta)
    only = [one for one in (before, meta.id) if one]
    found = {row[0]: row[1:] for row in site.catalog.query(_ONE, [uid], only=only).rows}
    if meta.id not in found:
        raise StoreRequestError(f"evaluation {short(meta.id)} has no item {uid}")
    prompt, expected, answer, score, tokens, likelihoods = found[meta.id]
    was = found.get(before)
    adapter = meta.meta.adapter_id
    texts = [("Question", prompt), ("Expected", expected)]
    texts += [("Answer before", was[2])] if was else []
    facts: list[tuple[str, Any]] = [
        ("Capability or guard", f"{meta.meta.subject}, {meta.meta.split}, {meta.meta.arm}"),
        ("Model", Link(short(adapter), href(f"/adapter/{adapter}")) if adapter else meta.meta.base),
        ("Score", f"{was[3]:g} before, {score:g} now" if was else f"{score:g}"),
        ("Tokens of the prompt", f"{tokens:,}" if tokens is not None else "not known"),
        ("Row", Link(f"row {uid}", href(f"/row/{uid}"))),
    ]
    if likelihoods:
        facts.append(("Log-likelihoods", ", ".join(f"{one:.3f}" for one in likelihoods)))
    query = {"before": before, "after": after, "row": uid, "near": 1}
    return page(
        site,
        "item",
        f"Item {uid} of {meta.meta.subject}",
        here="/items",
        texts=[*texts, ("Answer now", answer)],
        facts=facts,
        near=_near(site, adapter, f"{prompt}\n{expected}") if asked.one("near") else None,
        ask=f"{href('/item', query)}#near",
    )


def _near(site: Site, adapter: str | None, text: str) -> Grid:
    rows = []
    for one in near_rows(site.ws, adapter, text, 5) if adapter else ():
        why = WHY.get(one.reason, one.reason)
        rows.append((f"{one.likeness:.2f}", cut(one.text), one.source, one.capability, why))
    head = ("likeness", "row", "where", "for", "why")
    note = "none is like it" if adapter else "the base was trained on nothing here"
    return Grid("By cosine of TF-IDF, of what the adapter was trained on", head, lines(rows), note)


def _pairs(site: Site, asked: Asked, split: str) -> tuple[str, list[Pair]]:
    """Return whose items are shown, and the evaluations of each subject."""
    if after := asked.one("after"):
        now = site.catalog.manifest(after, EvalMeta)
        before = asked.one("before")
        was = site.catalog.manifest(before, EvalMeta).id if before else ""
        return now.meta.adapter_id or BASE, [(now.meta.subject, was, now.id)]
    of = _model(site, asked.one("of"))
    models = [BASE] if of == BASE else [BASE, of]
    found = [one for one in subjects(site, models, [split]) if of in one.of]
    if of == BASE:
        return of, [(one.name, "", one.of[BASE].id) for one in found]
    before_of = {one.name: one.of[BASE].id for one in found if BASE in one.of}
    return of, [(one.name, before_of.get(one.name, ""), one.of[of].id) for one in found]


def _model(site: Site, name: str) -> str:
    if name == BASE:
        return BASE
    if name:
        return adapter_named(site.ws, name)
    champion = site.catalog.alias(CHAMPION)
    if champion:
        return champion
    newest = adapters(site.catalog, limit=1).rows
    return str(newest[0]["adapter_id"]) if newest else BASE


def _models(site: Site, of: str) -> list[tuple[str, str]]:
    """Return what may be chosen: the base, the newest adapters, and what is chosen now."""
    found = [(BASE, "the base")]
    for one in adapters(site.catalog, limit=PAGE).rows:
        called = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
        found.append((one["adapter_id"], f"{short(one['adapter_id'])}{called}"))
    return found if any(key == of for key, _ in found) else [*found, (of, short(of))]


def _found(
    site: Site, pairs: list[Pair], way: str, text: str, number: int
) -> tuple[list[tuple[Any, ...]], int]:
    if not pairs:
        return [], 0
    if len(text) > _MOST_TEXT:
        raise UserError("the text is too long", expected=f"at most {_MOST_TEXT} characters")
    how = _HOW[way] + (_TEXT if text else "")
    pairs = sorted(pairs)
    numbered = [(number, *pair[1:]) for number, pair in enumerate(pairs)]
    given: list[Any] = [numbered, text] if text else [numbered]
    only = {key for pair in pairs for key in pair[1:] if key}
    sql = _SHOWN.format(how=how, limit=PAGE, offset=number * PAGE)
    rows = site.catalog.query(sql, given, only=only).rows
    return [_line(pairs[row[1]], row[2:]) for row in rows], int(rows[0][0]) if rows else 0


def _line(pair: Pair, row: tuple[Any, ...]) -> tuple[Any, ...]:
    (subject, before, after), (uid, *shown) = pair, row
    link = Link(str(uid), href("/item", {"before": before, "after": after, "row": uid}))
    return (link, subject, *(cut(one) if isinstance(one, str) else one for one in shown))
