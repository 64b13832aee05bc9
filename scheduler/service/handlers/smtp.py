"""`SEND_HANDLER=smtp`: sends through a mail server. docs/how-to/send-handlers.md is its contract.

A server's words are not repeated in errors, since they like to quote the address: `last_error` is stored, and read by
many. Its code and, where it gives one, the enhanced status (RFC 3463) are.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.errors import MessageError, NonASCIILocalPartDefect
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any, Final, cast

from scheduler.domain.errors import InvalidInputError, PermanentSendError, RetryLater
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.service.handlers.configuration import require_shorter_than_lease
from scheduler.service.handlers.deadline import connect, tls_context, within
from scheduler.settings import PREFIX, Settings

LONGEST_DOMAIN: Final = 95  # so that a Message-ID is never too long for a message id

# Not every server takes bytes above 127.
_MAIL_POLICY: Final = SMTP.clone(cte_type="7bit")
_PERMANENT: Final = 500
# "Authentication required", "too weak", "failed", "needs encryption": whoever runs this must see to it, at any stage.
_OUR_FAULT: Final = frozenset({530, 534, 535, 538})
_TOO_LARGE: Final = 552
_ENHANCED: Final = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9])")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class SmtpSendHandler:
    """Sends each mail in a dialogue of its own, within SMTP_TIMEOUT. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._host = _required("SMTP_HOST", settings.smtp_host)
        self._port = settings.smtp_port
        self._tls = settings.smtp_tls
        self._credentials = _credentials(settings)
        self._from = _sender(_required("SMTP_FROM", settings.smtp_from))
        self._timeout = require_shorter_than_lease("SMTP_TIMEOUT", settings.smtp_timeout, settings.lease)
        self._after_our_fault = settings.retry_max
        self._context = None if self._tls == "none" else tls_context()

    def __call__(self, request: SendRequest, /) -> SendResult:
        """Send it; raises RetryLater or PermanentSendError, as the server's answers say."""
        if not request.address:
            raise PermanentSendError("the contact has no address")
        message_id = message_id_of(request.dedupe_key, self._from.domain)
        address = _recipient(request.address)
        mail = self._compose(request, address, message_id)
        with _judged(self._after_our_fault), within(self._timeout), self._dialogue() as server:
            server.send_message(mail, self._from.addr_spec, [address.addr_spec])
        return SendResult(message_id)

    def _compose(self, request: SendRequest, address: Address, message_id: str) -> EmailMessage:
        mail = EmailMessage(_MAIL_POLICY)
        try:
            mail["From"] = self._from
            mail["To"] = address
            mail["Subject"] = _one_line("subject", request.subject or "")
            mail["Date"] = formatdate()
            mail["Message-ID"] = f"<{message_id}>"
            mail.set_content(request.body or "")
        except (MessageError, ValueError, LookupError):  # their text may show what is in the mail
            raise PermanentSendError("subject or body can't be written as a mail") from None
        return mail

    @contextmanager
    def _dialogue(self) -> Iterator[smtplib.SMTP]:
        server = _Dialogue(self._host, self._port, self._context if self._tls == "tls" else None)
        try:
            server.ehlo_or_helo_if_needed()
            if self._tls == "starttls":
                server.starttls(context=self._context)
            if self._credentials is not None:
                server.login(*self._credentials)
            yield server
            with suppress(smtplib.SMTPException, OSError):  # the mail is the server's by now
                server.quit()
        finally:
            server.close()


