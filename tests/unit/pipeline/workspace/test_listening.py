"""Where a server listens: a port in use is one line, a free one is found."""

from __future__ import annotations

import socket

import pytest

from pipeline.workspace.listening import address_of, is_local, is_loopback, listen
from registry.errors import UserError


def test_a_free_port_is_found_and_then_in_use() -> None:
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert address_of(bound) == f"http://127.0.0.1:{port}"
        assert is_local(bound)
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use") as caught:
            listen("127.0.0.1", port)
        assert caught.value.exit_code == 2
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass  # before anything answers


def test_every_address_isn_t_loopback() -> None:
    with listen("0.0.0.0", 0) as bound:  # noqa: S104 - what is tested
        assert not is_local(bound)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name", "a" * 70])
def test_an_address_of_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="no address of this machine"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - not listened on
        ("::", False),
        ("192.168.1.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_no_port_is_refused() -> None:
    with pytest.raises(UserError, match="70000 is no port"):
        listen("127.0.0.1", 70000)
