"""A web server for tests that answers as it is told: properly, slowly, never, or by hanging up."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Received:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[["Receiver", socket.socket, Received], None]


def answers(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; `Retry_After` is the header Retry-After."""

    def answer(_receiver: Receiver, connection: socket.socket, _request: Received) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return answer


def stalls(receiver: Receiver, _connection: socket.socket, _request: Received) -> None:
    """No answer, until the receiver closes."""
    receiver.stalled.release()
    receiver.closing.wait()


def resets(_receiver: Receiver, connection: socket.socket, _request: Received) -> None:
    """The connection is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def trickles(beginning: bytes) -> Answer:
    """`beginning`, and then a byte now and then, for ever."""

    def answer(receiver: Receiver, connection: socket.socket, _request: Received) -> None:
        connection.sendall(beginning)
        while not receiver.closing.wait(_TICK_SECONDS):
            connection.sendall(b"x")

    return answer


class Receiver:
    """Answers one request after the other as `script` says; the last entry again and again."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.script: list[Answer] = [answers(200)]
        self.requests: list[Received] = []
        self.connections = 0
        self.stalled = threading.Semaphore(0)
        self.closing = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if context is None else 'https'}://localhost:{self.port}/sends"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and let go what stalls."""
        self.closing.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            while (request := _read(connection)) is not None:
                answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                self.requests.append(request)
                answer(self, connection, request)
            connection.close()


def _read(connection: socket.socket) -> Received | None:
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        if not piece:
            return None
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, path, _ = first.split(" ")
    return Received(method, path, headers, body)


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver, closed after the block."""
    receiver = Receiver(context)
    try:
        yield receiver
    finally:
        receiver.close()
