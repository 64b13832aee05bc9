import pytest

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import (
    EXIT_EVENTS,
    SUPPRESSING_EVENTS,
    counter_event,
    counts_as,
    is_synthetic,
    normalise_event_type,
)

PROVIDER_NAMES = {
    "SendGrid": {
        "open": "opened",
        "click": "clicked",
        "bounce": "bounced",
        "blocked": "soft_bounced",
        "deferred": "soft_bounced",
        "spam_report": "spamreport",
        "spamreport": "spamreport",
        "unsubscribe": "unsubscribed",
        "group_unsubscribe": "unsubscribed",
    },
    "Mailgun": {
        "opened": "opened",
        "complained": "spamreport",
        "permanent_fail": "bounced",
        "temporary_fail": "soft_bounced",
        "unsubscribed": "unsubscribed",
    },
    "Postmark": {
        "Open": "opened",
        "Delivery": "delivered",
        "HardBounce": "bounced",
        "SoftBounce": "soft_bounced",
        "Transient": "soft_bounced",
        "SpamComplaint": "spamreport",
    },
    "SES": {
        "Click": "clicked",
        "Complaint": "spamreport",
        "DeliveryDelay": "soft_bounced",
        "Bounce": "bounced",
        "Send": "sent",
    },
    "by hand": {"Hard Bounce": "bounced", "list-unsubscribe": "unsubscribed", " reply ": "replied"},
}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [pair for names in PROVIDER_NAMES.values() for pair in names.items()],
)
def test_a_providers_name_becomes_ours(theirs: str, ours: str) -> None:
    assert ours == normalise_event_type("event_type", theirs)


@pytest.mark.parametrize("name", ["sg_machine_open", "meeting_booked", "processed", "x1"])
def test_an_unlisted_name_stays_as_it_is(name: str) -> None:
    assert name == normalise_event_type("event_type", name)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("No-Open", "no_open"),
        ("no_opened", "no_open"),
        ("no_clicks", "no_click"),
        ("no_replied", "no_reply"),
        ("no_delivered", "no_delivery"),
        ("no_purchase", "no_purchase"),
    ],
)
def test_a_synthetic_event_has_one_name(written: str, expected: str) -> None:
    assert expected == normalise_event_type("event_type", written)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "1open",
        "_open",
        "a" * 65,
        "a" * 1000,
        "opén",
        "clic\u212a",
        "a.b",
        "a\x00",
        "no_",
        "no_1",
        "no_no_open",
        None,
        7,
        b"open",
    ],
)
def test_what_cant_be_a_name_is_refused_with_the_field(value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        normalise_event_type("events[3].event_type", value)
    assert caught.value.field == "events[3].event_type"


@pytest.mark.parametrize("event_type", ["opened", "no_open", "soft_bounced", "no_delivery", "custom"])
def test_normalising_twice_changes_nothing(event_type: str) -> None:
    assert event_type == normalise_event_type("event_type", normalise_event_type("event_type", event_type))


@pytest.mark.parametrize(
    ("synthetic", "real"),
    [
        ("no_open", "opened"),
        ("no_click", "clicked"),
        ("no_reply", "replied"),
        ("no_delivery", "delivered"),
        ("no_purchase", "purchase"),
    ],
)
def test_a_counter_event_is_the_real_event_that_didnt_happen(synthetic: str, real: str) -> None:
    assert real == counter_event(synthetic)
    assert is_synthetic(synthetic)
    assert not is_synthetic(real)


def test_a_real_event_has_no_counter_event() -> None:
    with pytest.raises(InvalidInputError, match="only a synthetic event"):
        counter_event("opened")


def test_a_click_counts_as_an_open_and_nothing_else_counts_as_another() -> None:
    assert counts_as("clicked") == ("clicked", "opened")
    assert counts_as("opened") == ("opened",)


def test_what_suppresses_a_contact_also_ends_its_campaign() -> None:
    assert set(SUPPRESSING_EVENTS) < set(EXIT_EVENTS)
