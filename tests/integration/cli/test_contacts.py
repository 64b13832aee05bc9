import pytest

from scheduler import TimeoutScheduler
from tests.integration.cli.conftest import Command, enrol

ONE = ("--tenant", "acme", "--contact", "k-1")


def test_a_contact_is_suppressed_unsuppressed_and_restarted(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, contact_id="k-1")
    enrolling = ("enroll", *ONE, "--campaign", "c-1", "--plan", "plan.json", "--restart")

    suppressed = command("contacts", "suppress", *ONE, "--reason", "asked by phone", "--actor", "alex")
    again = command("contacts", "suppress", *ONE, "--reason", "asked by phone", "--json")
    refused = command(*enrolling)
    unsuppressed = command("contacts", "unsuppress", *ONE)
    restarted = command(*enrolling)

    assert (suppressed.code, suppressed.out) == (0, "suppressed: k-1\n")
    assert (again.code, again.document) == (0, {"suppressed": False, "contact_id": "k-1"})
    assert refused.code == 2
    assert refused.err.startswith("error: --contact: 'k-1' is not usable: it is suppressed since 20")
    assert "(asked by phone)" in refused.err
    assert unsuppressed.out == "unsuppressed: k-1\n"
    assert restarted.out == "enrolled acme c-1 (contact k-1): active at wait_open, visit 3\n"


def test_erasing_says_whether_anything_was_known(command: Command, timeouts: TimeoutScheduler) -> None:
    enrol(timeouts, contact_id="k-1", contact={"address": "k@example.com"})

    erased, unknown = (
        command("contacts", "erase", *ONE),
        command("contacts", "erase", "--tenant", "x", "--contact", "k"),
    )

    assert erased.out == "erased: k-1\n"
    assert (unknown.code, unknown.out) == (0, "unchanged: k: nothing is known of it\n")
    found = timeouts.campaigns.find("acme", "c-1")
    assert found is not None
    assert found.status == "stopped"


@pytest.mark.parametrize("reason", ["", " ", "x" * 1001])
def test_a_suppression_without_a_reason_is_bad_input(command: Command, reason: str) -> None:
    answer = command("contacts", "suppress", *ONE, "--reason", reason)

    assert answer.code == 2
    assert answer.err.startswith("error: --reason: ")


def test_an_event_of_a_contact_tells_of_each_campaign(command: Command, timeouts: TimeoutScheduler) -> None:
    for campaign in ("c-1", "c-2"):
        enrol(timeouts, campaign, contact_id="k-1")

    told = command("event", *ONE, "opened", "--event-id", "e-1")
    again = command("event", *ONE, "opened", "--event-id", "e-1", "--json")

    assert told.out == (
        "c-1: opened: transitioned; completed at stop, visit 2\nc-2: opened: transitioned; completed at stop, visit 2\n"
    )
    assert [one["outcome"] for one in again.document] == ["duplicate"]


def test_an_event_of_a_contact_is_about_no_one_campaign(command: Command) -> None:
    answer = command("event", *ONE, "opened", "--campaign", "c-1")

    assert answer.code == 2
    assert answer.err.startswith("error: --campaign: 'c-1' is not usable: leave it out")


def test_suppressed_contacts_of_a_file_are_left_out_and_counted(command: Command, timeouts: TimeoutScheduler) -> None:
    timeouts.campaigns.suppress("acme", "k-1", "asked")
    rows = "campaign_id,contact_id\nc-1,k-1\nc-2,k-2\n"

    answer = command("enroll", "--tenant", "acme", "--plan", "plan.json", "--from", "-", stdin=rows)

    assert answer.out == "enrolled 1, existed already 0, suppressed 1, bad lines left out 0\n"
