from datetime import UTC, datetime, timedelta

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, is_empty

JOB_ID = "acme:c-1:n:1:timeout:no_open"
ONE = ("schedule", "--tenant", "acme", "--campaign", "c-1", "--contact", "k-1", "--node", "n", "--event", "no_open")


def test_schedule_prints_the_job_id_and_that_it_is_new(command: Command, timeouts: TimeoutScheduler) -> None:
    answer = command(*ONE, "--at", "2030-03-02T13:00:00+01:00")

    action = timeouts.find(JOB_ID)
    assert action is not None
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"{JOB_ID}\nnew: fires at 2030-03-02 12:00:00+00:00\n"
    assert action.run_at == datetime(2030, 3, 2, 12, tzinfo=UTC)


def test_schedule_after_a_duration_counts_from_the_databases_present(
    command: Command, timeouts: TimeoutScheduler
) -> None:
    command(*ONE, "--after", "PT72H", "--visit", "2")

    (action,) = timeouts.pending()
    assert action.node_visit == 2
    assert abs(action.run_at - action.created_at - timedelta(hours=72)) < timedelta(minutes=1)


def test_the_same_timeout_again_exists_already_and_the_other_instant_is_told(command: Command) -> None:
    command(*ONE, "--at", "2030-03-02T12:00:00Z")

    answer = command(*ONE, "--at", "2031-03-02T12:00:00Z")

    assert answer.code == 0
    assert answer.out == f"{JOB_ID}\nexisted already, unchanged: pending, 2030-03-02 12:00:00+00:00\n"
    assert answer.err.startswith("warning: event=action.schedule_ignored")


def test_schedule_as_json(on_sqlite: Command) -> None:
    document = on_sqlite(*ONE, "--at", "2030-03-02T12:00:00Z", "--json").document

    assert (document["job_id"], document["is_new"]) == (JOB_ID, True)
    assert document["action"]["run_at"] == "2030-03-02T12:00:00+00:00"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--at, --after: give one of them, such as --after PT72H"),
        (("--at", "2030-03-02T12:00:00Z", "--after", "PT1H"), "--at, --after: give one of them"),
        (("--at", "2030-03-02T12:00:00"), "--at: '2030-03-02T12:00:00' is not usable: it has no offset"),
        (("--after", "72h"), "--after: '72h' is not usable: write an ISO-8601 duration such as PT72H"),
        (("--after", "PT1H", "--visit", "0"), "--visit: 0 is not usable: give a whole number from 1 on"),
        (("--after", "PT1H", "--event", "opened"), "--event: 'opened' is not usable: give a synthetic event"),
        (("--after", "PT1H", "--node", ""), "--node: '' is not usable: give at least one character"),
        (("--after", "PT1H", "--visit", "x"), "Invalid value for '--visit'"),
    ],
)
def test_bad_input_names_option_value_and_remedy_and_writes_nothing(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, words: tuple[str, ...], message: str
) -> None:
    answer = on_sqlite(*ONE, *words)

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert is_empty(sqlite_timeouts)
