"""The kit for users' tests: a rehearsal runs the real scheduler, each thing exactly when it is due."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler import InvalidInputError, RetryLater, SendRequest, SendResult, Settings, UnknownCampaignError
from scheduler.testing import CampaignRehearsal, SettableClock
from tests.support.walk import NOON, make_document, on, send, wait

pytest_plugins = ["scheduler.testing.fixtures"]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PLAN = make_document(
    send("intro", on("opened", "wait_click"), on("no_open", "reminder", after="PT72H")),
    wait("wait_click", on("clicked", "stop"), on("no_click", "reminder", after="PT24H")),
    send("reminder", on("opened", "stop"), on("no_open", "stop", after="PT72H")),
)
MakeRehearsal = Callable[..., CampaignRehearsal]


def test_a_week_passes_in_one_call_and_every_node_is_entered_when_it_is_due(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN)

    assert rehearsal.advance("P7D") == NOON + 7 * DAY == rehearsal.now
    rehearsal.assert_path(["intro -> reminder (no_open)", "reminder -> stop (no_open)"])
    rehearsal.assert_mailed(["intro", "reminder"])
    rehearsal.assert_finished()
    assert [one.created_at for one in rehearsal.history()] == [NOON, NOON + 3 * DAY, NOON + 6 * DAY]


def test_the_first_mail_is_out_once_the_contact_is_enrolled(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN, contact={"address": "ada@example.com"})

    (mail,) = rehearsal.mails
    assert (mail.node_id, mail.address, rehearsal.now) == ("intro", "ada@example.com", NOON)


def test_what_an_event_leads_to_happens_at_once(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(make_document(send("a", on("opened", "b")), send("b", on("opened", "stop"))))

    assert rehearsal.event("opened").outcome == "transitioned"
    rehearsal.assert_mailed(["a", "b"])


def test_an_event_may_be_about_an_earlier_mail(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN)
    rehearsal.advance("PT73H")

    assert rehearsal.event("opened", mail_of="intro").outcome == "late"
    assert rehearsal.event("opened", mail_of="reminder").outcome == "transitioned"
    with pytest.raises(InvalidInputError):
        rehearsal.event("opened", mail_of="wait_click")


def test_a_rehearsal_has_any_number_of_campaigns(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN)
    rehearsal.advance("P1D")
    rehearsal.enroll(PLAN, "c-2", "k-2")
    rehearsal.event("opened", "c-2")
    rehearsal.advance("P2D")

    rehearsal.assert_at("reminder")
    rehearsal.assert_path(["intro -> wait_click (opened)", "wait_click -> reminder (no_click)"], "c-2")
    rehearsal.assert_mailed(["intro", "reminder"], "c-2")


def test_a_mail_may_fail_for_good_or_only_once(rehearsal: CampaignRehearsal) -> None:
    rehearsal.fail_next_send("reminder")
    rehearsal.fail_next_send("intro", RetryLater(HOUR))
    rehearsal.enroll(PLAN)

    rehearsal.assert_mailed([])
    rehearsal.advance("PT1H")
    rehearsal.assert_mailed(["intro"])
    rehearsal.advance("P3D")
    rehearsal.assert_finished("error")


def test_a_handler_of_ones_own_sends_and_the_mails_are_kept_all_the_same(make_rehearsal: MakeRehearsal) -> None:
    asked: list[SendRequest] = []

    def handler(request: SendRequest) -> SendResult:
        asked.append(request)
        return SendResult(message_id="mine")

    rehearsal = make_rehearsal(send_handler=handler)
    rehearsal.enroll(PLAN)

    assert asked == rehearsal.mails
    assert rehearsal.event("opened", mail_of="intro").outcome == "transitioned"
    assert rehearsal.scheduler.find(asked[0].dedupe_key).message_id == "mine"  # type: ignore[union-attr]


def test_a_pause_a_resume_and_a_stop(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN)
    rehearsal.pause()
    rehearsal.advance("P5D")
    rehearsal.assert_pending({"no_open": NOON + 3 * DAY})
    rehearsal.resume()
    rehearsal.assert_pending({"no_open": "PT72H"})
    rehearsal.stop()
    rehearsal.assert_finished("stopped")
    rehearsal.assert_pending([])


def test_start_settings_and_tenant_may_be_chosen(make_rehearsal: MakeRehearsal) -> None:
    rehearsal = make_rehearsal(NOON + DAY, settings=Settings(timeout_grace="PT10M"), tenant_id="other")
    campaign = rehearsal.enroll(PLAN)

    assert (campaign.tenant_id, campaign.started_at) == ("other", NOON + DAY)
    rehearsal.assert_pending({"no_open": HOUR * 72 + timedelta(minutes=10)})


def test_a_rehearsal_plays_on_a_database_that_is_there_too(database_url: str) -> None:
    with CampaignRehearsal(database_url=database_url) as rehearsal:
        rehearsal.enroll(PLAN)
        rehearsal.advance("P7D")
        rehearsal.assert_finished()


def test_two_rehearsals_know_nothing_of_each_other(make_rehearsal: MakeRehearsal) -> None:
    first, second = make_rehearsal(), make_rehearsal()
    first.enroll(PLAN)

    with pytest.raises(UnknownCampaignError):
        second.campaign()


def test_a_rehearsal_leaves_no_file_behind() -> None:
    with CampaignRehearsal() as rehearsal:
        file = Path(str(rehearsal.scheduler.database.engine.url.database))
        assert file.exists()

    assert not file.parent.exists()


def test_time_goes_forward_only(rehearsal: CampaignRehearsal) -> None:
    with pytest.raises(InvalidInputError):
        rehearsal.advance_to(NOON - HOUR)


Check = Callable[[CampaignRehearsal], None]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda one: one.assert_at("intro"), "the contact is at 'reminder', expected 'intro'"),
        (lambda one: one.assert_mailed(["intro"]), "mails went out of ['intro', 'reminder'], expected ['intro']"),
        (lambda one: one.assert_path([]), "the path is ['intro -> reminder (no_open)'], expected []"),
        (lambda one: one.assert_pending([]), "still to come are ['no_open'], expected []"),
        (lambda one: one.assert_pending({"sent"}), "still to come are ['no_open'], expected ['sent']"),
        (lambda one: one.assert_finished(), "the campaign is 'active', expected 'completed'"),
    ],
)  # fmt: skip
def test_a_failed_assertion_tells_what_happened_instead(
    rehearsal: CampaignRehearsal, check: Check, message: str
) -> None:
    rehearsal.enroll(PLAN)
    rehearsal.advance("PT73H")

    with pytest.raises(AssertionError) as failure:
        check(rehearsal)

    assert str(failure.value).splitlines() == [
        message,
        "It is 2026-03-05 13:00 (UTC). c-1 is active, at reminder:",
        "  2026-03-02 12:00  - -> intro (enrolled)",
        "  2026-03-05 12:00  intro -> reminder (no_open)",
        "  2026-03-08 12:00  no_open of reminder, pending",
    ]


def test_a_wrong_instant_is_a_failure(rehearsal: CampaignRehearsal) -> None:
    rehearsal.enroll(PLAN)

    with pytest.raises(AssertionError, match=r"expected \{'no_open': '2026-03-04T12:00:00\+00:00'\}"):
        rehearsal.assert_pending({"no_open": "PT48H"})


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_campaign_that_goes_on_cant_be_expected_to_be_finished(rehearsal: CampaignRehearsal, status: str) -> None:
    rehearsal.enroll(PLAN)

    with pytest.raises(InvalidInputError):
        rehearsal.assert_finished(status)


def test_the_clock_is_a_settable_one(rehearsal: CampaignRehearsal) -> None:
    clock: Any = rehearsal.clock

    assert isinstance(clock, SettableClock)
