"""What a real HTTP listener was sent by Sentry's SDK, decoded: envelopes, their items, reports and check-ins."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.web_receiver import Received, Receiver, answers, receiving

Item = tuple[str, Any]


class SentryReceiver:
    """A listener that takes envelopes; `script` of its `receiver` says how it answers."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.dsn = f"http://public@127.0.0.1:{receiver.port}/1"
        receiver.script = [answers(200, b"{}")]

    @property
    def items(self) -> list[Item]:
        """Everything it was sent, each with its type."""
        return [item for request in list(self.receiver.requests) for item in _items_of(request)]

    @property
    def events(self) -> list[Any]:
        """Errors and messages."""
        return [payload for kind, payload in self.items if kind == "event"]

    @property
    def errors(self) -> list[Any]:
        """Reports of exceptions."""
        return [event for event in self.events if "exception" in event]

    @property
    def messages(self) -> list[Any]:
        """Reports without one."""
        return [event for event in self.events if "exception" not in event]

    @property
    def check_ins(self) -> list[Any]:
        """What its monitors were told."""
        return [payload for kind, payload in self.items if kind == "check_in"]

    @property
    def text(self) -> str:
        """All of it, as it came."""
        return "\n".join(_unpacked(request).decode() for request in list(self.receiver.requests))


@contextmanager
def receiving_reports() -> Iterator[SentryReceiver]:
    """A listener, closed after the block."""
    with receiving() as receiver:
        yield SentryReceiver(receiver)


def _items_of(request: Received) -> Iterator[Item]:
    """A header, and then a line about each item before the item, which is as long as that line says."""
    _, _, rest = _unpacked(request).partition(b"\n")
    while rest.strip():
        about, _, rest = rest.partition(b"\n")
        header = json.loads(about)
        length = header.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        payload, rest = rest[:length], rest[length:].removeprefix(b"\n")
        yield header["type"], json.loads(payload)


def _unpacked(request: Received) -> bytes:
    return gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
