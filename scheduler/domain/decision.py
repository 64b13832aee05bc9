"""What the state machine is told (events) and what it answers (a decision): plain values, nothing done yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from scheduler.domain.campaign import Campaign, Transition

RECORDED: Final = "recorded"
LATE: Final = "late"
DUPLICATE: Final = "duplicate"
IGNORED: Final = "ignored"


@dataclass(frozen=True, slots=True)
class TimeoutExpired:
    """A timeout is due. `send_run_at` is when the visit's unfinished send is due, None once it is done."""

    event_type: str
    node_id: str
    node_visit: int
    deadline: datetime
    dedupe_key: str | None = None
    send_run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RealEvent:
    """Something the contact or the mail system did. `mail_visit` is the send visit whose mail it is about.

    `is_machine`: a mail gateway looked, and not the contact.
    """

    event_type: str
    occurred_at: datetime
    mail_visit: int | None = None
    event_id: str | None = None
    is_machine: bool = False


@dataclass(frozen=True, slots=True)
class SendConfirmed:
    """The mail of a visit went out at `sent_at`."""

    node_visit: int
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The mail of a visit will never go out."""

    node_visit: int
    dedupe_key: str | None = None


CampaignEvent = TimeoutExpired | RealEvent | SendConfirmed | SendFailed


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """An action the new visit needs. For a send `deadline` is the planned send time.

    `run_at` is when it is due, where that doesn't follow from the deadline.
    """

    action_type: str
    event_type: str
    node_id: str
    node_visit: int
    deadline: datetime
    status: str
    run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CounterEvent:
    """A real event answers a pending timeout: cancel `timeout_type` unless its deadline is before `occurred_at`."""

    timeout_type: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Retiming:
    """A pending timeout of the current visit gets a new deadline."""

    event_type: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """All that one event does to one campaign.

    `campaign` is its new state. `transitions` are the visits left, in order. If there are any, every unfinished
    action of the visits left is canceled and `actions` are exactly those of the new visit; `ends` says that the
    campaign is finished and everything pending for it goes. `answered` and `retimed` change pending timeouts of a
    visit that goes on. `run_at` is when a `deferred` timeout is due again.
    """

    campaign: Campaign
    outcome: str
    transitions: tuple[Transition, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    answered: tuple[CounterEvent, ...] = ()
    retimed: tuple[Retiming, ...] = ()
    run_at: datetime | None = None
    ends: bool = False
