"""serve: the workspace's models by OpenAI's API, by the engine of our own or by vLLM."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.serving.app import Service, build
from pipeline.serving.desk import WorkspaceDesk
from pipeline.serving.life import run
from pipeline.serving.vllm import VllmServer, why_not
from pipeline.talk.who import talker
from pipeline.workspace.listening import address_of, is_local, listen
from registry.errors import UserError
from registry.models.base import locate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

TOKEN = "GAPMEND_TOKEN"  # noqa: S105 - the name of a variable
_SHORTEST = 16
_BYTES = 32
_NAMED = 6


@dataclass(frozen=True)
class ServeReport:
    """What a server did until it was stopped.

    Attributes:
        address: the URL that it was found at.
        answers: that were written to their end.
        cancelled: whose askers left, or that the end of the server cut off.
        tokens: of all answers.
        seconds: from the first request that could come to the end.
    """

    address: str
    answers: int
    cancelled: int
    tokens: int
    seconds: float

    def line(self) -> str:
        """Return it as a line for people."""
        left = f", {self.cancelled} cancelled" if self.cancelled else ""
        return f"stopped: {self.answers} answers, {self.tokens} tokens{left}"


def serve(
    ws: OpenWorkspace,
    ui: Ui,
    names: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: bool = False,
    log: bool = False,
) -> ServeReport:
    """Serve until Ctrl-C or SIGTERM; where vLLM does it instead, this process becomes vLLM.

    Args:
        ws: the workspace.
        ui: where the address is told.
        names: what is served; by default all.
        host: where to listen.
        port: 0 takes a free one.
        token: want one on loopback too.
        log: a line for each request.

    Raises:
        UserError: the port is in use, a name isn't there, or the base can't be loaded.
    """
    from pipeline.talk.voice import Room

    bound = listen(host, port)
    room = Room(ws, ui)
    try:
        secret = _token() if token or not is_local(bound) else None
        desk = WorkspaceDesk(ws, room, tuple(names))
        desk.names()
        _become_vllm(ws, ui, desk, bound, secret)
        first = desk.only[0] if desk.only else ws.spec.train.base
        room.voice(talker(ws, first))
        if log:
            logging.getLogger("gapmend.access").setLevel(logging.INFO)
        service = Service(desk)
        began, address = time.monotonic(), address_of(bound)
        try:
            _tell(ui, bound, desk, first, secret, made=TOKEN not in os.environ)
            run(build(service, token=secret, local=is_local(bound)), bound, service.running)
        finally:
            service.close()
        counted = service.running
        return ServeReport(
            address,
            counted.answers,
            counted.cancelled,
            counted.tokens,
            round(time.monotonic() - began, 1),
        )
    finally:
        room.close()
        bound.close()


def _token() -> str:
    """Return the token of the environment, or a new one.

    Raises:
        UserError: that of the environment is too short, or can't stand in a header.
    """
    given = os.environ.get(TOKEN)
    if given is None:
        return secrets.token_urlsafe(_BYTES)
    if len(given) < _SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
        raise UserError(
            f"the token in {TOKEN} is too short, or has more than letters, digits and signs",
            expected=f"at least {_SHORTEST} of them",
        )
    return given


def _tell(
    ui: Ui, bound: socket, desk: WorkspaceDesk, first: str, secret: str | None, *, made: bool
) -> None:
    """Say where it is found, and how it is asked."""
    names = [name.id for name in desk.names()]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    lines = [f"{address_of(bound)}/v1 serves {', '.join(names[:_NAMED])}{more}"]
    if secret is not None and made:
        lines.append(f"token, told this once: {secret}")
    lines += [_curl(address_of(bound), first, secret), "Ctrl-C ends it"]
    for line in lines:
        if ui.as_json:
            ui.log(line)
        else:
            ui.out.print(line, markup=False, highlight=False, soft_wrap=True)
    ui.out.file.flush()
    ui.err.file.flush()


def _curl(address: str, model: str, secret: str | None) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    bearer = "" if secret is None else f' -H "Authorization: Bearer ${TOKEN}"'
    said = shlex.quote(json.dumps(body))
    return (
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json'{bearer} -d {said}"
    )


def _become_vllm(
    ws: OpenWorkspace, ui: Ui, desk: WorkspaceDesk, bound: socket, secret: str | None
) -> None:
    """Replace this process by vLLM's server where there is a GPU, and it answers as measured."""
    from importlib.util import find_spec

    from evals.engine.backend import vllm_rank

    if find_spec("vllm") is None or not _has_gpu():
        return
    base = ws.spec.train.base
    spec, identity = ws.spec.bases[base], ws.models.identity(base)
    adapters = desk.adapters(base)
    others = [name.id for name in desk.names() if name.id not in {base, *adapters}]
    program = _beside_python("vllm")
    why = why_not(spec, identity, adapters)
    if why is None and desk.only and others:
        why = f"it serves adapters of {base}, and {others[0]} is none"
    if why is None and program is None:
        why = "its program isn't on the PATH"
    if why is not None or program is None:
        ui.log(f"vLLM is there and isn't used: {why}")
        return
    if others:
        ui.log(f"vLLM serves {base} and its adapters, and not {', '.join(others[:_NAMED])}")
    host, port = bound.getsockname()[:2]
    folder = locate(base, spec, ws.root, weights=True).path
    server = VllmServer(folder, identity, spec.trust_remote_code, adapters, str(host), int(port))
    command = server.command(vllm_rank(set(adapters.values())))
    ui.log(f"by vLLM: {shlex.join(command)}")
    if secret is not None and TOKEN not in os.environ:
        ui.log(f"token, told this once: {secret}")
    bound.close()
    key = {} if secret is None else {"VLLM_API_KEY": secret}
    told = {**os.environ, "VLLM_NO_USAGE_STATS": "1", **key}
    os.execve(program, command, told)  # noqa: S606 - no shell: this process becomes it


def _beside_python(program: str) -> str | None:
    """Return the path of a program of this environment, whether or not it is on the PATH."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
