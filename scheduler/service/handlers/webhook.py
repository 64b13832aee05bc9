"""`SEND_HANDLER=webhook`: hands each send to a URL, as signed JSON. docs/how-to/send-handlers.md is its contract.

Nothing of the request, the URL or the answer gets into an error: `last_error` is stored, and read by many.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import string
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError

from scheduler.domain.action import require_id
from scheduler.domain.errors import InvalidInputError, PermanentSendError, RetryLater
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.domain.timing import Clock, SystemClock, parse_instant
from scheduler.service.handlers.configuration import require_shorter_than_lease
from scheduler.service.handlers.deadline import connect, remaining, tls_context, within
from scheduler.settings import PREFIX, Settings
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import package_version

LARGEST_ANSWER: Final = 64 * 1024
LONGEST_RETRY_AFTER: Final = timedelta(days=1)

_RETRIED: Final = frozenset({408, 425, 429})
_PIECE: Final = 8 * 1024
_MOST_DIGITS: Final = 9
# A dedupe key is any text, a header's value visible ASCII.
_VISIBLE: Final = string.ascii_letters + string.digits + string.punctuation


class WebhookSendHandler:
    """Posts sends to one URL. Thread-safe; connections are kept open between sends."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        url = _url_of(settings)
        self._clock = clock or SystemClock()
        self._timeout = require_shorter_than_lease("WEBHOOK_TIMEOUT", settings.webhook_timeout, settings.lease)
        secret = settings.webhook_secret
        self._secret = None if secret is None else secret.get_secret_value().encode()
        self._target = url.request_uri
        self._authorization = _authorization(url.auth)
        self._pool = _pool(url, settings.send_workers)

    def __call__(self, request: SendRequest, /) -> SendResult:
        """Post it; raises RetryLater or PermanentSendError, as its answer says."""
        body = _body_of(request)
        try:
            with within(self._timeout):
                return self._post(request, body)
        except (HTTPError, OSError) as error:
            raise RetryLater(None, f"the webhook gave no answer: {type(error).__name__}") from None

    def _post(self, request: SendRequest, body: bytes) -> SendResult:
        answer = self._pool.urlopen(
            "POST",
            self._target,
            body=body,
            headers=self._headers(request, body),
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(total=remaining()),
            preload_content=False,
            decode_content=False,
        )
        try:
            _refuse_failure(answer.status, answer.headers.get("Retry-After"), self._clock.now())
            document, is_whole = _read(answer)
        except BaseException:
            answer.close()
            raise
        if is_whole:
            answer.release_conn()
        else:
            answer.close()
        return _result(request, document)

    def _headers(self, request: SendRequest, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"timeout-scheduler/{package_version()}",
            "Idempotency-Key": quote(request.dedupe_key, safe=_VISIBLE),
            **self._authorization,
        }
        if self._secret is not None:
            timestamp = str(int(self._clock.now().timestamp()))
            headers["X-Timestamp"] = timestamp
            headers["X-Signature"] = f"sha256={sign(self._secret, timestamp, body)}"
        return headers


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over `timestamp.body`, in hexadecimal."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class _Connection(HTTPConnection):
    """Within the deadline."""

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)


class _TlsConnection(HTTPSConnection):
    """Within the deadline."""

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)


def _pool(url: urllib3.util.Url, size: int) -> HTTPConnectionPool:
    host = url.host or ""
    if url.scheme == "http":
        plain = HTTPConnectionPool(host, url.port or 80, maxsize=size)
        plain.ConnectionCls = _Connection
        return plain
    secured = HTTPSConnectionPool(
        host, url.port or 443, maxsize=size, cert_reqs="CERT_REQUIRED", ssl_context=tls_context()
    )
    secured.ConnectionCls = _TlsConnection
    return secured


def _url_of(settings: Settings) -> urllib3.util.Url:
    """The URL, which may hold credentials: no error shows it."""
    name = f"{PREFIX}WEBHOOK_URL"
    if settings.webhook_url is None:
        raise InvalidInputError(name, None, "SEND_HANDLER is webhook: give the URL that takes the sends")
    try:
        url = urllib3.util.parse_url(settings.webhook_url.get_secret_value())
    except LocationParseError:
        raise InvalidInputError(name, "(not shown)", "give a URL such as https://mail.example.com/sends") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInputError(name, "(not shown)", "give a URL such as https://mail.example.com/sends")
    return url


def _authorization(credentials: str | None) -> dict[str, str]:
    if credentials is None:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(unquote(credentials).encode()).decode()}"}


def _body_of(request: SendRequest) -> bytes:
    document = {field.name: getattr(request, field.name) for field in fields(request)}
    document["variables"] = dict(request.variables)
    document["planned_at"] = request.planned_at.isoformat()
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):  # UnicodeEncodeError among them; its text would show what is in there
        raise PermanentSendError("subject, body or variables can't be written as JSON") from None


def _refuse_failure(status: int, retry_after: str | None, now: datetime) -> None:
    if 200 <= status < 300:  # noqa: PLR2004 - success, as HTTP has it
        return
    reason = f"the webhook answered {status}"
    if status in _RETRIED or status >= 500:  # noqa: PLR2004 - the server's fault
        raise RetryLater(_delay(retry_after, now), reason)
    raise PermanentSendError(f"{reason}: redirects are not followed" if 300 <= status < 400 else reason)  # noqa: PLR2004


def _delay(retry_after: str | None, now: datetime) -> timedelta | None:
    """What `Retry-After` asks for, in seconds or as a date, a day at most; None where it says nothing usable."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        asked = timedelta(seconds=int(text[:_MOST_DIGITS]))
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        asked = (until if until.tzinfo is not None else until.replace(tzinfo=UTC)) - now
    return min(max(asked, timedelta(0)), LONGEST_RETRY_AFTER)


def _read(answer: urllib3.BaseHTTPResponse) -> tuple[bytes, bool]:
    """The body, and whether that is all of it. The mail went out already: what comes late or broken is done without."""
    pieces, size = [], 0
    try:
        while piece := answer.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_ANSWER:
                return b"", False
    except (HTTPError, OSError):
        return b"", False
    return b"".join(pieces), True


def _result(request: SendRequest, body: bytes) -> SendResult:
    """What a JSON object says of the mail. Any other body, and what is unusable of it, says nothing."""
    try:
        document = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return SendResult()
    if not isinstance(document, Mapping):
        return SendResult()
    return SendResult(
        _usable(request, "message_id", document, lambda value: require_id("message_id", value)),
        _usable(request, "sent_at", document, lambda value: parse_instant("sent_at", value)),
    )


def _usable(request: SendRequest, name: str, document: Mapping[str, Any], read: Any) -> Any:
    if document.get(name) is None:
        return None
    try:
        return read(document[name])
    except InvalidInputError:
        emit("send.answer_ignored", dedupe_key=request.dedupe_key, member=name)
        return None
