import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.campaign import FINISHED, NO_MAIL_EVENTS, CampaignStatus, MailEvents
from scheduler.domain.plan import CampaignPlan
from tests.strategies import instants
from tests.support.walk import NOON, make_campaign, make_document, on, wait

PLAN = CampaignPlan.parse(make_document(wait("a", on("no_open", "stop"))))
HOUR = timedelta(hours=1)


def mail_events() -> st.SearchStrategy[MailEvents]:
    """What can be known of a mail."""
    names = st.sampled_from(("opened", "clicked", "replied", "clicked as opened", "meeting_booked"))
    return st.builds(
        MailEvents,
        st.dictionaries(names, instants(), max_size=3),
        st.dictionaries(names, st.lists(instants(), min_size=1, max_size=3).map(tuple), max_size=3),
        st.lists(st.sampled_from(("no_open", "no_click")), unique=True).map(tuple),
    )


@given(mail_events())
def test_mail_events_survive_being_stored(known: MailEvents) -> None:
    assert MailEvents.from_json(known.to_json()) == known


def test_nothing_known_is_stored_as_nothing() -> None:
    assert NO_MAIL_EVENTS.to_json() is None
    assert MailEvents.from_json(None) is NO_MAIL_EVENTS


def test_mail_events_are_stored_as_plain_json() -> None:
    known = NO_MAIL_EVENTS.record("opened", NOON).use("clicked", NOON, "clicked").fire("no_reply")
    assert json.loads(known.to_json() or "") == {
        "first": {"opened": "2026-03-02T12:00:00+00:00"},
        "used": {"clicked": ["2026-03-02T12:00:00+00:00"]},
        "fired": ["no_reply"],
    }


def test_instants_are_read_back_in_utc() -> None:
    known = MailEvents({"opened": NOON.astimezone(timezone(HOUR))})
    assert MailEvents.from_json(known.to_json()).first["opened"].tzinfo is UTC


def test_the_earliest_of_each_type_is_kept() -> None:
    known = NO_MAIL_EVENTS.record("opened", NOON).record("opened", NOON - HOUR).record("opened", NOON + HOUR)
    assert known.first == {"opened": NOON - HOUR}


def test_the_same_record_again_changes_nothing() -> None:
    known = NO_MAIL_EVENTS.record("opened", NOON)
    assert known.record("opened", NOON) == known


def test_a_used_event_is_no_longer_recorded_and_is_known_as_used() -> None:
    known = NO_MAIL_EVENTS.record("opened", NOON).use("opened", NOON, "opened")
    assert known.first == {}
    assert known.is_used("opened", NOON)
    assert not known.is_used("opened", NOON + HOUR)


def test_a_click_used_as_an_open_is_still_a_recorded_click() -> None:
    known = NO_MAIL_EVENTS.use("clicked", NOON, "opened")
    assert known.first == {"clicked": NOON}
    assert known.is_used("clicked", NOON)
    assert known.is_used_as("clicked", "opened", NOON)
    assert not known.is_used_as("clicked", "clicked", NOON)
    assert not known.is_used("opened", NOON)


def test_a_timeout_fires_once() -> None:
    known = NO_MAIL_EVENTS.fire("no_open")
    assert known.fired == ("no_open",)
    assert known.fire("no_open") is known


def test_the_next_mail_knows_only_what_was_used_and_is_about_no_mail() -> None:
    known = NO_MAIL_EVENTS.record("opened", NOON).use("replied", NOON, "replied").use("clicked", NOON, "opened")
    assert known.fire("no_click").of_next_mail() == MailEvents(used={"replied": (NOON,)})


@pytest.mark.parametrize("status", list(CampaignStatus))
def test_a_campaign_is_finished_when_its_life_is_over(status: CampaignStatus) -> None:
    assert make_campaign(PLAN, status=status).is_finished == (status in FINISHED)
    assert make_campaign(PLAN, status=str(status)).is_finished == (status in FINISHED)


@pytest.mark.parametrize(
    ("mail_visit", "sent_visit", "newest"), [(None, None, None), (1, None, 1), (3, 1, 1), (3, 3, 3)]
)
def test_the_newest_mail_is_the_last_sent_or_the_first_planned(
    mail_visit: int | None, sent_visit: int | None, newest: int | None
) -> None:
    assert make_campaign(PLAN, mail_visit=mail_visit, sent_visit=sent_visit).newest_mail == newest


def test_a_campaigns_instants_are_kept_as_given() -> None:
    campaign = make_campaign(PLAN, anchor_at=datetime(2026, 3, 2, 13, tzinfo=UTC))
    assert (campaign.key, campaign.anchor_at) == (("acme", "c-1"), NOON + HOUR)
