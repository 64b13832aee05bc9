"""Sends are posted to a URL: what is asked, and what each answer means. Against a real server."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from scheduler import InvalidInputError, PermanentSendError, RetryLater, SendRequest, SendResult, Settings
from scheduler.service.handlers.webhook import LARGEST_ANSWER, WebhookSendHandler
from scheduler.testing import SettableClock
from tests.support.certificates import Certificates, make_certificates
from tests.support.scheduling import NOON
from tests.support.stage import Stage
from tests.support.walk import on, send, wait
from tests.support.web_receiver import Answer, Receiver, answers, receiving, resets, stalls, trickles

REQUEST = SendRequest(
    dedupe_key="acme:c-1:mail:1:send:sent",
    tenant_id="acme",
    campaign_id="c-1",
    contact_id="k-1",
    node_id="mail",
    node_visit=1,
    channel="email",
    address="ada@example.com",
    subject="Grüße",
    body="Hello Ada",
    variables={"first_name": "Ada"},
    planned_at=NOON,
    attempt=2,
)
SECRET: dict[str, Any] = {"webhook_secret": "hidden-secret"}
LONGEST = 5.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def make_settings(receiver: Receiver, **overrides: Any) -> Settings:
    values = {"webhook_url": receiver.url, "webhook_timeout": "PT5S", **overrides}
    return Settings(send_handler="webhook", **values)


def post(receiver: Receiver, request: SendRequest = REQUEST, **settings: Any) -> SendResult:
    return WebhookSendHandler(make_settings(receiver, **settings), SettableClock(NOON))(request)


def fault(receiver: Receiver, answer: Answer, **settings: Any) -> RetryLater | PermanentSendError:
    receiver.script = [answer]
    with pytest.raises((RetryLater, PermanentSendError)) as caught:
        post(receiver, **settings)
    assert isinstance(caught.value, RetryLater | PermanentSendError)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_posts_the_request_as_json(receiver: Receiver) -> None:
    post(receiver)
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/sends")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("timeout-scheduler/")
    assert json.loads(request.body) == {
        "dedupe_key": "acme:c-1:mail:1:send:sent",
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "node_id": "mail",
        "node_visit": 1,
        "channel": "email",
        "address": "ada@example.com",
        "subject": "Grüße",
        "body": "Hello Ada",
        "variables": {"first_name": "Ada"},
        "planned_at": "2026-03-02T12:00:00+00:00",
        "attempt": 2,
    }


def test_a_contact_without_an_address_is_posted_with_null(receiver: Receiver) -> None:
    values = {name: getattr(REQUEST, name) for name in REQUEST.__slots__}
    post(receiver, SendRequest(**{**values, "address": None}))
    assert json.loads(receiver.requests[0].body)["address"] is None


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("acme:c-1:mail:1:send:sent", "acme:c-1:mail:1:send:sent"),
        ("a%3Ab:c 1:grün:1:send:sent", "a%3Ab:c%201:gr%C3%BCn:1:send:sent"),
    ],
)
def test_the_idempotency_key_is_the_dedupe_key(receiver: Receiver, key: str, header: str) -> None:
    values = {name: getattr(REQUEST, name) for name in REQUEST.__slots__}
    post(receiver, SendRequest(**{**values, "dedupe_key": key}))
    assert receiver.requests[0].headers["idempotency-key"] == header


def test_the_signature_covers_timestamp_and_body(receiver: Receiver) -> None:
    post(receiver, **SECRET)
    (request,) = receiver.requests
    assert request.headers["x-timestamp"] == str(int(NOON.timestamp()))
    signed = request.headers["x-timestamp"].encode() + b"." + request.body
    expected = hmac.new(b"hidden-secret", signed, hashlib.sha256).hexdigest()
    assert request.headers["x-signature"] == f"sha256={expected}"


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    post(receiver)
    assert {"x-timestamp", "x-signature"}.isdisjoint(receiver.requests[0].headers)


def test_credentials_and_query_of_the_url_are_used(receiver: Receiver) -> None:
    post(receiver, webhook_url=receiver.url.replace("://", "://ada:p%40ss@") + "?list=1")
    (request,) = receiver.requests
    assert request.path == "/sends?list=1"
    assert request.headers["authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_sent(receiver: Receiver, status: int) -> None:
    receiver.script = [answers(status)]
    assert post(receiver) == SendResult()


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"message_id": "m-1"}', SendResult("m-1")),
        (b'{"message_id": "m-1", "sent_at": "2026-03-02T11:00:00Z"}', SendResult("m-1", NOON - timedelta(hours=1))),
        (b'{"message_id": null, "more": 1}', SendResult()),
        (b'["m-1"]', SendResult()),
        (b"thank you", SendResult()),
        (b"\xff\xfe", SendResult()),
        (b"[" * 60_000, SendResult()),
    ],
)
def test_a_json_object_may_hold_message_id_and_sent_time(receiver: Receiver, body: bytes, result: SendResult) -> None:
    receiver.script = [answers(200, body)]
    assert post(receiver) == result


@pytest.mark.parametrize(
    "body",
    [b'{"message_id": 7}', b'{"message_id": ""}', b'{"sent_at": "yesterday"}', b'{"sent_at": "2026-03-02T11:00:00"}'],
)
def test_what_is_unusable_of_an_answer_is_told_and_done_without(
    receiver: Receiver, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script = [answers(200, body)]
    assert post(receiver) == SendResult()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "send.answer_ignored" in record.getMessage()


def test_an_endless_answer_is_cut_off(receiver: Receiver) -> None:
    receiver.script = [answers(200, b'{"message_id": "m-1", "more": "' + b"x" * LARGEST_ANSWER + b'"}')]
    assert post(receiver) == SendResult()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(receiver: Receiver, status: int) -> None:
    error = fault(receiver, answers(status))
    assert isinstance(error, RetryLater)
    assert (error.after, str(error)) == (None, f"the webhook answered {status}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_any_other_4xx_is_permanent(receiver: Receiver, status: int) -> None:
    error = fault(receiver, answers(status, b"no such mailbox: ada@example.com"))
    assert isinstance(error, PermanentSendError)
    assert str(error) == f"the webhook answered {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    error = fault(receiver, answers(status, Location=f"{receiver.url}/elsewhere"))
    assert isinstance(error, PermanentSendError)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("120", timedelta(minutes=2)),
        ("0", timedelta(0)),
        ("Mon, 02 Mar 2026 12:05:00 GMT", timedelta(minutes=5)),
        ("Mon, 02 Mar 2026 11:00:00 GMT", timedelta(0)),
        ("999999999999999999", timedelta(days=1)),
        ("Fri, 01 Jan 2100 00:00:00 GMT", timedelta(days=1)),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_honoured_up_to_a_day(receiver: Receiver, value: str, after: timedelta | None) -> None:
    error = fault(receiver, answers(429, Retry_After=value))
    assert isinstance(error, RetryLater)
    assert error.after == after


@pytest.mark.parametrize(
    "answer",
    [stalls, resets, trickles(b""), trickles(b"HTTP/1.1 200 OK\r\nX-Slow: ")],
    ids=["stalls", "resets", "trickles", "trickles headers"],
)
def test_no_answer_is_tried_again_and_takes_no_longer_than_the_timeout(receiver: Receiver, answer: Answer) -> None:
    began = time.monotonic()
    error = fault(receiver, answer, webhook_timeout="PT0.3S")
    assert isinstance(error, RetryLater)
    assert time.monotonic() - began < LONGEST


def test_a_body_that_trickles_is_not_waited_for(receiver: Receiver) -> None:
    receiver.script = [trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{")]
    began = time.monotonic()
    assert post(receiver, webhook_timeout="PT0.3S") == SendResult()
    assert time.monotonic() - began < LONGEST


def test_nobody_there_is_tried_again(receiver: Receiver) -> None:
    receiver.close()
    with pytest.raises(RetryLater):
        post(receiver, webhook_url="http://127.0.0.1:9/sends")
    with pytest.raises(RetryLater):
        post(receiver, webhook_url="http://no-such-host.invalid/sends")


def test_a_connection_serves_one_send_after_the_other(receiver: Receiver) -> None:
    handler = WebhookSendHandler(make_settings(receiver))
    for _ in range(3):
        handler(REQUEST)
    assert (len(receiver.requests), receiver.connections) == (3, 1)


def test_a_repeat_after_a_failure_uses_the_same_key(receiver: Receiver) -> None:
    receiver.script = [resets, answers(500), answers(200)]
    handler = WebhookSendHandler(make_settings(receiver))
    for _ in range(2):
        with pytest.raises(RetryLater):
            handler(REQUEST)
    handler(REQUEST)
    assert len({request.headers["idempotency-key"] for request in receiver.requests}) == 1


def test_certificates_are_verified(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(certificates.server) as receiver:
        with pytest.raises(RetryLater):
            post(receiver)
        assert receiver.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert post(receiver) == SendResult()
        receiver.script = [trickles(b"HTTP/1.1 200 OK\r\nX-Slow: ")]
        began = time.monotonic()
        assert isinstance(fault(receiver, receiver.script[0], webhook_timeout="PT0.5S"), RetryLater)
        assert time.monotonic() - began < LONGEST
    with receiving(certificates.of_another_host) as receiver:
        with pytest.raises(RetryLater):
            post(receiver)
        assert receiver.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"webhook_url": None}, "SCHEDULER_WEBHOOK_URL: .*give the URL"),
        ({"webhook_url": "mail.example.com"}, r"SCHEDULER_WEBHOOK_URL: '\(not shown\)'"),
        ({"webhook_url": "ftp://ada:pass@example.com"}, r"SCHEDULER_WEBHOOK_URL: '\(not shown\)'"),
        ({"webhook_url": "https://ada:pass@example.com:x/"}, r"SCHEDULER_WEBHOOK_URL: '\(not shown\)'"),
        ({"webhook_timeout": "PT1M"}, "SCHEDULER_WEBHOOK_TIMEOUT: 'PT1M' .*less than SCHEDULER_LEASE, which is PT1M"),
    ],
)
def test_settings_that_cant_work_are_refused_by_name(
    receiver: Receiver, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        WebhookSendHandler(make_settings(receiver, **settings))
    assert "pass" not in str(caught.value)


MAIL = send("mail", on("opened", "next"), on("no_open", "stop", after="PT2H"))
NEXT = wait("next", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))


def test_the_answer_decides_about_the_campaign_and_no_secret_is_stored_or_logged(
    stage: Stage, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = receiver.url.replace("://", "://user:hidden-password@")
    stage.ts = stage.another(send_handler="webhook", webhook_url=url, **SECRET, max_attempts=9)
    receiver.script = [
        answers(503, b"ada@example.com hidden-answer"),
        answers(429, Retry_After="600"),
        resets,
        answers(200, b'{"message_id": "m-7"}'),
        answers(404, b"ada@example.com hidden-answer"),
    ]
    contact = {"address": "ada@example.com", "variables": {"first_name": "hidden-name"}}
    stage.enroll({**MAIL, "subject": "Dear {{first_name}}"}, NEXT, contact=contact)
    stage.run()
    assert stage.action(1, "sent").last_error == "RetryLater: the webhook answered 503"
    stage.run("PT2S")
    assert stage.action(1, "sent").run_at == NOON + timedelta(minutes=10, seconds=2)
    stage.run("PT10M")
    stage.run("PT1M")
    action = stage.action(1, "sent")
    assert (action.outcome, action.message_id, action.attempts) == ("sent", "m-7", 3)
    stage.enroll({**MAIL, "subject": "Dear {{first_name}}"}, NEXT, campaign="c-2", contact=contact)
    stage.run()
    assert (stage.campaign("c-2").status, stage.action(1, "sent", "c-2").status) == ("error", "error")
    stored = " ".join(action.last_error or "" for name in ("c-1", "c-2") for action in stage.actions(name))
    told = " ".join(record.getMessage() for record in caplog.records if record.name == "timeout_scheduler")
    for word in ("hidden", "ada@example.com", "localhost"):
        assert word not in stored
        assert word not in told
