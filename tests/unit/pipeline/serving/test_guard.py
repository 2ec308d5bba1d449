"""Whose requests are answered: Host, Origin, token, Content-Type, size."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from pipeline.serving.guard import LARGEST, Guard, read_json
from pipeline.serving.refusal import RefusedError

TOKEN = "a-token-of-a-test"


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse("fine")(scope, receive, send)


def asked(guard: Guard, **headers: str) -> tuple[int, Any]:
    """Status and body of the answer to a request with these headers."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    named = {"host": "127.0.0.1:8000", **headers}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/v1/models",
        "headers": [(key.encode(), value.encode()) for key, value in named.items()],
    }
    anyio.run(guard, scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example:8000"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_on_loopback_only_loopback_s_names(headers: dict[str, str], status: int) -> None:
    got, body = asked(Guard(_fine, None, local=True), **headers)
    assert got == status
    if status != 200:
        assert body["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("", 401),
        ("Bearer é", 401),
    ],
)
def test_a_token_has_to_be_the_token(given: str, status: int) -> None:
    guard = Guard(_fine, TOKEN, local=False)
    got, body = asked(guard, authorization=given, host="models.example")
    assert got == status
    if status == 401:
        assert body["error"]["code"] == "invalid_api_key"
        assert TOKEN not in json.dumps(body)


def test_a_line_for_each_request_has_no_token() -> None:
    log, said = logging.getLogger("gapmend.access"), io.StringIO()
    handler = logging.StreamHandler(said)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        asked(Guard(_fine, TOKEN, local=False), authorization=f"Bearer {TOKEN}")
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert "GET /v1/models 200" in said.getvalue()
    assert TOKEN not in said.getvalue()


def read(body: bytes, kind: str | None = "application/json") -> Any:
    parts = [body[at : at + 2**20] for at in range(0, len(body), 2**20)] or [b""]

    async def receive() -> Message:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return anyio.run(read_json, Request({"type": "http", "headers": headers}, receive))


def test_a_body_is_json() -> None:
    assert read(b'{"a": "\xc3\xa9"}', "application/json; charset=utf-8") == {"a": "é"}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'"\\ud800"', "application/json", 400),  # half a pair: no text
        (b"NaN", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),  # what a browser sends to anywhere without asking
        (b"{}", None, 415),
        (b" " * (LARGEST + 1), "application/json", 413),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_body_that_is_not_taken(body: bytes, kind: str | None, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        read(body, kind)
    assert caught.value.status == status