class _Dialogue(smtplib.SMTP):
    """A dialogue within the deadline, over TLS from its first byte where a context is given."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(host, port, local_hostname=_own_name())

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - as smtplib calls it
        plain = connect(host, port)
        if self._context is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise


def message_id_of(dedupe_key: str, domain: str) -> str:
    """The Message-ID of a send, without angle brackets: the same however often it is sent."""
    return f"{hashlib.sha256(dedupe_key.encode()).hexdigest()[:32]}@{domain}"


@contextmanager
def _judged(after_our_fault: timedelta) -> Iterator[None]:
    """What the server or the network said, as one of two: again later, or never again."""
    try:
        yield
    except (OSError, UnicodeError) as error:  # smtplib's errors among them
        raise _judgement(error, after_our_fault) from None


def _judgement(error: Exception, after_our_fault: timedelta) -> RetryLater | PermanentSendError:
    match error:
        case UnicodeError():
            return PermanentSendError("subject, body or address can't be written as a mail")
        case smtplib.SMTPRecipientsRefused():
            return _refusal("the recipient", *next(iter(error.recipients.values())), after_our_fault)
        case smtplib.SMTPDataError():
            return _refusal("the mail", error.smtp_code, error.smtp_error, after_our_fault)
        case smtplib.SMTPResponseException():
            return _refused_us(error, after_our_fault)
        case smtplib.SMTPNotSupportedError() if "SMTPUTF8" in str(error):
            return PermanentSendError("the address is not ASCII, and the mail server takes no other")
        case smtplib.SMTPNotSupportedError():
            return RetryLater(after_our_fault, "the mail server doesn't offer the STARTTLS or AUTH that is asked for")
        case ssl.SSLCertVerificationError():
            return RetryLater(after_our_fault, "the mail server's certificate can't be verified")
        case _:
            return RetryLater(None, f"no answer from the mail server: {type(error).__name__}")


def _refused_us(error: smtplib.SMTPResponseException, after_our_fault: timedelta) -> RetryLater | PermanentSendError:
    """The greeting, the sender or the credentials are refused: no contact's fault, unless its mail is too large."""
    if error.smtp_code == _TOO_LARGE:
        return PermanentSendError(_said("the mail", error.smtp_code, error.smtp_error))
    what = "the credentials" if isinstance(error, smtplib.SMTPAuthenticationError) else "us"
    after = after_our_fault if error.smtp_code >= _PERMANENT else None
    return RetryLater(after, _said(what, error.smtp_code, error.smtp_error))


def _refusal(what: str, code: int, words: bytes | str, after_our_fault: timedelta) -> RetryLater | PermanentSendError:
    reason = _said(what, code, words)
    if code in _OUR_FAULT:
        return RetryLater(after_our_fault, reason)
    return PermanentSendError(reason) if code >= _PERMANENT else RetryLater(None, reason)


def _said(what: str, code: int, words: bytes | str) -> str:
    enhanced = _ENHANCED.match(words if isinstance(words, bytes) else words.encode(errors="replace"))
    status = f" {enhanced[0].decode()}" if enhanced is not None else ""
    return f"the mail server refused {what}: {code}{status}"


def _recipient(address: str) -> Address:
    parsed = _parse(_one_line("address", address))
    if parsed is None:
        raise PermanentSendError("the contact's address is none that mail can be sent to")
    return parsed


def _sender(text: str) -> Address:
    name = f"{PREFIX}SMTP_FROM"
    sender = None if _CONTROL.search(text) else _parse(text)
    if sender is None or not sender.addr_spec.isascii():
        raise InvalidInputError(name, text, "give an address such as Acme <hello@acme.example>, its domain in ASCII")
    if len(sender.domain) > LONGEST_DOMAIN:
        raise InvalidInputError(name, text, f"its domain may have {LONGEST_DOMAIN} characters")
    return sender


def _parse(text: str) -> Address | None:
    """The one address in `text`, which may have a name before it; None when it isn't one."""
    header = EmailMessage(_MAIL_POLICY)
    try:
        header["To"] = text
        parsed = cast("Any", header["To"])
        addresses = parsed.addresses
    except (ValueError, LookupError, MessageError):
        return None
    if not all(isinstance(defect, NonASCIILocalPartDefect) for defect in parsed.defects):
        return None
    if len(addresses) != 1 or not addresses[0].username or not addresses[0].domain:
        return None
    found = cast("Address", addresses[0])
    return None if re.search(r"[\s<>,;]", found.addr_spec) else found


def _one_line(what: str, text: str) -> str:
    """A line break in a header would begin another one."""
    if _CONTROL.search(text):
        raise PermanentSendError(f"the {what} has a line break or another control character in it")
    return text


def _required(setting: str, value: str | None) -> str:
    if value is None:
        raise InvalidInputError(f"{PREFIX}{setting}", None, "SEND_HANDLER is smtp, which needs it")
    return value


def _credentials(settings: Settings) -> tuple[str, str] | None:
    if settings.smtp_username is None and settings.smtp_password is None:
        return None
    username = _required("SMTP_USERNAME", settings.smtp_username)
    if settings.smtp_password is None:
        raise InvalidInputError(f"{PREFIX}SMTP_PASSWORD", None, "SMTP_USERNAME is set: give its password, too")
    return username, settings.smtp_password.get_secret_value()


def _own_name() -> str:
    """Who we say we are; asking for more than what the machine calls itself would ask the resolver, which may hang."""
    name = socket.gethostname()
    return name if _HOST_NAME.fullmatch(name) else "[127.0.0.1]"
