"""The daemon and real servers: killed in between it sends the same mail again; a hung server delays no timeout."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler import TimeoutScheduler
from tests.support.daemon import DaemonProcess, environment, running
from tests.support.eventually import eventually
from tests.support.mail_server import mail_server
from tests.support.walk import make_document, on, send, wait
from tests.support.web_receiver import Received, answers, receiving, stalls

KEY = "acme:c-1:mail:1:send:sent"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MAIL = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="P36500D")))
WAIT = make_document(wait("first", on("opened", "stop"), on("no_open", "stop", after="PT1H")))
CONTACT = {"address": "ada@example.com"}


@pytest.fixture
def scheduler(sqlite_url: str) -> Iterator[TimeoutScheduler]:
    """For looking, and for enrolling; the daemons fire."""
    with closing(TimeoutScheduler(sqlite_url, send_handler="external")) as found:
        yield found


def is_sent(scheduler: TimeoutScheduler) -> bool:
    action = scheduler.find(KEY)
    return action is not None and action.outcome == "sent"


def test_a_webhook_gets_the_same_key_again_from_the_process_after_the_one_that_was_killed(
    scheduler: TimeoutScheduler, sqlite_url: str, tmp_path: Path
) -> None:
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL, contact=CONTACT)
    daemons: list[DaemonProcess] = []

    def kills(_receiver: Any, _connection: Any, _request: Received) -> None:
        eventually(lambda: daemons)
        daemons[0].kill()

    with receiving() as receiver:
        receiver.script = [kills, answers(200, b'{"message_id": "m-1"}')]
        env = environment(
            sqlite_url,
            SCHEDULER_SEND_HANDLER="webhook",
            SCHEDULER_WEBHOOK_URL=f"{receiver.url}?token=hidden-token",
            SCHEDULER_WEBHOOK_SECRET="hidden-secret",  # noqa: S106 - it is to be looked for
            SCHEDULER_WEBHOOK_TIMEOUT="PT1S",
            SCHEDULER_LOG_LEVEL="DEBUG",
        )
        with running(tmp_path, env, "first") as first:
            daemons.append(first)
            first.process.wait(30)
        assert not is_sent(scheduler)
        with running(tmp_path, env, "second"):
            eventually(lambda: is_sent(scheduler))
    assert [request.headers["idempotency-key"] for request in receiver.requests] == [KEY, KEY]
    assert [json.loads(request.body)["attempt"] for request in receiver.requests] == [1, 1]
    logged = (tmp_path / "first.log").read_text("utf-8") + (tmp_path / "second.log").read_text("utf-8")
    assert "action.completed" in logged
    for word in ("hidden-token", "hidden-secret", "ada@example.com"):
        assert word not in logged


def test_a_mail_has_the_same_message_id_again_after_the_process_was_killed(
    scheduler: TimeoutScheduler, sqlite_url: str, tmp_path: Path
) -> None:
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL, contact=CONTACT)
    daemons: list[DaemonProcess] = []

    with mail_server() as server:

        def kill() -> None:
            if len(server.mailbox.mails) == 1:
                eventually(lambda: daemons)
                daemons[0].kill()

        server.mailbox.on_mail = kill
        env = environment(
            sqlite_url,
            SCHEDULER_SEND_HANDLER="smtp",
            SCHEDULER_SMTP_HOST="localhost",
            SCHEDULER_SMTP_PORT=str(server.port),
            SCHEDULER_SMTP_TLS="none",
            SCHEDULER_SMTP_FROM="hello@acme.example",
            SCHEDULER_SMTP_TIMEOUT="PT1S",
        )
        with running(tmp_path, env, "first") as first:
            daemons.append(first)
            first.process.wait(30)
        assert not is_sent(scheduler)
        with running(tmp_path, env, "second"):
            eventually(lambda: is_sent(scheduler))
    message_ids = [mail.message["Message-ID"] for mail in server.mailbox.mails]
    assert len(message_ids) == 2
    action = scheduler.find(KEY)
    assert action is not None
    assert set(message_ids) == {f"<{action.message_id}>"}


def test_a_hung_server_delays_no_timeout(scheduler: TimeoutScheduler, sqlite_url: str, tmp_path: Path) -> None:
    for number in range(20):
        scheduler.campaigns.enroll("acme", f"m-{number}", f"k-{number}", MAIL, contact=CONTACT)
    with receiving() as receiver:
        receiver.script = [stalls]
        env = environment(
            sqlite_url,
            SCHEDULER_SEND_HANDLER="webhook",
            SCHEDULER_WEBHOOK_URL=receiver.url,
            SCHEDULER_WEBHOOK_TIMEOUT="PT1M",
            SCHEDULER_LEASE="PT2M",
            SCHEDULER_SHUTDOWN_TIMEOUT="PT0S",
        )
        with running(tmp_path, env):
            for _ in range(4):  # every worker that sends
                assert receiver.stalled.acquire(timeout=30)
            for number in range(50):
                scheduler.campaigns.enroll("acme", f"w-{number}", "k-1", WAIT, start_at=LONG_AGO)
            eventually(lambda: all(_is_completed(scheduler, f"w-{number}") for number in range(50)))
            assert len(receiver.requests) == 4
            assert not any(_is_completed(scheduler, f"m-{number}") for number in range(20))


def _is_completed(scheduler: TimeoutScheduler, campaign_id: str) -> bool:
    campaign = scheduler.campaigns.find("acme", campaign_id)
    return campaign is not None and campaign.status == "completed"


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"SCHEDULER_SEND_HANDLER": "smtp"}, "SCHEDULER_SMTP_HOST"),
        ({"SCHEDULER_SEND_HANDLER": "webhook"}, "SCHEDULER_WEBHOOK_URL"),
        (
            {
                "SCHEDULER_SEND_HANDLER": "webhook",
                "SCHEDULER_WEBHOOK_URL": "https://mail.example.com/",
                "SCHEDULER_WEBHOOK_TIMEOUT": "PT3S",
            },
            "SCHEDULER_WEBHOOK_TIMEOUT",
        ),
    ],
)
def test_the_daemon_doesnt_start_without_what_its_handler_needs(
    scheduler: TimeoutScheduler, sqlite_url: str, tmp_path: Path, settings: dict[str, str], missing: str
) -> None:
    scheduler.campaigns.enroll("acme", "w-1", "k-1", WAIT, start_at=LONG_AGO)
    daemon = DaemonProcess(tmp_path, environment(sqlite_url, **settings))
    assert daemon.process.wait(30) == 2
    assert missing in daemon.log.read_text("utf-8")
    assert not _is_completed(scheduler, "w-1")


def test_what_is_reported_of_a_failed_send_holds_no_secret_and_nothing_of_the_contact(
    scheduler: TimeoutScheduler, sqlite_url: str, tmp_path: Path
) -> None:
    contact = {"address": "ada@example.com", "variables": {"first_name": "hidden-name"}}
    scheduler.campaigns.enroll("acme", "c-1", "k-1", MAIL, contact=contact)
    with receiving() as sentry, receiving() as receiver:
        sentry.script = [answers(200, b"{}")]
        receiver.script = [answers(404, b"hidden-answer about ada@example.com")]
        env = environment(
            sqlite_url,
            SCHEDULER_SENTRY_DSN=f"http://public@localhost:{sentry.port}/1",
            SCHEDULER_SEND_HANDLER="webhook",
            SCHEDULER_WEBHOOK_URL=receiver.url.replace("://", "://ada:hidden-password@") + "?token=hidden-token",
            SCHEDULER_WEBHOOK_SECRET="hidden-secret",  # noqa: S106 - it is to be looked for
            SCHEDULER_WEBHOOK_TIMEOUT="PT1S",
        )
        with running(tmp_path, env) as daemon:
            eventually(lambda: sentry.requests)
            daemon.terminate()
    assert {"sentry-trace", "baggage"}.isdisjoint(receiver.requests[0].headers)
    reported = b"".join(unpacked(request) for request in sentry.requests)
    assert b"the webhook answered 404" in reported
    for word in (b"hidden", b"ada@example.com"):
        assert word not in reported


def unpacked(request: Received) -> bytes:
    return gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
