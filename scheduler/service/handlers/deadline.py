"""One deadline for a whole dialogue over the network: looking a name up, connecting, TLS, every byte.

A socket's own timeout starts anew with each byte, so that a server which sends one now and then could hold a worker
for ever. These sockets ask before each operation how much is left of `within`, in the thread that works.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, Self

_LEAST: Final = 0.001

_ends_at: ContextVar[float] = ContextVar("ends_at")


@contextmanager
def within(length: timedelta) -> Iterator[None]:
    """What the block does on these sockets takes no longer than `length`, else it raises TimeoutError."""
    token = _ends_at.set(time.monotonic() + length.total_seconds())
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining() -> float:
    """Seconds left of the deadline; raises TimeoutError when none are."""
    left = _ends_at.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return max(left, _LEAST)


class DeadlineSocket(socket.socket):
    """A plain socket on which every operation ends by the deadline."""

    @classmethod
    def of(cls, plain: socket.socket) -> Self:
        """The same connection."""
        return cls(plain.family, plain.type, plain.proto, fileno=plain.detach())

    def recv(self, *arguments: Any) -> bytes:
        """As a socket's."""
        self.settimeout(remaining())
        return super().recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        """As a socket's."""
        self.settimeout(remaining())
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """As a socket's."""
        self.settimeout(remaining())
        return super().send(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """As a socket's, whose timeout is for all of it."""
        self.settimeout(remaining())
        super().sendall(*arguments)


class DeadlineTlsSocket(ssl.SSLSocket):
    """The same over TLS. Its `sendall` calls `send`; a handshake takes its timeout as a whole."""

    def do_handshake(self, *arguments: Any) -> None:
        """As a socket's."""
        self.settimeout(remaining())
        super().do_handshake(*arguments)

    def recv(self, *arguments: Any) -> bytes:
        """As a socket's."""
        self.settimeout(remaining())
        return super().recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        """As a socket's."""
        self.settimeout(remaining())
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """As a socket's."""
        self.settimeout(remaining())
        return super().send(*arguments)


def tls_context() -> ssl.SSLContext:
    """Verifies certificates and host names; `SSL_CERT_FILE` and `SSL_CERT_DIR` name authorities of one's own."""
    context = ssl.create_default_context()
    context.sslsocket_class = DeadlineTlsSocket
    return context


def connect(host: str, port: int) -> DeadlineSocket:
    """A connection to the first address that answers; one that doesn't leaves time for those after it."""
    addresses = _look_up(host, port)
    failure: OSError = OSError("the name has no address")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = DeadlineSocket(family, kind, protocol)
        try:
            connection.settimeout(remaining() / (len(addresses) - place))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(remaining())
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _look_up(host: str, port: int) -> list[Any]:
    """The addresses of a host. The resolver takes no timeout, so another thread asks it, and nobody waits too long."""
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="outreach:resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=remaining())
    except queue.Empty:
        raise TimeoutError("the name could not be looked up in time") from None
    if isinstance(answer, UnicodeError):
        raise OSError("the name is not one that can be looked up") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
