import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, enrol

ONE = ("--tenant", "acme", "--campaign", "c-1")


def test_show_says_where_a_campaign_is_and_what_is_to_come(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    shown, document = command("campaigns", "show", *ONE), command("campaigns", "show", *ONE, "--json").document

    assert "current node id  wait_open\n" in shown.out
    assert shown.out.endswith("acme:c-1:wait_open:1:timeout:no_open\n")
    assert (document["status"], document["node_visit"]) == ("active", 1)
    assert [action["event_type"] for action in document["actions"]] == ["no_open"]


def test_history_lists_the_visits_left(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)
    timeouts.campaigns.process_event("acme", "opened", campaign_id="c-1")

    printed = command("campaigns", "history", *ONE).out.splitlines()
    document = command("campaigns", "history", *ONE, "--json").document

    assert [line.split()[:4] for line in printed] == [
        ["visit", "from", "event", "to"],
        ["0", "-", "enrolled", "wait_open"],
        ["1", "wait_open", "opened", "stop"],
    ]
    assert [one["trigger"] for one in document] == ["enrolled", "opened"]


def test_pause_resume_and_stop_say_what_the_campaign_is_now(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    paused = command("campaigns", "pause", *ONE, "--actor", "alex", "--reason", "on holiday")
    resumed = command("campaigns", "resume", *ONE)
    stopped = command("campaigns", "stop", *ONE, "--json")

    assert paused.out == "acme c-1: paused, at wait_open, visit 1\n"
    assert resumed.out == "acme c-1: active, at wait_open, visit 1\n"
    assert stopped.document["status"] == "stopped"


@pytest.mark.parametrize("act", ["show", "history", "pause", "resume", "stop"])
def test_an_unknown_campaign_fails(on_sqlite: Command, act: str) -> None:
    answer = on_sqlite("campaigns", act, *ONE)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: tenant 'acme' has no campaign 'c-1': enroll it first\n"


@pytest.mark.parametrize("act", ["show", "history", "pause", "resume", "stop"])
def test_bad_input_names_option_value_and_remedy(on_sqlite: Command, act: str) -> None:
    answer = on_sqlite("campaigns", act, "--tenant", "acme", "--campaign", "c" * 129)

    assert (answer.code, answer.out) == (2, "")
    assert "--campaign: 'ccc" in answer.err
    assert "give at most 128 characters" in answer.err
