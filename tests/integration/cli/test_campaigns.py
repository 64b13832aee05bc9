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


def test_a_tenant_and_everything_are_paused_told_and_resumed(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    paused = command("campaigns", "pause", "--tenant", "acme", "--actor", "alex", "--reason", "on holiday")
    everything = command("campaigns", "pause", "--all", "--json").document
    told = command("campaigns", "pauses").out.splitlines()
    document = command("campaigns", "pauses", "--tenant", "acme", "--json").document
    resumed = [command("campaigns", "resume", *words) for words in (("--all",), ("--tenant", "acme"))]
    again = command("campaigns", "resume", "--all")

    assert paused.out.startswith("acme: paused since 2")
    assert (everything["scope"], everything["tenant_id"], everything["campaign_id"]) == ("all", None, None)
    assert told[0].split() == ["scope", "tenant", "campaign", "action", "since", "by", "reason"]
    assert [line.split()[0] for line in told[1:]] == ["all", "tenant"]
    assert told[2].endswith("alex  on holiday")
    assert [one["scope"] for one in document] == ["all", "tenant"]
    assert [answer.out.partition(",")[0] for answer in resumed] == ["everything: resumed", "acme: resumed"]
    assert again.out == "unchanged: everything isn't paused\n"
    assert command("campaigns", "pauses").out == "nothing is paused\n"


def test_a_dry_run_says_how_many_would_fire_when_and_changes_nothing(
    command: Command, timeouts: TimeoutScheduler
) -> None:
    for number in range(3):
        enrol(timeouts, f"c-{number}")
    command("campaigns", "pause", "--tenant", "acme")
    before = timeouts.list_actions()

    shown = command("campaigns", "resume", "--tenant", "acme", "--dry-run")
    document = command(
        "campaigns", "resume", "--tenant", "acme", "--policy", "keep", "--spread", "PT1H", "--dry-run", "--json"
    ).document

    assert [line.split() for line in shown.out.splitlines()] == [
        ["due", "timeout", "all"],
        ["at", "once", "0", "0"],
        ["within", "minute", "0", "0"],
        ["within", "hour", "0", "0"],
        ["within", "day", "0", "0"],
        ["within", "week", "3", "3"],
        ["later", "0", "0"],
        ["total", "3", "3"],
    ]
    assert (document["spread"], document["due"]["within_week"], document["by_type"]["timeout"]["total"]) == (
        "PT1H",
        3,
        3,
    )
    assert (timeouts.list_actions(), len(timeouts.campaigns.pauses())) == (before, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--tenant: give a tenant, with --campaign one campaign of it, --all, or --sends"),
        (("--campaign", "c-1"), "--tenant: give the campaign's tenant"),
        (("--all", "--tenant", "acme"), "--all: leave out --tenant and --campaign, or --all"),
    ],
)
@pytest.mark.parametrize("act", ["pause", "resume"])
def test_what_is_paused_has_to_be_said(
    on_sqlite: Command, sqlite_timeouts: TimeoutScheduler, act: str, words: tuple[str, ...], told: str
) -> None:
    answer = on_sqlite("campaigns", act, *words)

    assert (answer.code, answer.out, answer.err) == (2, "", f"error: {told}\n")
    assert sqlite_timeouts.campaigns.pauses() == []


@pytest.mark.parametrize(("option", "value"), [("--policy", "later"), ("--spread", "1h"), ("--reason", " ")])
def test_a_resume_that_makes_no_sense_names_its_option(on_sqlite: Command, option: str, value: str) -> None:
    answer = on_sqlite("campaigns", "resume", "--all", option, value)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {option}: ")


def test_who_stopped_a_campaign_is_kept(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts)

    command("campaigns", "stop", *ONE, "--actor", "alex", "--reason", "asked by phone")

    (act,) = [one for one in timeouts.campaigns.explain("acme", "c-1").entries if one.kind == "operator"]
    assert act.facts["actor"] == "alex"
