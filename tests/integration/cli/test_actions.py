from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler import (
    Outcome,
    PermanentSendError,
    ScheduledAction,
    SendRequest,
    Settings,
    TimeoutJob,
    TimeoutScheduler,
)
from tests.integration.cli.conftest import PLAN, Command, enrol

AT = datetime(2030, 3, 2, 12, tzinfo=UTC)
JOB_ID = "acme:c-1:n:1:timeout:no_open"


def make_job(
    campaign_id: str = "c-1", scheduled_at: datetime = AT, node_id: str = "n", tenant: str = "acme"
) -> TimeoutJob:
    return TimeoutJob(
        tenant_id=tenant,
        campaign_id=campaign_id,
        contact_id="k-1",
        node_id=node_id,
        event_type="no_open",
        scheduled_at=scheduled_at,
    )


class Refusing:
    """A state manager of an application that can't do what it is asked for."""

    def process(self, _: Any, jobs: Sequence[ScheduledAction]) -> list[Outcome | Exception]:
        """Refuse every job."""
        return [ValueError("no such campaign") for _ in jobs]


def fail_a_timeout(database_url: str) -> str:
    """Leave a timeout in error."""
    timeout_scheduler = TimeoutScheduler(database_url, settings=Settings(max_attempts=1), state_manager=Refusing())
    job_id = timeout_scheduler.schedule(make_job(scheduled_at=datetime(2020, 3, 2, tzinfo=UTC)))
    timeout_scheduler.run_due()
    timeout_scheduler.close()
    return job_id


def fail_a_send(database_url: str) -> str:
    """Leave a send in error, and with it its campaign."""

    def refuse(_: SendRequest) -> None:
        raise PermanentSendError("no such mailbox")

    timeout_scheduler = TimeoutScheduler(database_url, send_handler=refuse)
    plan = {**PLAN, "startNodeId": "reminder", "nodes": PLAN["nodes"][1:]}
    enrol(timeout_scheduler, plan=plan, contact={"variables": {"first_name": "Ada"}})
    timeout_scheduler.run_due()
    timeout_scheduler.close()
    return "acme:c-1:reminder:1:send:sent"


def test_list_shows_the_earliest_due_first_in_utc_with_offset(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.schedule_many([make_job("late", AT + timedelta(days=1)), make_job()])

    lines = command("actions", "list").out.splitlines()

    assert lines[0].split() == ["run", "at", "status", "outcome", "attempts", "dedupe", "key"]
    assert lines[1].split() == ["2030-03-02", "12:00:00+00:00", "pending", "-", "0", JOB_ID]
    assert lines[2].endswith("acme:late:n:1:timeout:no_open")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["c-1", "c-2", "c-3"]),
        (("--tenant", "other"), ["c-3"]),
        (("--campaign", "c-2"), ["c-2"]),
        (("--node", "m"), ["c-2"]),
        (("--status", "canceled"), ["c-1"]),
        (("--status", "canceled", "--status", "pending"), ["c-1", "c-2", "c-3"]),
        (("--type", "send"), []),
        (("--due-before", "2030-03-03T00:00:00Z"), ["c-1"]),
        (("--limit", "2"), ["c-1", "c-2"]),
    ],
)
def test_list_shows_what_is_asked_for(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, words: tuple[str, ...], expected: list[str]
) -> None:
    first = make_job()
    second = make_job("c-2", AT + timedelta(days=1), node_id="m")
    sqlite_timeouts.schedule_many([first, second, make_job("c-3", AT + timedelta(days=2), tenant="other")])
    sqlite_timeouts.cancel(first.dedupe_key)

    answer = on_sqlite("actions", "list", *words, "--json")

    assert [action["campaign_id"] for action in answer.document] == expected


def test_ids_are_printed_without_their_control_characters(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler
) -> None:
    sqlite_timeouts.schedule(make_job("\x1b[31mred\n\u202e"))

    assert "acme:%1B[31mred%0A\\u202e:n:1" in on_sqlite("actions", "list").out


