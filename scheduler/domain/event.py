"""Event types: one spelling for what mail providers call differently, and which event answers which timeout.

A real event happened (`opened`). A synthetic one comes from a timeout: `no_` and what didn't (`no_open`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from scheduler.domain.errors import InvalidInputError

# These end a campaign even where the plan says nothing about them.
EXIT_EVENTS: Final = ("unsubscribed", "spamreport", "bounced")
# These also suppress the contact: none of its campaigns goes on.
SUPPRESSING_EVENTS: Final = ("unsubscribed", "spamreport")
# These belong to one mail, and can come too late for it.
MAIL_EVENTS: Final = ("opened", "clicked", "delivered")
# These mail gateways do, too: they fetch pictures and try links before the contact has seen the mail.
MACHINE_EVENTS: Final = ("opened", "clicked")

EVENT_TYPE_PATTERN: Final = r"[a-z][a-z0-9_]{0,63}"
SYNTHETIC_PREFIX: Final = "no_"
LONGEST_SPELLING: Final = 128

_EVENT_TYPE = re.compile(EVENT_TYPE_PATTERN)
_SPELLINGS: Final = {
    "opened": "open opens",
    "clicked": "click clicks",
    "delivered": "deliver delivers delivery deliveries",
    "bounced": "bounce bounces hard_bounce hard_bounced hardbounce permanent_fail permanent_failure",
    "soft_bounced": (
        "soft_bounce softbounce blocked deferred deferral delayed delivery_delay deliverydelay"
        " delivery_delayed transient transient_bounce temporary_fail temporary_failure"
        " mailbox_full mailboxfull"
    ),
    "spamreport": (
        "spam_report spam_reported spam spam_complaint spamcomplaint complaint complaints complain complained"
    ),
    "unsubscribed": "unsubscribe unsubscribes unsub group_unsubscribe list_unsubscribe link_unsubscribe",
    "replied": "reply replies",
    "sent": "send sends",
}
_BY_SPELLING: Final = {spelling: ours for ours, theirs in _SPELLINGS.items() for spelling in theirs.split()}
_SYNTHETIC_NAMES: Final = {
    "opened": "no_open",
    "clicked": "no_click",
    "replied": "no_reply",
    "delivered": "no_delivery",
}


@lru_cache(maxsize=4096)
def _normalise(text: str) -> str | None:
    if not text.isascii():  # some letters beyond ASCII become ASCII ones in lower case
        return None
    name = text.strip().lower().replace("-", "_").replace(" ", "_")
    name = _BY_SPELLING.get(name, name)
    if _EVENT_TYPE.fullmatch(name) is None:
        return None
    if not name.startswith(SYNTHETIC_PREFIX):
        return name
    missing = name.removeprefix(SYNTHETIC_PREFIX)
    if _EVENT_TYPE.fullmatch(missing) is None or missing.startswith(SYNTHETIC_PREFIX):
        return None
    return _SYNTHETIC_NAMES.get(_BY_SPELLING.get(missing, missing), name)


def normalise_event_type(field: str, value: object) -> str:
    """Our name of an event type: what a provider calls `Click` is `clicked`, an unlisted name stays as it is.

    Upper case, `-` and blanks don't matter. Raises `InvalidInputError` for what can't be a name.
    """
    name = _normalise(value) if isinstance(value, str) and len(value) <= LONGEST_SPELLING else None
    if name is None:
        remedy = "write an event type such as opened or no_open: a letter, then letters, digits or _, 64 at most"
        raise InvalidInputError(field, value, remedy)
    return name


def is_synthetic(event_type: str) -> bool:
    """Whether a normalised event type comes from a timeout."""
    return event_type.startswith(SYNTHETIC_PREFIX)


def counter_event(event_type: str) -> str:
    """The real event that a synthetic one says didn't happen: `opened` for `no_open`."""
    if not is_synthetic(event_type):
        raise InvalidInputError(
            "event_type", event_type, "only a synthetic event, such as no_open, has a counter-event"
        )
    missing = event_type.removeprefix(SYNTHETIC_PREFIX)
    return _BY_SPELLING.get(missing, missing)


def counts_as(event_type: str) -> tuple[str, ...]:
    """What a real event is evidence of, itself first: who clicked has opened."""
    return ("clicked", "opened") if event_type == "clicked" else (event_type,)
