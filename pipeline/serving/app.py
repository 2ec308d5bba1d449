"""The routes of OpenAI's API: a request is checked, its model found, and its answers begun.

All that blocks (the catalog, a template, a tokenizer, a model that has to be loaded) is done in
one thread of its own, one request after the other: tokenizers and templates aren't for several.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evals.engine.live.ask import Ask
from pipeline.serving.answers import Answers, EventStream, Running, events, unless_gone, whole
from pipeline.serving.guard import Guard, read_json
from pipeline.serving.refusal import RefusedError, fault, no_model, of_fields, of_user
from pipeline.serving.requests import ChatRequest, CompletionRequest
from pipeline.serving.shapes import ChatShape, TextShape
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from evals.engine.live.ask import Stream, Told

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")
_LOG = logging.getLogger("gapmend")


class Voice(Protocol):
    """Who answers by one name: a loaded base, and what is on it."""

    @property
    def context(self) -> int:
        """The longest prompt and answer, in tokens."""

    def asked(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
    ) -> tuple[int, ...]:
        """Return the tokens by which it is asked in a conversation.

        Raises:
            UserError: its template refuses it.
        """

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts that end an answer in a conversation."""

    def encoded(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text."""

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""

    @property
    def texts(self) -> Sequence[str]:
        """The text of each token."""

    def submit(self, ask: Ask, told: Told) -> Stream:
        """Begin an answer."""


class Desk(Protocol):
    """The models that can be asked, by name; it looks them up anew each time."""

    def names(self) -> Sequence[ModelName]:
        """Return them all."""

    def find(self, name: str) -> Voice | None:
        """Return who answers by a name, loaded; None: nobody.

        Raises:
            UserError: it is there, and can't be loaded.
        """


@dataclass(frozen=True)
class ModelName:
    """A name that requests may give.

    Attributes:
        id: the name.
        created: seconds since 1970.
        root: the base under it.
        parent: what it stands for, if it is another name of something.
    """

    id: str
    created: int
    root: str
    parent: str | None = None

    def body(self) -> dict[str, Any]:
        """Return it as OpenAI writes it, and with what vLLM adds."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "gapmend",
            "root": self.root,
            "parent": self.parent,
        }


@dataclass
class Service:
    """The handlers of the routes.

    Attributes:
        desk: the models.
        running: the answers on their way.
    """

    desk: Desk
    running: Running = field(default_factory=Running)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "gapmend-ask")
    )

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        names = await self._aside(self.desk.names)
        return JSONResponse({"object": "list", "data": [name.body() for name in names]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        wanted = request.path_params["name"]
        names = await self._aside(self.desk.names)
        found = next((name for name in names if name.id == wanted), None)
        if found is None:
            raise no_model(wanted, [name.id for name in names])
        return JSONResponse(found.body())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = _checked(ChatRequest, await read_json(request))
        messages = [message.as_chat() for message in asked.messages]
        tools = [tool.as_chat() for tool in asked.tools]

        def prepared() -> tuple[Voice, list[tuple[int, ...]], Callable[[int], str]]:
            voice = self._found(asked.model)
            return voice, [voice.asked(messages, tools)], _said(voice, asked.top)

        voice, prompts, said = await self._aside(prepared)
        shape = ChatShape(asked.model, said, top=asked.top)
        return await self._answered(request, asked, voice, prompts, shape)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = _checked(CompletionRequest, await read_json(request))

        def prepared() -> tuple[Voice, list[tuple[int, ...]], Callable[[int], str], list[str]]:
            voice = self._found(asked.model)
            prompts = [voice.encoded(one) if isinstance(one, str) else one for one in asked.prompts]
            echoed = [one if isinstance(one, str) else voice.decoded(one) for one in asked.prompts]
            return voice, prompts, _said(voice, asked.top), echoed

        voice, prompts, said, echoed = await self._aside(prepared)
        front = tuple(one for one in echoed for _ in range(asked.n)) if asked.echo else ()
        shape = TextShape(asked.model, said, top=asked.top, echoed=front)
        return await self._answered(request, asked, voice, prompts, shape)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    async def _answered(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        voice: Voice,
        prompts: Sequence[tuple[int, ...]],
        shape: ChatShape | TextShape,
    ) -> Response:
        asks = [
            _ask(asked, voice, prompt, number) for prompt in prompts for number in range(asked.n)
        ]
        answers = Answers(self.running)
        try:
            for ask in asks:
                answers.ask(partial(voice.submit, ask))
        except UserError as error:  # a token that the base doesn't know, for one
            answers.close()
            raise RefusedError(str(error)) from None
        if asked.stream:
            usage = asked.stream_options.include_usage
            return EventStream(answers, events(answers, shape, len(prompts), usage=usage))
        try:
            body = await unless_gone(request, whole(answers, shape, len(prompts)))
        finally:
            answers.close()
        if body is None:
            return Response(status_code=_GONE)
        return JSONResponse(body)

    def _found(self, name: str) -> Voice:
        voice = self.desk.find(name)
        if voice is None:
            raise no_model(name, [one.id for one in self.desk.names()])
        return voice

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


_GONE = 499  # as nginx says of who left; nobody reads it


def build(service: Service, *, token: str | None, local: bool) -> ASGIApp:
    """Return the application.

    Args:
        service: what answers.
        token: that every request has to bring; None: none.
        local: it is reached from this machine alone.
    """
    routes = [
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{name:path}", service.model, methods=["GET"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completions, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        RefusedError: _refused,
        UserError: _user_error,
        HTTPException: _no_route,
        Exception: _fault,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, local)


def _ask(
    asked: ChatRequest | CompletionRequest, voice: Voice, prompt: tuple[int, ...], number: int
) -> Ask:
    """Say how a prompt is answered for the `number`-th time."""
    if len(prompt) >= voice.context:
        raise RefusedError(
            f"the prompt has {len(prompt)} tokens; expected fewer than {voice.context}, which "
            f"{asked.model} reads, the answer included",
            param="prompt" if isinstance(asked, CompletionRequest) else "messages",
            code="context_length_exceeded",
        )
    return Ask(
        prompt,
        limit=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=None if asked.seed is None else asked.seed + number,
        stops=(*asked.stop, *(voice.ends if isinstance(asked, ChatRequest) else ())),
        logprobs=asked.top,
        echo=isinstance(asked, CompletionRequest) and asked.echo and asked.top is not None,
    )


def _said(voice: Voice, top: int | None) -> Callable[[int], str]:
    """Return what tells a token's text; only log-probabilities do."""
    texts = () if top is None else voice.texts
    return lambda token: texts[token] if token < len(texts) else ""


def _checked(kind: type[M], given: Any) -> M:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise of_fields(error) from None


async def _refused(_: Request, error: RefusedError) -> Response:
    return error.response()


async def _user_error(_: Request, error: UserError) -> Response:
    return of_user(error).response()


async def _no_route(request: Request, error: HTTPException) -> Response:
    what = f"{request.method} {request.url.path} is not served here"
    return RefusedError(what, HTTPStatus(error.status_code)).response()


async def _fault(_: Request, error: Exception) -> Response:
    _LOG.error("a request failed", exc_info=error)
    return fault(error).response()
