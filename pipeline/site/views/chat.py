"""The chat: who can be asked and how, what was said, and keeping an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse, Response

from evals.tasks.prompts import LABELS, arms_of, places
from pipeline.site.forms import html, json_of
from pipeline.site.render import href, page, short, status_of, template
from pipeline.site.talks.chosen import Chosen, lines_of
from pipeline.spec.subjects import subjects
from pipeline.talk.reply import Failed, Said
from pipeline.workspace.inert import inert
from registry.catalog.sql import fill
from registry.errors import StoreRequestError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.site.site import Asked, Site
    from pipeline.site.talks.open_talk import OpenTalk, Turn
    from pipeline.spec.spec import Spec
    from pipeline.talk.keep import Kind
    from pipeline.talk.who import Talker

_KEPT_APART = "kept"  # the dataset that begins with what is kept, where the spec has none
_SCORES = """
SELECT subject, arm, score FROM eval_results WHERE adapter_id IS NULL AND split = 'dev' AND base = ?
QUALIFY row_number() OVER (PARTITION BY subject, arm ORDER BY created_at DESC, eval_id) = 1
"""
_KINDS: dict[str, Kind] = {"row": "row", "item": "item"}
_BUTTON = 3  # what, turn, side


def chat(site: Site, asked: Asked) -> bytes | Response:
    """Show a talk, or the form that begins one."""
    chosen = Chosen.of({name: values[-1] for name, values in asked.query.items()})
    key = asked.one("talk")
    try:
        if key:
            chosen = replace(site.talks.find(key).chosen, text=chosen.text)
    except StoreRequestError as error:
        return html(chat_page(site, chosen, "", str(error)), status_of(error))
    return chat_page(site, chosen, key)


def chat_page(site: Site, chosen: Chosen, key: str, refused: str = "") -> bytes:
    """Return the page of a talk, or of one that hasn't begun, with what was chosen.

    Args:
        site: the workspace.
        chosen: what the form is filled in with.
        key: of the talk; one that isn't open is none.
        refused: why a question wasn't asked, or an answer not kept.

    Raises:
        UserError: the spec isn't valid.
    """
    one = _found(site, key)
    stamp = site.talks.stamp()
    spec = site.talks.workspace().spec
    everybody = site.once(("talkers", stamp), site.talks.everybody)
    try:
        chosen, more = _named(site, chosen, everybody)
    except UserError as error:
        more, refused = (), refused or str(error)
    names = [(who.name, _label(who)) for who in (*everybody, *more)]
    last = one.last if one else {}
    items = [(what.name, what.name) for what in subjects(spec) if what.spec.data is not None]
    return page(
        site,
        "chat",
        "Chat",
        here="/chat",
        talk=one.key if one else "",
        chosen=chosen,
        models=names,
        others=[("", "nobody"), *names],
        prompts=[("", "none"), *site.once(("prompts", stamp), lambda: _prompts(site, spec))],
        turns=[_turn(turn) for turn in (one.turns if one else ())],
        refused=refused,
        datasets=list(dict.fromkeys([*spec.datasets, _KEPT_APART])),
        row=last.get("row") or _asked_of(spec, chosen) or _KEPT_APART,
        items=items,
        item=last.get("item", ""),
    )


def _asked_of(spec: Spec, chosen: Chosen) -> str | None:
    """Return the dataset of the capability or guard whose prompt asks: its rows are alike."""
    name = chosen.asked_by[1]
    return next((what.spec.data for what in subjects(spec) if what.name == name), None)


def keep(site: Site, asked: Asked) -> Response:
    """Keep an answer, or the right one in its place, as a row or an item.

    Raises:
        UserError: the talk is over, and to a script: as `Talk.keep`.
    """
    form = asked.form or {}
    one = site.talks.find(form.get("talk", ""))
    try:
        kind, number, side = _button(form.get("keep", ""))
        name = _goes_to(form, kind)
        right = lines_of(form.get(f"answer {number} {side}", ""))
        kept = site.talks.keep(one, kind, name, number, side, right if right.strip() else None)
    except UserError as error:
        if "plain" in form:
            raise
        return html(chat_page(site, one.chosen, one.key, str(error)), status_of(error))
    if "plain" in form:
        told = {"said": inert(str(kept)), "html": answer_html(one.turns[number], side)}
        return Response(json_of(told), media_type="application/json")
    return RedirectResponse(f"{href('/chat', {'talk': one.key})}#turn-{number}", 303)


def new(site: Site, asked: Asked) -> Response:
    """Close a talk; the form of the next has what was chosen."""
    form = asked.form or {}
    site.talks.end(form.get("talk", ""))
    return RedirectResponse(href("/chat", Chosen.of(form).query()), 303)


def stop(site: Site, asked: Asked) -> Response:
    """End the answers of a talk as far as they came.

    Raises:
        UserError: the talk is over.
    """
    one = site.talks.find((asked.form or {}).get("talk", ""))
    one.stop()
    return RedirectResponse(href("/chat", {"talk": one.key}), 303)


def turn_html(turn: Turn) -> str:
    """Return a question with its answers, as it stands on the page."""
    return template("turn", turn=_turn(turn)).decode()


def answer_html(turn: Turn, side: int) -> str:
    """Return what stands inside of one side of it."""
    return template("answer", answer=_answer(turn, side)).decode()


def _found(site: Site, key: str) -> OpenTalk | None:
    try:
        return site.talks.find(key) if key else None
    except StoreRequestError:
        return None


def _named(
    site: Site, chosen: Chosen, everybody: tuple[Talker, ...]
) -> tuple[Chosen, tuple[Talker, ...]]:
    """Return what was chosen by the names that are listed, and who else is named.

    Raises:
        UserError: nobody has a name.
    """
    listed = {who.name for who in everybody}
    more = []
    names = {"model": chosen.model, "against": chosen.against}
    for part, name in names.items():
        if name in listed or (part == "against" and not name):
            continue
        who = site.talks.named(name)
        if who.name not in listed and short(who.id) in listed:  # its id by more or fewer digits
            who = replace(who, name=short(who.id))
        elif who.name not in listed:
            more.append(who)
        names[part] = who.name
    return replace(chosen, **names), tuple(more)


def _label(who: Talker) -> str:
    if who.kind == "base":
        return f"{who.name}: base"
    kind = "merged model" if who.kind == "model" else "adapter"
    known = "" if who.id is None or who.id.startswith(who.name) else f" {short(who.id)}"
    return f"{who.name}: {kind}{known} on {who.base}"


def _prompts(site: Site, spec: Spec) -> list[tuple[str, str]]:
    """Return the prompts that can be asked by, each with what the base scores with it on dev."""
    scores = {
        (subject, arm): score
        for subject, arm, score in site.catalog.query(fill(_SCORES, [spec.train.base])).rows
    }
    found = []
    for what in subjects(spec):
        for arm in arms_of(what.spec.prompts) if what.spec.data is not None else ():
            if len([name for name in places(arm.template) if name != LABELS]) > 1:
                continue
            score = scores.get((what.name, arm.name))
            said = "" if score is None else f" ({score:.3f} on dev)"
            found.append((f"{what.name}/{arm.name}", f"{what.name}: {arm.name}{said}"))
    return found


def _goes_to(form: Mapping[str, str], kind: Kind) -> str:
    name = form.get(kind, "").strip()
    if not name:
        wanted = "a dataset" if kind == "row" else "a capability or guard"
        raise UserError(f"nothing says where the {kind} goes", expected=f"the name of {wanted}")
    return name


def _button(value: str) -> tuple[Kind, int, int]:
    """Return what a button names: row or item, and of which answer."""
    parts = value.split(" ")
    if len(parts) != _BUTTON or parts[0] not in _KINDS or not all(map(str.isdecimal, parts[1:])):
        raise UserError(f"'{value[:40]}' names no answer")
    return _KINDS[parts[0]], int(parts[1]), int(parts[2])


def _turn(turn: Turn) -> dict[str, Any]:
    answers = [_answer(turn, side) for side in range(len(turn.answers))]
    return {"number": turn.number, "question": turn.question, "answers": answers}


def _answer(turn: Turn, side: int) -> dict[str, Any]:
    one = turn.answers[side]
    said = one.done if isinstance(one.done, Said) else None
    return {
        "by": one.by,
        "at": f"{turn.number} {side}",
        "to": turn.number + 1,
        "text": said.text if said else "",
        "written": said.written if said and said.written.strip() != said.text.strip() else "",
        "note": said.took if said else "",
        "failed": str(one.done.error) if isinstance(one.done, Failed) else "",
        "is_written": one.done is None,
        "is_kept": said is not None and one.exchange is not None,
        "kept": one.kept,
    }
