"""Sends go out through a mail server: what it gets, and what each of its answers means. Against a real server."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scheduler import InvalidInputError, PermanentSendError, RetryLater, SendRequest, SendResult, Settings
from scheduler.service.handlers.smtp import SmtpSendHandler, message_id_of
from tests.support.certificates import Certificates, make_certificates
from tests.support.mail_server import Mail, MailServer, broken_mail_server, mail_server
from tests.support.scheduling import NOON
from tests.support.stage import Stage
from tests.support.walk import on, send, wait

KEY = "acme:c-1:mail:1:send:sent"
MESSAGE_ID = message_id_of(KEY, "acme.example")
REQUEST = SendRequest(
    dedupe_key=KEY,
    tenant_id="acme",
    campaign_id="c-1",
    contact_id="k-1",
    node_id="mail",
    node_visit=1,
    channel="email",
    address="ada@example.com",
    subject="A question",
    body="Hello Ada\n",
    planned_at=NOON,
)
OUR_FAULT = timedelta(minutes=10)
LOGIN: dict[str, Any] = {"smtp_username": "ada", "smtp_password": "open sesame"}
LONGEST = 5.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def servers() -> Any:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(mail_server(**options))


@pytest.fixture
def server(servers: Any) -> MailServer:
    found: MailServer = servers()
    return found


def make_settings(port: int, **overrides: Any) -> Settings:
    values = {
        "smtp_host": "localhost",
        "smtp_port": port,
        "smtp_tls": "none",
        "smtp_from": "Acme <hello@acme.example>",
        "smtp_timeout": "PT5S",
        **overrides,
    }
    return Settings(send_handler="smtp", **values)


def deliver(server: MailServer, request: SendRequest = REQUEST, **settings: Any) -> SendResult:
    return SmtpSendHandler(make_settings(server.port, **settings))(request)


def received(server: MailServer, request: SendRequest = REQUEST, **settings: Any) -> Mail:
    deliver(server, request, **settings)
    return server.mailbox.mails[-1]


def fault(port: int, request: SendRequest = REQUEST, **settings: Any) -> RetryLater | PermanentSendError:
    handler = SmtpSendHandler(make_settings(port, **settings))
    with pytest.raises((RetryLater, PermanentSendError)) as caught:
        handler(request)
    assert isinstance(caught.value, RetryLater | PermanentSendError)
    assert caught.value.__cause__ is None
    assert "example.com" not in str(caught.value)
    return caught.value


# What the mail is


def test_a_mail_has_sender_recipient_subject_body_and_date(server: MailServer) -> None:
    mail = received(server)
    assert (mail.sender, mail.recipients) == ("hello@acme.example", ["ada@example.com"])
    message = mail.message
    assert (message["From"], message["To"]) == ("Acme <hello@acme.example>", "ada@example.com")
    assert (message["Subject"], message.get_content()) == ("A question", "Hello Ada\r\n")
    assert message["Date"] is not None


def test_the_message_id_comes_from_the_dedupe_key(server: MailServer) -> None:
    result = deliver(server)
    assert result == SendResult(MESSAGE_ID)
    assert server.mailbox.mails[0].message["Message-ID"] == f"<{MESSAGE_ID}>"
    assert MESSAGE_ID.endswith("@acme.example")
    deliver(server)
    assert len({mail.message["Message-ID"] for mail in server.mailbox.mails}) == 1
    deliver(server, replace(REQUEST, dedupe_key="acme:c-2:mail:1:send:sent"))
    assert server.mailbox.mails[2].message["Message-ID"] != f"<{MESSAGE_ID}>"


def test_text_in_any_language_goes_out_as_seven_bits(server: MailServer) -> None:
    subject, body = "Grüße an Ada: 你好 " + "ü" * 200, "Čau, Ada!\n" + "ü" * 2000 + "\n"
    mail = received(server, replace(REQUEST, subject=subject, body=body))
    assert (mail.message["Subject"], mail.message.get_content().replace("\r\n", "\n")) == (subject, body)
    assert mail.content.isascii()
    assert max(map(len, mail.content.splitlines())) < 998


def test_lines_that_begin_with_a_dot_arrive_as_they_are(server: MailServer) -> None:
    body = ".\n..two\nend\n"
    assert received(server, replace(REQUEST, body=body)).message.get_content().replace("\r\n", "\n") == body


def test_a_mail_without_subject_and_body_is_a_mail(server: MailServer) -> None:
    mail = received(server, replace(REQUEST, subject=None, body=None))
    assert (mail.message["Subject"], mail.message.get_content().strip()) == ("", "")


def test_an_address_may_have_a_name(server: MailServer) -> None:
    mail = received(server, replace(REQUEST, address="Ada Lovelace <ada@example.com>"))
    assert mail.recipients == ["ada@example.com"]
    assert mail.message["To"] == "Ada Lovelace <ada@example.com>"


@pytest.mark.parametrize("address", [None, ""])
def test_a_contact_without_an_address_fails_for_good(server: MailServer, address: str | None) -> None:
    error = fault(server.port, replace(REQUEST, address=address))
    assert isinstance(error, PermanentSendError)
    assert str(error) == "the contact has no address"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Hello\r\nBcc: all@example.com"},
        {"subject": "Hello\nBcc: all@example.com"},
        {"subject": "Hello\x00"},
        {"address": "ada@example.com\r\nBcc: all@example.com"},
        {"address": "ada@example.com>\nRCPT TO:<all@example.com"},
        {"address": "ada@example.com, all@example.com"},
        {"address": "group: ada@example.com, all@example.com;"},
        {"address": "ada"},
        {"address": "@example.com"},
        {"address": "ada@"},
        {"address": "ada <ada@example.com> <all@example.com>"},
    ],
    ids=repr,
)
def test_no_header_can_be_smuggled_in_and_no_second_recipient(server: MailServer, changes: dict[str, Any]) -> None:
    assert isinstance(fault(server.port, replace(REQUEST, **changes)), PermanentSendError)
    assert server.mailbox.mails == []


def test_an_address_beyond_ascii_needs_a_server_that_takes_it(servers: Any) -> None:
    request = replace(REQUEST, address="jürgen@example.com")
    modern, old = servers(enable_SMTPUTF8=True), servers(enable_SMTPUTF8=False)
    assert received(modern, request).recipients == ["jürgen@example.com"]
    error = fault(old.port, request)
    assert isinstance(error, PermanentSendError)
    assert "not ASCII" in str(error)


# What the server says


@pytest.mark.parametrize("command", ["RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ("550 5.1.1 <ada@example.com>: unknown", PermanentSendError, "550 5.1.1"),
        ("554 go away", PermanentSendError, "554"),
        ("450 4.2.0 <ada@example.com>: greylisted", RetryLater, "450 4.2.0"),
        ("451 later", RetryLater, "451"),
    ],
)
def test_a_refusal_is_for_good_or_for_now_as_its_code_says(
    server: MailServer, command: str, answer: str, kind: type[Exception], said: str
) -> None:
    server.mailbox.refuse = {command: [answer]}
    error = fault(server.port)
    assert isinstance(error, kind)
    what = "the recipient" if command == "RCPT" else "the mail"
    assert str(error) == f"the mail server refused {what}: {said}"
    assert deliver(server) == SendResult(MESSAGE_ID)


@pytest.mark.parametrize(
    ("command", "answer", "after"),
    [
        ("MAIL", "550 5.7.1 not from here", OUR_FAULT),
        ("MAIL", "451 4.3.0 later", None),
        ("RCPT", "530 5.7.0 authentication required", OUR_FAULT),
        ("RCPT", "421 4.3.2 shutting down", None),
    ],
)
def test_what_is_no_contacts_fault_is_tried_again(
    server: MailServer, command: str, answer: str, after: timedelta | None
) -> None:
    server.mailbox.refuse = {command: [answer]}
    error = fault(server.port)
    assert isinstance(error, RetryLater)
    assert error.after == after


def test_a_mail_that_is_too_large_fails_for_good(servers: Any) -> None:
    server = servers(data_size_limit=1000)
    assert isinstance(fault(server.port, replace(REQUEST, body="x" * 5000)), PermanentSendError)


# Encryption and credentials


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_the_mail_and_the_credentials_go_over_verified_tls(
    servers: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    is_starttls = tls == "starttls"
    auth = {"auth_required": is_starttls, "auth_require_tls": is_starttls}
    server = servers(context=certificates.server, is_implicit=not is_starttls, **auth)
    settings: dict[str, Any] = {"smtp_tls": tls, **LOGIN}
    error = fault(server.port, **settings)
    assert isinstance(error, RetryLater)
    assert (error.after, "certificate" in str(error)) == (OUR_FAULT, True)
    assert (server.mailbox.mails, server.mailbox.logins) == ([], [])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    assert received(server, **settings).is_encrypted
    assert server.mailbox.logins == [(b"ada", b"open sesame")]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_the_certificate_must_be_the_hosts(
    servers: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    server = servers(context=certificates.of_another_host, is_implicit=tls == "tls")
    assert "certificate" in str(fault(server.port, smtp_tls=tls))
    assert server.mailbox.mails == []


def test_without_starttls_nothing_is_sent_in_the_clear(server: MailServer) -> None:
    error = fault(server.port, smtp_tls="starttls", **LOGIN)
    assert isinstance(error, RetryLater)
    assert error.after == OUR_FAULT
    assert (server.mailbox.mails, server.mailbox.logins) == ([], [])


def test_wrong_credentials_are_tried_again_later(servers: Any) -> None:
    server = servers(auth_require_tls=False)
    error = fault(server.port, **{**LOGIN, "smtp_password": "wrong sesame"})
    assert isinstance(error, RetryLater)
    assert error.after == OUR_FAULT
    assert str(error).startswith("the mail server refused the credentials: 535")
    assert "wrong sesame" not in str(error)


def test_a_server_that_takes_no_credentials_is_tried_again_later(servers: Any) -> None:
    error = fault(servers(auth_require_tls=True).port, **LOGIN)
    assert isinstance(error, RetryLater)
    assert error.after == OUR_FAULT


# A network that fails


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n", b"220 "])
@pytest.mark.parametrize("trickles", [False, True])
def test_the_whole_dialogue_ends_by_the_timeout(greeting: bytes, trickles: bool) -> None:  # noqa: FBT001
    with broken_mail_server(greeting, trickles=trickles) as port:
        began = time.monotonic()
        error = fault(port, smtp_timeout="PT0.3S")
        assert time.monotonic() - began < LONGEST
    assert isinstance(error, RetryLater)


def test_a_tls_handshake_ends_by_the_timeout() -> None:
    with broken_mail_server(trickles=True) as port:
        assert isinstance(fault(port, smtp_tls="tls", smtp_timeout="PT0.3S"), RetryLater)
    with broken_mail_server() as port:
        began = time.monotonic()
        assert isinstance(fault(port, smtp_tls="tls", smtp_timeout="PT0.3S"), RetryLater)
        assert time.monotonic() - began < LONGEST


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid", "x" * 70 + ".example"])
def test_nobody_there_is_tried_again(host: str) -> None:
    assert isinstance(fault(9, smtp_host=host), RetryLater)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smtp_host": None}, "SCHEDULER_SMTP_HOST: .*SEND_HANDLER is smtp"),
        ({"smtp_from": None}, "SCHEDULER_SMTP_FROM: .*SEND_HANDLER is smtp"),
        ({"smtp_from": "nobody"}, "SCHEDULER_SMTP_FROM: 'nobody' .*give an address"),
        ({"smtp_from": "a@b.example, c@d.example"}, "SCHEDULER_SMTP_FROM"),
        ({"smtp_from": "a@b.example\nBcc: c@d.example"}, "SCHEDULER_SMTP_FROM"),
        ({"smtp_from": "a@bücher.example"}, "SCHEDULER_SMTP_FROM: .*ASCII"),
        ({"smtp_from": f"a@{'x' * 60}.{'y' * 60}.example"}, "SCHEDULER_SMTP_FROM: .*95 characters"),
        ({"smtp_username": "ada"}, "SCHEDULER_SMTP_PASSWORD"),
        ({"smtp_password": "open sesame"}, "SCHEDULER_SMTP_USERNAME"),
        ({"smtp_timeout": "PT1M"}, "SCHEDULER_SMTP_TIMEOUT: 'PT1M' .*less than SCHEDULER_LEASE, which is PT1M"),
        ({"smtp_timeout": "PT9S", "lease": "PT5S"}, "SCHEDULER_SMTP_TIMEOUT"),
    ],
)
def test_settings_that_cant_work_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        SmtpSendHandler(make_settings(25, **settings))
    assert "open sesame" not in str(caught.value)


def test_a_bad_password_setting_is_not_shown() -> None:
    with pytest.raises(InvalidInputError) as caught:
        Settings(smtp_password=[b"open sesame"])
    assert "open sesame" not in str(caught.value)


# The campaign


MAIL = send("mail", on("opened", "next"), on("no_open", "stop", after="PT2H"))
WITH_WAY_OUT = send("mail", on("send_failed", "next"), on("no_open", "stop", after="PT2H"))
NEXT = wait("next", on("clicked", "stop"), on("no_click", "stop", after="PT2H"))
CONTACT = {"address": "ada@example.com", "variables": {"first_name": "hidden-name"}}


def test_the_servers_answers_decide_about_the_campaign_and_nothing_of_the_contact_is_stored_or_logged(
    stage: Stage, servers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "timeout_scheduler")
    server = servers(auth_require_tls=False)
    stage.ts = stage.another(
        send_handler="smtp",
        smtp_host="localhost",
        smtp_port=server.port,
        smtp_tls="none",
        smtp_from="hello@acme.example",
        **LOGIN,
    )
    server.mailbox.refuse = {"RCPT": ["451 4.7.1 <ada@example.com>: greylisted"]}
    stage.enroll({**MAIL, "subject": "Dear {{first_name}}"}, NEXT, contact=CONTACT)
    stage.run()
    assert stage.action(1, "sent").last_error == "RetryLater: the mail server refused the recipient: 451 4.7.1"
    stage.run("PT2S")
    assert (stage.action(1, "sent").message_id, stage.states()[1, "sent"]) == (MESSAGE_ID, "sent")
    assert stage.event("opened", campaign=None, message_id=MESSAGE_ID).outcome == "transitioned"
    assert server.mailbox.mails[0].message["Subject"] == "Dear hidden-name"

    server.mailbox.refuse = {"RCPT": ["550 5.1.1 <ada@example.com>: unknown"] * 2}
    stage.enroll(MAIL, NEXT, campaign="c-2", contact=CONTACT)
    stage.enroll(WITH_WAY_OUT, NEXT, campaign="c-3", contact=CONTACT)
    stage.enroll(WITH_WAY_OUT, NEXT, campaign="c-4")
    stage.run()
    assert (stage.campaign("c-2").status, stage.states("c-2")) == (
        "error",
        {(1, "sent"): "error", (1, "no_open"): "canceled"},
    )
    assert (stage.node("c-3"), stage.history("c-3")) == ("next", [("mail", "next", "send_failed")])
    assert stage.action(1, "sent", "c-4").last_error == "PermanentSendError: the contact has no address"

    stored = " ".join(action.last_error or "" for number in range(1, 5) for action in stage.actions(f"c-{number}"))
    told = " ".join(record.getMessage() for record in caplog.records)
    for word in ("ada@example.com", "hidden-name", "open sesame"):
        assert word not in stored
        assert word not in told
