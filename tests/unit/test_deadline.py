"""A dialogue over the network has one deadline, whatever the other side does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from scheduler.service.handlers.deadline import connect, remaining, within

SHORT = timedelta(milliseconds=100)
LONG = timedelta(seconds=30)
LONGEST = 5.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Connections are taken by the system, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def began() -> Iterator[None]:
    """Nothing here takes long."""
    at = time.monotonic()
    yield
    assert time.monotonic() - at < LONGEST


def test_a_deadline_within_another_ends_alone() -> None:
    with within(LONG):
        with within(SHORT):
            assert remaining() <= SHORT.total_seconds()
        assert remaining() > SHORT.total_seconds()


@pytest.mark.usefixtures("began")
def test_every_operation_ends_by_the_deadline(listener: socket.socket) -> None:
    with within(SHORT), connect("127.0.0.1", listener.getsockname()[1]) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(1)
        for operation in (lambda: connection.send(b"x"), lambda: connection.sendall(b"x"), lambda: connection.recv(1)):
            with pytest.raises(TimeoutError):
                operation()
        with pytest.raises(TimeoutError):
            connection.recv_into(bytearray(1))


@pytest.mark.usefixtures("began")
def test_what_nobody_reads_is_given_up(listener: socket.socket) -> None:
    with (
        within(SHORT),
        connect("127.0.0.1", listener.getsockname()[1]) as connection,
        pytest.raises(TimeoutError),
    ):
        connection.sendall(b"x" * 100_000_000)


@pytest.mark.usefixtures("began")
def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_arguments: Any, **_options: Any) -> list[Any]:
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with within(SHORT), pytest.raises(TimeoutError, match="looked up"):
        connect("mail.example.com", 25)
    over.set()


@pytest.mark.usefixtures("began")
def test_the_next_address_is_tried(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo("127.0.0.1", listener.getsockname()[1], type=socket.SOCK_STREAM)
    nobody = socket.getaddrinfo("127.0.0.1", 9, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: nobody + found)
    with within(LONG), connect("mail.example.com", 25) as connection:
        assert connection.getpeername() == listener.getsockname()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "", "a" * 300, "ö" * 100])
def test_a_name_that_cant_be_looked_up_is_an_os_error(host: str) -> None:
    with within(SHORT), pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        connect(host, 9)
