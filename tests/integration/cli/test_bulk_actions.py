"""`actions retry` and `cancel` without a job id: a dry run first, then all that the options describe."""

import json
from datetime import UTC, datetime

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command
from tests.integration.cli.test_actions import Refusing, make_job
from tests.support.scheduling import make_settings, query

OLD = datetime(2020, 3, 2, tzinfo=UTC)


def fail_some(database_url: str, count: int = 3) -> None:
    failing = TimeoutScheduler(database_url, settings=make_settings(max_attempts=1), state_manager=Refusing())
    failing.schedule_many([make_job(f"c-{number}", OLD) for number in range(count)])
    failing.run_due()
    failing.close()


def test_a_dry_run_counts_and_the_same_words_without_it_retry(
    command: Command, database_url: str, timeouts: TimeoutScheduler
) -> None:
    fail_some(database_url)
    words = ("actions", "retry", "--tenant", "acme", "--reason", "no such", "--since", "PT1H")

    dry = command(*words, "--dry-run", "--json").document
    shown = command(*words, "--dry-run").out.splitlines()
    assert ((dry["matched"], dry["left"], dry["claimed"]), len(dry["sample"])) == ((3, 0, 0), 3)
    assert (shown[0], shown[1]) == ("would be retried: 3", "the first of them")
    assert {one.status for one in timeouts.list_actions()} == {"error"}

    assert command(*words, "--actor", "alex").out == "retried: 3\n"

    assert {one.status for one in timeouts.list_actions()} == {"pending"}
    acts = query(timeouts, "SELECT act, actor FROM operator_actions")
    assert [tuple(row) for row in acts] == [("actions.retried", "alex")] * 2
    assert command(*words, "--json").document == {"retried": 0, "left": 0, "busy": 0}


def test_cancel_takes_what_is_described_and_keeps_the_reason(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.schedule_many([make_job(), make_job("c-2"), make_job("c-3", tenant="other")])

    answer = command(
        "actions", "cancel", "--tenant", "acme", "--event", "no_open", "--reason", "a wrong plan", "--json"
    )

    assert answer.document == {"canceled": 2, "left": 0, "busy": 0}
    found = {one.campaign_id: (one.status, one.outcome) for one in timeouts.list_actions()}
    assert found == {"c-1": ("canceled", "a wrong plan"), "c-2": ("canceled", "a wrong plan"), "c-3": ("pending", None)}
    assert command("actions", "cancel", "--all").out == "canceled: 1\n"


def test_what_failed_for_good_is_given_up_one_by_one_or_all_at_once(
    command: Command, timeouts: TimeoutScheduler, database_url: str
) -> None:
    fail_some(database_url)
    timeouts.schedule(make_job("c-9"))
    job_id = make_job("c-0").dedupe_key
    give_up = ("actions", "cancel", "--in-error", "--reason", "a wrong plan")

    refused = command("actions", "cancel", job_id)
    assert (refused.code, refused.err) == (1, f"error: not canceled: {job_id}: it is error\n")
    assert command(*give_up, job_id, "--json").document["given_up"] is True
    assert command(*give_up, job_id).err == f"error: not given up: {job_id}: it is canceled\n"
    assert command(*give_up, "--tenant", "acme", "--dry-run").out.startswith("would be given up: 2\n")
    assert command(*give_up, "--tenant", "acme", "--json").document == {"given_up": 2, "left": 0, "busy": 0}

    statuses = sorted((one.status, one.outcome) for one in timeouts.list_actions())
    assert statuses == [*[("canceled", "a wrong plan")] * 3, ("pending", None)]


def test_one_by_one_is_noted_with_who_did_it(
    command: Command, timeouts: TimeoutScheduler, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alex")
    fail_some(database_url, 1)
    job_id = make_job("c-0").dedupe_key
    command("actions", "retry", job_id)
    command("actions", "cancel", job_id, "--actor", "ada", "--reason", "left")
    command("actions", "cancel", job_id)

    rows = query(timeouts, "SELECT act, actor, campaign_id, details FROM operator_actions ORDER BY act DESC")
    assert [tuple(row[:3]) for row in rows] == [("action.retried", "alex", "c-0"), ("action.canceled", "ada", "c-0")]
    assert json.loads(rows[1][3]) == {"reason": "left", "dedupe_key": job_id}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("retry",), "JOB_ID: give it, or --tenant, or --all"),
        (("cancel", "--campaign", "c-1"), "JOB_ID: give it, or --tenant, or --all"),
        (("cancel", "--all", "--campaign", "c-1"), "--tenant: give the campaign's tenant"),
        (("cancel", "--all", "--tenant", "acme"), "--all: leave out --tenant, or --all"),
        (
            ("retry", "a:b:c:1:timeout:no_open", "--dry-run"),
            "JOB_ID: 'a:b:c:1:timeout:no_open' is not usable: leave it out",
        ),
        (("retry", "--all", "--since", "yesterday"), "--since: 'yesterday' is not usable"),
        (("retry", "--all", "--since", "P1M"), "--since: 'P1M' is not usable: use weeks"),
        (("retry", "--all", "--reason", ""), "--error: '' is not usable"),
        (("retry", "--tenant", ""), "--tenant: '' is not usable"),
    ],
)
def test_bad_input_names_option_value_and_remedy(on_sqlite: Command, words: tuple[str, ...], message: str) -> None:
    answer = on_sqlite("actions", *words)

    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
