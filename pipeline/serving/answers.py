"""Answers on their way from the model's thread to clients: whole, or as events of a stream.

Whoever goes away takes its answers along: they are cancelled, and their rows are free.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import StreamingResponse

from evals.engine.live.ask import Finish, Piece
from pipeline.serving.refusal import RefusedError, fault, of_user
from pipeline.serving.shapes import Usage
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from evals.engine.live.ask import Stream, Token
    from pipeline.serving.shapes import ChatShape, TextShape


T = TypeVar("T")
_LOG = logging.getLogger("gapmend")


class Running:
    """Every answer that is being written, so that all can be cancelled when the server stops."""

    def __init__(self) -> None:
        """None yet."""
        self._streams: set[Stream] = set()
        self.answers = 0
        self.tokens = 0
        self.cancelled = 0

    def add(self, stream: Stream) -> None:
        """Count an answer in."""
        self._streams.add(stream)

    def done(self, stream: Stream) -> None:
        """Count it out; one that hasn't ended is cancelled."""
        if stream not in self._streams:
            return
        self._streams.discard(stream)
        finish = stream.finish
        if finish is None:
            stream.cancel()
            self.cancelled += 1
        else:
            self.answers += finish.reason in ("stop", "length")
            self.cancelled += finish.reason == "cancelled"
            self.tokens += finish.tokens

    def cancel(self) -> None:
        """Cancel all that are left."""
        for stream in tuple(self._streams):
            stream.cancel()

    def __len__(self) -> int:
        """Return how many are left."""
        return len(self._streams)


class Answers:
    """The answers to one request, by the index of their choice.

    Args:
        running: where they are counted.
    """

    def __init__(self, running: Running) -> None:
        """See the class."""
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Piece | Finish]] = asyncio.Queue()
        self._streams: list[Stream] = []
        self.finishes: dict[int, Finish] = {}

    def ask(self, submit: Callable[[Callable[[Piece | Finish], None]], Stream]) -> None:
        """Ask for the next choice: `submit` hands it over, and whom its parts are told."""
        index = len(self._streams)

        def told(event: Piece | Finish) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
                self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        stream = submit(told)
        self._streams.append(stream)
        self._running.add(stream)

    async def parts(self) -> AsyncIterator[tuple[int, Piece | Finish]]:
        """Yield the parts of all choices as they come, each one's end last.

        Raises:
            RefusedError: one failed, or was cancelled because the server stops.
        """
        while len(self.finishes) < len(self._streams):
            index, event = await self._events.get()
            if isinstance(event, Finish):
                _check(event)
                self.finishes[index] = event
            yield index, event

    async def wait(self) -> dict[int, list[Token]]:
        """Wait for all ends; return the tokens of each choice.

        Raises:
            RefusedError: as `parts`.
        """
        tokens: dict[int, list[Token]] = {index: [] for index in range(len(self._streams))}
        async for index, event in self.parts():
            if isinstance(event, Piece):
                tokens[index] += event.tokens
        return tokens

    def close(self) -> None:
        """Cancel what hasn't ended: nobody waits for it any more."""
        for stream in self._streams:
            self._running.done(stream)

    def usage(self, prompts: int) -> Usage:
        """Count the tokens; every prompt was asked `choices / prompts` times and counts once."""
        each = max(1, len(self._streams) // prompts)
        counted = [
            self.finishes[index].prompt_tokens for index in range(0, len(self._streams), each)
        ]
        return Usage(sum(counted), sum(one.tokens for one in self.finishes.values()))


def _check(finish: Finish) -> None:
    if finish.reason == "cancelled":
        raise RefusedError("the server stops", HTTPStatus.SERVICE_UNAVAILABLE)
    if finish.error is not None:
        raise of_user(finish.error) if isinstance(finish.error, UserError) else finish.error


async def whole(answers: Answers, shape: ChatShape | TextShape, prompts: int) -> dict[str, Any]:
    """Return all answers at once.

    Raises:
        RefusedError: as `Answers.parts`.
    """
    tokens = await answers.wait()
    choices = [shape.choice(n, answers.finishes[n], tokens[n]) for n in sorted(tokens)]
    return shape.whole(choices, answers.usage(prompts))


async def events(
    answers: Answers, shape: ChatShape | TextShape, prompts: int, *, usage: bool
) -> AsyncIterator[str]:
    """Yield the events of a stream; what goes wrong once it has begun is its last event."""
    begun: set[int] = set()
    try:
        async for index, event in answers.parts():
            if index not in begun:
                begun.add(index)
                first = shape.first(index)
                if first is not None:
                    yield _event(shape.chunk([first]))
            if isinstance(event, Piece):
                yield _event(shape.chunk([shape.part(index, event.text, event.tokens)]))
            else:
                yield _event(shape.chunk([shape.last(index, event)]))
        if usage:
            yield _event(shape.chunk([], answers.usage(prompts)))
        yield "data: [DONE]\n\n"
    except RefusedError as error:
        yield _event(error.body())
    except Exception as error:  # noqa: BLE001 - the stream has begun: this is its end
        _LOG.exception("an answer failed")
        yield _event(fault(error).body())


class EventStream(StreamingResponse):
    """The events of a stream; whoever goes away, even before the first, cancels its answers."""

    def __init__(self, answers: Answers, made: AsyncIterator[str]) -> None:
        """Answer with what `events` yields."""
        super().__init__(
            made, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.close()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns; None, and it is cancelled, when whoever asked goes away."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"
