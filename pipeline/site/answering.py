"""A question from the page: its answers as they are written, or the page again at their end.

A script of ours reads lines of JSON; a browser without scripts is sent back to the talk. Whoever
goes away, even while a model is loaded, takes the question along: see `open_talk.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response, StreamingResponse

from evals.engine.live.ask import Finish, Piece
from pipeline.site.forms import FOREIGN, form_of, html, is_ours, json_of, said
from pipeline.site.render import href, status_of
from pipeline.site.talks.chosen import Chosen
from pipeline.site.views.chat import answer_html, chat_page, turn_html
from pipeline.workspace.inert import inert
from registry.errors import GapmendError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from pipeline.site.site import Site
    from pipeline.site.talks.open_talk import OpenTalk, Question

_GONE = 499  # as nginx says of who left; nobody reads it


def asking(site: Site) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers POST /chat."""

    async def endpoint(request: Request) -> Response:
        form = await form_of(request)
        if not is_ours(site, form):
            return said(site, FOREIGN, 403, form)
        chosen = Chosen.of(form)
        try:
            begun = await run_in_threadpool(site.talks.begun, form.get("talk", ""), chosen)
        except Exception as error:  # noqa: BLE001 - a page says it
            return await _refused(site, chosen, form, error)
        on_its_way = _OnItsWay(site, *begun)
        if "plain" in form:
            return _Lines(on_its_way)
        return await _whole(site, on_its_way, form, request)

    return endpoint


async def _whole(
    site: Site, on_its_way: _OnItsWay, form: Mapping[str, str], request: Request
) -> Response:
    """Wait for all answers and lead back to the talk."""
    working = asyncio.ensure_future(on_its_way.wait())
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return Response(status_code=_GONE)
        if (error := working.exception()) is not None:
            return await _refused(site, on_its_way.one.chosen, form, error)
        at = href("/chat", {"talk": on_its_way.one.key})
        return RedirectResponse(f"{at}#turn-{working.result()}", 303)
    finally:
        working.cancel()
        watching.cancel()
        on_its_way.leave()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(
    site: Site, chosen: Chosen, form: Mapping[str, str], error: BaseException
) -> Response:
    """Answer with the reason: the page has it, and what was filled in."""
    line, status = _line(site, error)
    if "plain" in form:
        return said(site, line, status, form)
    made = await run_in_threadpool(chat_page, site, chosen, form.get("talk", ""), line)
    return html(made, status)


def _line(site: Site, error: BaseException) -> tuple[str, int]:
    if isinstance(error, GapmendError):
        return str(error), status_of(error)
    if not isinstance(error, Exception):
        raise error
    return site.fault(error), 500


class _OnItsWay:
    """A question on its way, for one request."""

    def __init__(self, site: Site, one: OpenTalk, question: Question) -> None:
        """Nothing is asked before `events`."""
        self._site = site
        self.one = one
        self._question = question
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Piece | Finish]] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield what a script is told: that a model is loaded, the turn, texts, ended answers.

        Raises:
            UserError: it can't be asked.
        """
        one = self.one
        if names := self._site.talks.to_load(one):
            yield {"say": f"Loading {' and '.join(names)} …"}
        turn = await run_in_threadpool(self._site.talks.ask, one, self._question, self._tell)
        yield {"talk": one.key, "number": turn.number, "turn": turn_html(turn)}
        left = len(turn.answers)
        while left:
            texts, ended = await self._next()
            for side, text in texts.items():
                yield {"side": side, "text": inert(text)}
            for side in ended:
                answer = await run_in_threadpool(one.end, self._question, side)
                yield {"side": side, "html": answer_html(turn, side), "by": answer.by}
            left -= len(ended)
        self.leave()  # before the last line is sent: the next question may come at once

    async def wait(self) -> int:
        """Wait for all answers; return the number of the turn.

        Raises:
            UserError: it can't be asked.
        """
        number = 0
        async with aclosing(self.events()) as events:
            async for event in events:
                number = event.get("number", number)
        return number

    def leave(self) -> None:
        """Nobody waits any more: what hasn't ended is cancelled."""
        self.one.leave(self._question)

    def line(self, error: BaseException) -> str:
        """Return why there are no more events."""
        return _line(self._site, error)[0]

    def _tell(self, side: int, event: Piece | Finish) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
            self._loop.call_soon_threadsafe(self._told.put_nowait, (side, event))

    async def _next(self) -> tuple[dict[int, str], list[int]]:
        """Return all that was told meanwhile: the texts of each side, and who has ended."""
        texts: dict[int, str] = {}
        ended = []
        waiting = [await self._told.get()]
        while not self._told.empty():
            waiting.append(self._told.get_nowait())
        for side, event in waiting:
            if isinstance(event, Finish):
                ended.append(side)
            elif event.text:
                texts[side] = texts.get(side, "") + event.text
        return texts, ended


class _Lines(StreamingResponse):
    """The events as lines of JSON; whoever goes away, even before the first, takes all along."""

    def __init__(self, on_its_way: _OnItsWay) -> None:
        """Answer with what `events` yields; what goes wrong is the last line."""
        super().__init__(self._made(), media_type="application/x-ndjson")
        self._on_its_way = on_its_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_its_way.leave()

    async def _made(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._on_its_way.events()) as events:
                async for event in events:
                    yield json_of(event) + b"\n"
        except Exception as error:  # noqa: BLE001 - the answer has begun: this is its end
            yield json_of({"error": inert(self._on_its_way.line(error))}) + b"\n"
