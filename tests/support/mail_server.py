"""A real mail server for tests, which refuses what it is told to refuse."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail that came in."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    content: bytes
    is_encrypted: bool


class Mailbox:
    """What the server does. `refuse` maps a command (MAIL, RCPT, DATA) to its answers, one after the other."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.password = b"open sesame"
        self.refuse: dict[str, list[str]] = {}
        self.on_mail: Callable[[], None] = lambda: None

    def _answer(self, command: str) -> str | None:
        waiting = self.refuse.get(command)
        return waiting.pop(0) if waiting else None

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """The sender."""
        refusal = self._answer("MAIL")
        if refusal is None:
            envelope.mail_from, envelope.mail_options = address, options
        return refusal or "250 OK"

    async def handle_RCPT(  # noqa: N802 - the same
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """A recipient."""
        refusal = self._answer("RCPT")
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the same
        """The mail."""
        refusal = self._answer("DATA")
        if refusal is not None:
            return refusal
        content = envelope.original_content or b""
        message = message_from_bytes(content, policy=policy.SMTPUTF8)
        assert isinstance(message, EmailMessage)
        is_encrypted = server.transport is not None and server.transport.get_extra_info("sslcontext") is not None
        self.mails.append(Mail(envelope.mail_from or "", list(envelope.rcpt_tos), message, content, is_encrypted))
        self.on_mail()
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        """Only with the password."""
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        is_right = data.password == self.password
        return AuthResult(success=is_right, handled=is_right)


class _Controller(Controller):
    """On any free port."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class MailServer:
    """A running server: where it is, and what came in."""

    port: int
    mailbox: Mailbox


@contextmanager
def mail_server(
    *, context: ssl.SSLContext | None = None, is_implicit: bool = False, **options: Any
) -> Iterator[MailServer]:
    """A server on localhost; with a context it offers STARTTLS, or speaks TLS from the first byte."""
    mailbox = Mailbox()
    tls: dict[str, Any] = {"ssl_context": context} if is_implicit else {"tls_context": context}
    controller = _Controller(
        mailbox, hostname="127.0.0.1", port=0, authenticator=mailbox.authenticate, **tls, **options
    )
    controller.start()
    try:
        yield MailServer(controller.port, mailbox)
    finally:
        controller.stop()


@contextmanager
def broken_mail_server(greeting: bytes = b"", *, trickles: bool = False) -> Iterator[int]:
    """A server that greets (or not) and then says nothing more, or a byte now and then; yields its port."""
    closing = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.sendall(greeting)
            while not closing.wait(_TICK_SECONDS):
                if trickles:
                    connection.sendall(b"2")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        closing.set()
        listener.close()
