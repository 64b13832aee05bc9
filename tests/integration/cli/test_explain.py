import re

import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import PLAN, Command, enrol

ONE = ("--tenant", "acme", "--campaign", "c-1")
NO_TIMER = {
    "version": "1.0",
    "startNodeId": "a",
    "nodes": [{"id": "a", "action": "wait", "transitions": [{"on": "replied", "to": "stop"}]}],
}


def test_explain_tells_what_happened_where_it_stands_and_what_it_waits_for(
    command: Command, timeouts: TimeoutScheduler
) -> None:
    enrol(timeouts)

    title, _, header, *lines = command("campaigns", "explain", *ONE).out.splitlines()

    assert title == "acme c-1, contact contact of c-1; instants in UTC"
    assert header.split() == ["when", "offset", "what"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \+0s +enrolled   contact .* enrolled at wait_open", lines[0])
    assert re.search(r" \+0s +scheduled  timeout no_open of wait_open \(visit 1\) scheduled for .*\(72 h ", lines[1])
    assert re.match(r"It stands: active, at wait_open \(visit 1\) since ", lines[3])
    assert lines[5].split() == ["waits", "for", "in", "until"]
    assert re.search(r" \+2d 23h +timeout no_open of wait_open \(visit 1\): leads to reminder$", lines[6])
    assert re.match(r"event +opened or clicked: leads to stop$", lines[7])


def test_explain_prints_the_latest_entries_up_to_the_limit(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)
    timeouts.campaigns.process_event("acme", "opened", campaign_id="c-1")

    lines = command("campaigns", "explain", *ONE, "--limit", "2").out.splitlines()
    document = command("campaigns", "explain", *ONE, "--limit", "2", "--json").document

    assert lines[2] == "(3 earlier entries left out; --limit shows more)"
    assert [line.split()[3] for line in lines[4:6]] == ["moved", "canceled"]
    assert len(document["entries"]) == 5


def test_explain_prints_one_document(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    document = command("campaigns", "explain", *ONE, "--json").document

    assert list(document) == [
        "tenant_id",
        "campaign_id",
        "contact_id",
        "plan_hash",
        "as_of",
        "entries",
        "standing",
        "waits_for",
    ]
    assert [one["kind"] for one in document["entries"]] == ["enrolled", "scheduled"]
    assert document["entries"][1]["facts"]["delay"] == "P3D"
    assert (document["standing"]["status"], document["standing"]["pauses"]) == ("active", [])
    assert document["waits_for"][1]["facts"] == {"event_types": ["opened", "clicked"], "leads_to": "stop"}


def test_explain_of_an_unknown_campaign_fails(on_sqlite: Command) -> None:
    answer = on_sqlite("campaigns", "explain", *ONE)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: tenant 'acme' has no campaign 'c-1': enroll it first\n"


@pytest.mark.parametrize("words", [("explain", *ONE), ("stuck",)])
def test_a_limit_of_nothing_is_refused(on_sqlite: Command, words: tuple[str, ...]) -> None:
    answer = on_sqlite("campaigns", *words, "--limit", "0")

    assert (answer.code, answer.out) == (2, "")
    assert "--limit: 0 is not usable: give a whole number from 1 to" in answer.err


def test_control_characters_of_an_id_are_not_printed(on_sqlite: Command, sqlite_timeouts: TimeoutScheduler) -> None:
    enrol(sqlite_timeouts, contact_id="k\x1b[31m")

    assert "\x1b" not in on_sqlite("campaigns", "explain", *ONE).out


def test_stuck_lists_who_waits_for_nothing(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)
    enrol(timeouts, "c-2", plan=NO_TIMER)
    enrol(timeouts, "c-3", plan=NO_TIMER, tenant_id="other")

    header, *lines = command("campaigns", "stuck").out.splitlines()
    document = command("campaigns", "stuck", "--tenant", "other", "--json").document

    assert header.split() == ["tenant", "campaign", "node", "visit", "since", "reason"]
    assert [line.split()[:4] for line in lines] == [["acme", "c-2", "a", "1"], ["other", "c-3", "a", "1"]]
    assert lines[0].endswith("a has no timeout; only replied can move it")
    assert [one["campaign"]["campaign_id"] for one in document] == ["c-3"]
    assert (document[0]["reason"], document[0]["error_action"]) == (
        "a has no timeout; only replied can move it",
        None,
    )


def test_stuck_says_when_there_may_be_more(command: Command, timeouts: TimeoutScheduler) -> None:
    for campaign in ("c-1", "c-2"):
        enrol(timeouts, campaign, plan=NO_TIMER)

    answer = command("campaigns", "stuck", "--limit", "1")

    assert (answer.code, len(answer.out.splitlines()), answer.err) == (0, 2, "the first 1; --limit shows more\n")


def test_stuck_hands_over_the_action_in_error(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, plan=PLAN)
    with timeouts.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE scheduled_actions SET status = 'error', last_error = 'KeyError: x', finished_at = run_at"
        )

    (document,) = command("campaigns", "stuck", "--json").document

    assert document["error_action"]["dedupe_key"] == "acme:c-1:wait_open:1:timeout:no_open"
