"""The address that a server of ours listens on: this machine's own, or one that others reach."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from registry.errors import MachineError, UserError

_BACKLOG = 2048
_MOST_PORT = 65535


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; other names are never looked up."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; whoever connects waits until the server runs.

    Args:
        host: a name or address of this machine.
        port: 0 takes a free one.

    Raises:
        UserError: the address isn't this machine's, or the port is none, in use or not allowed.
    """
    if not 0 <= port <= _MOST_PORT:
        raise UserError(f"{port} is no port", "--port", f"0 to {_MOST_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"{host} is no address of this machine", "--host", given=host, expected="127.0.0.1"
        ) from error
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _not_bound(host, port, error) from error
    if is_loopback(host) and not is_local(bound):  # a hosts file may say anything
        bound.close()
        raise UserError(f"{host} is {address[0]} here, which others reach", "--host", "127.0.0.1")
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the URL at which the server is found, without a path."""
    host, port = bound.getsockname()[:2]
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}"


def is_local(bound: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return is_loopback(str(bound.getsockname()[0]))


def _not_bound(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return MachineError(
            f"port {port} of {host} is in use",
            "--port",
            given=str(port),
            fix="end what listens there, or take another: --port 0 finds a free one",
        )
    if error.errno == errno.EACCES:
        return MachineError(
            f"port {port} may not be listened on by this user",
            "--port",
            given=str(port),
            expected="1024 or higher",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UserError(
            f"{host} is no address of this machine", "--host", given=host, expected="127.0.0.1"
        )
    return MachineError(f"{host}:{port} can't be listened on: {error.strerror}", "--host")
