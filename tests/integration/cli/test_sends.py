"""`sends take`, `confirm`, `fail`: the application's side of SEND_HANDLER=external, from a shell."""

from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, enrol

PLAN: dict[str, Any] = {
    "version": "1.0",
    "startNodeId": "mail",
    "nodes": [
        {
            "id": "mail",
            "action": "send",
            "subject": "Dear {{first_name}}",
            "transitions": [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop", "after": "PT24H"}],
        }
    ],
}
CONTACT = {"address": "ada@example.com", "variables": {"first_name": "Ada"}}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "acme:c-1:mail:1:send:sent"


@pytest.fixture(autouse=True)
def external(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - before the setting
    monkeypatch.setenv("SCHEDULER_SEND_HANDLER", "external")


def test_take_prints_a_list_of_what_is_to_be_sent(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    answer = command("sends", "take", "--lease", "PT1H", "--json")
    assert answer.code == 0
    assert answer.document == [
        {
            "dedupe_key": KEY,
            "tenant_id": "acme",
            "campaign_id": "c-1",
            "contact_id": "contact of c-1",
            "node_id": "mail",
            "node_visit": 1,
            "channel": "email",
            "address": "ada@example.com",
            "subject": "Dear Ada",
            "body": None,
            "variables": {"first_name": "Ada"},
            "planned_at": "2026-01-01T00:00:00+00:00",
            "attempt": 1,
        }
    ]
    assert command("sends", "take", "--json").document == []


def test_take_prints_a_table_for_people(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    lines = on_sqlite("sends", "take", "--tenant", "acme").out.splitlines()
    assert lines[0].split("  ")[0] == "dedupe key"
    assert lines[1].split() == [KEY, "email", "ada@example.com", "Dear", "Ada", "1"]


def test_take_is_refused_where_something_else_sends(on_sqlite: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_SEND_HANDLER", "log")
    answer = on_sqlite("sends", "take")
    assert answer.code == 2
    assert "SCHEDULER_SEND_HANDLER: 'log' is not usable: set it to external" in answer.err


@pytest.mark.parametrize(
    ("words", "option"),
    [(["--limit", "0"], "--limit"), (["--lease", "60"], "--lease"), (["--tenant", ""], "--tenant")],
)
def test_take_names_the_option_that_is_unusable(on_sqlite: Command, words: list[str], option: str) -> None:
    answer = on_sqlite("sends", "take", *words)
    assert (answer.code, answer.err.startswith(f"error: {option}: ")) == (2, True)


def test_confirm_closes_a_send(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    command("sends", "take")
    answer = command("sends", "confirm", KEY, "--sent-at", "2026-01-02T00:00:00Z", "--message-id", "m-1", "--json")
    assert (answer.code, answer.document) == (0, {"confirmed": True, "job_id": KEY})
    action = timeouts.find(KEY)
    assert action is not None
    assert (action.outcome, action.message_id, action.sent_at) == ("sent", "m-1", datetime(2026, 1, 2, tzinfo=UTC))


def test_confirm_means_now_unless_told_otherwise(command: Command, timeouts: TimeoutScheduler) -> None:
    before = timeouts.database.real_clock.now()
    enrol(timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    assert command("sends", "confirm", KEY).out == f"confirmed: {KEY}\n"
    action = timeouts.find(KEY)
    assert action is not None
    assert action.sent_at is not None
    assert abs((action.sent_at - before).total_seconds()) < 60


def test_fail_tries_again_later(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    command("sends", "take")
    answer = command("sends", "fail", KEY, "--reason", "provider is busy", "--retry-after", "PT1H", "--json")
    assert (answer.code, answer.document) == (0, {"failed": True, "job_id": KEY})
    action = timeouts.find(KEY)
    assert action is not None
    assert (action.status, action.last_error) == ("pending", "RetryLater: provider is busy")


def test_fail_for_good_ends_the_campaign(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, plan=PLAN, contact=CONTACT, start_at=LONG_AGO)
    command("sends", "take")
    assert command("sends", "fail", KEY, "--reason", "no such mailbox", "--permanent").out == f"failed: {KEY}\n"
    campaign = timeouts.campaigns.find("acme", "c-1")
    assert campaign is not None
    assert campaign.status == "error"


@pytest.mark.parametrize("words", [["confirm"], ["fail", "--reason", "no such mailbox"]])
def test_what_isnt_there_is_told(on_sqlite: Command, words: list[str]) -> None:
    answer = on_sqlite("sends", *words, "acme:c-9:mail:1:send:sent")
    assert answer.code == 1
    assert "acme:c-9:mail:1:send:sent" in answer.err
