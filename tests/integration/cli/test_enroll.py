from datetime import UTC, datetime

import pytest

from scheduler import CampaignPlan, TimeoutScheduler
from tests.integration.cli.conftest import PLAN, Command, enrol, is_empty

ONE = ("enroll", "--tenant", "acme", "--campaign", "c-1", "--contact", "k-1", "--plan", "plan.json")


def test_enroll_starts_a_contact_on_a_plan(command: Command, timeouts: TimeoutScheduler) -> None:
    answer = command(*ONE, "--start-at", "2026-03-02T13:00:00+01:00")

    campaign = timeouts.campaigns.find("acme", "c-1")
    assert campaign is not None
    assert answer.out == "enrolled acme c-1 (contact k-1): active at wait_open, visit 1\n"
    assert (answer.code, answer.err) == (0, "")
    assert campaign.started_at == datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_enroll_keeps_what_is_known_of_the_contact(command: Command, timeouts: TimeoutScheduler) -> None:
    command(*ONE, "--address", "a@example.com", "--timezone", "Europe/Berlin", "--variable", "name=a=b")

    with timeouts.database.reading() as transaction:
        contact = timeouts.stores.contacts.read(transaction, [("acme", "k-1")])[("acme", "k-1")]
    assert (contact.address, contact.timezone, contact.variables) == ("a@example.com", "Europe/Berlin", {"name": "a=b"})


def test_enroll_again_changes_nothing_and_says_so(command: Command) -> None:
    command(*ONE)

    answer = command(*ONE)

    assert answer.code == 0
    assert answer.out == "unchanged, it existed already: acme c-1 (contact k-1): active at wait_open, visit 1\n"


def test_enroll_takes_the_hash_of_a_stored_plan(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts, "c-2")

    answer = on_sqlite(*ONE[:-1], CampaignPlan.parse(PLAN).hash, "--json")

    assert answer.document["is_new"] is True
    assert answer.document["campaign"]["plan_hash"] == CampaignPlan.parse(PLAN).hash


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tenant", ""), "--tenant: '' is not usable: give at least one character"),
        (("--contact", "k" * 129), "--contact: 'kkk"),
        (("--plan", "missing.json"), "--plan: 'missing.json' is not usable: it can't be read: No such file"),
        (("--plan", "a" * 64), "has no stored plan of this hash"),
        (("--start-at", "2026-03-02T12:00:00"), "--start-at: '2026-03-02T12:00:00' is not usable: it has no offset"),
        (("--timezone", "Mars/Base"), "--timezone: 'Mars/Base' is not usable: it isn't a known IANA time zone"),
        (("--address", ""), "--address: '' is not usable: give a text of 1 to 1024 characters"),
        (("--variable", "first name=Ada"), "--variable: 'first name=Ada' is not usable: write name=value"),
        (("--variable", "a=1", "--variable", "a=2"), "--variable: 'a=2' is not usable: a is given twice"),
        (("--skip-bad",), "--skip-bad: leave it out: it belongs to --from"),
    ],
)
def test_bad_input_names_option_value_and_remedy_and_writes_nothing(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, words: tuple[str, ...], message: str
) -> None:
    answer = on_sqlite(*ONE, *words)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert is_empty(sqlite_timeouts)


@pytest.mark.parametrize("option", ["--tenant", "--campaign", "--contact", "--plan"])
def test_a_missing_option_is_named(on_sqlite: Command, option: str) -> None:
    words = list(ONE)
    position = words.index(option)
    del words[position : position + 2]

    answer = on_sqlite(*words)

    assert answer.code == 2
    assert answer.err == f"error: {option}: it is missing: give it, or --from FILE for many contacts\n"


def test_a_plan_with_faults_is_refused_with_all_of_them(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    answer = on_sqlite(*ONE[:-1], '{"version": "2", "startNodeId": "x", "nodes": []}')

    assert answer.code == 2
    assert answer.err.startswith("error: the plan has ")
    assert "$.version: '2':" in answer.err
    assert "$.nodes" in answer.err
    assert is_empty(sqlite_timeouts)


def test_without_the_schema_it_fails_and_says_what_to_run(bare: Command, empty_sqlite_url: str) -> None:
    answer = bare("--database-url", empty_sqlite_url, *ONE)

    assert (answer.code, answer.out) == (1, "")
    assert "run `timeout-scheduler db upgrade`" in answer.err