def test_show_prints_one_action(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.schedule(make_job())

    assert "run at         2030-03-02 12:00:00+00:00" in command("actions", "show", JOB_ID).out
    assert command("actions", "show", JOB_ID, "--json").document["dedupe_key"] == JOB_ID


def test_cancel_ends_an_action_with_its_reason(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.schedule(make_job())

    answer = command("actions", "cancel", JOB_ID, "--reason", "left the company")

    action = timeouts.find(JOB_ID)
    assert action is not None
    assert (answer.code, answer.out) == (0, f"canceled: {JOB_ID}\n")
    assert (action.status, action.outcome) == ("canceled", "left the company")


def test_cancel_of_a_finished_action_fails_and_says_what_it_is(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler
) -> None:
    sqlite_timeouts.cancel(sqlite_timeouts.schedule(make_job()))

    answer = on_sqlite("actions", "cancel", JOB_ID, "--json")

    assert answer.code == 1
    assert answer.err == f"error: not canceled: {JOB_ID}: it is canceled\n"
    assert answer.document["canceled"] is False


def test_retry_reopens_an_action_in_error(command: Command, database_url: str) -> None:
    job_id = fail_a_timeout(database_url)
    failed = command("actions", "list", "--status", "error", "--json").document

    answer = command("actions", "retry", job_id)

    assert [action["last_error"] for action in failed] == ["ValueError: no such campaign"]
    assert (answer.code, answer.out) == (0, f"retried: {job_id}\n")
    assert command("actions", "show", job_id, "--json").document["status"] == "pending"


def test_retry_of_a_send_takes_its_campaign_with_it(command: Command, database_url: str) -> None:
    job_id = fail_a_send(database_url)
    assert command("campaigns", "show", "--tenant", "acme", "--campaign", "c-1", "--json").document["status"] == "error"

    answer = command("actions", "retry", job_id)

    assert answer.out == f"retried: {job_id}\n"
    assert (
        command("campaigns", "show", "--tenant", "acme", "--campaign", "c-1", "--json").document["status"] == "active"
    )


def test_retry_of_a_visit_that_was_left_fails(on_sqlite: Command, sqlite_url: str) -> None:
    job_id = fail_a_send(sqlite_url)
    on_sqlite("campaigns", "stop", "--tenant", "acme", "--campaign", "c-1")
    with TimeoutScheduler(sqlite_url) as timeout_scheduler:
        enrol(timeout_scheduler, restart=True)

    answer = on_sqlite("actions", "retry", job_id)

    assert answer.code == 1
    assert answer.err == f"error: not retried: {job_id}: its visit was left already\n"


@pytest.mark.parametrize("act", ["show", "cancel", "retry"])
def test_an_unknown_action_fails(on_sqlite: Command, act: str) -> None:
    answer = on_sqlite("actions", act, JOB_ID)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"error: there is no action '{JOB_ID}': `actions list` shows those there are\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "nonsense"), "JOB_ID: 'nonsense' is not usable: give a dedupe key"),
        (("cancel", "nonsense"), "JOB_ID: 'nonsense' is not usable: give a dedupe key"),
        (("retry", "nonsense"), "JOB_ID: 'nonsense' is not usable: give a dedupe key"),
        (("cancel", JOB_ID, "--reason", " "), "--reason: ' ' is not usable: give 1 to 1000 characters"),
        (("cancel", JOB_ID, "--reason", "\udcff"), "--reason: '\\udcff' is not usable: give text in"),
        (("list", "--limit", "0"), "--limit: 0 is not usable: give a whole number from 1 to 100000"),
        (("list", "--tenant", ""), "--tenant: '' is not usable: give at least one character"),
        (("list", "--due-before", "now"), "--due-before: 'now' is not usable: write an instant such as"),
        (("list", "--status", "asleep"), "Invalid value for '--status': 'asleep' is not one of 'pending', 'claimed'"),
        (("list", "--type", "x"), "Invalid value for '--type'"),
        (("show",), "Missing argument 'JOB_ID'"),
    ],
)
def test_bad_input_names_option_value_and_remedy(on_sqlite: Command, words: tuple[str, ...], message: str) -> None:
    answer = on_sqlite("actions", *words)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert message in answer.err
