"""A campaign as a value: one contact walking one plan, and what is known of its newest mail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from scheduler.domain.action import ActionType
from scheduler.domain.event import MAIL_EVENTS, counts_as


class CampaignStatus(StrEnum):
    """Where a campaign is in its life; the last three are final."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    ERROR = "error"


FINISHED: Final = (CampaignStatus.COMPLETED, CampaignStatus.STOPPED, CampaignStatus.ERROR)


@dataclass(frozen=True, slots=True)
class MailEvents:
    """What is known of the campaign's newest mail, kept beside the campaign so that no decision looks events up.

    `first`: the earliest `occurred_at` of each event type that led nowhere yet. `used`: those that led to a
    transition; a click that did as an open is `clicked as opened`, and still counts as a click. `fired`: the
    synthetic events that did.
    """

    first: Mapping[str, datetime] = field(default_factory=dict)
    used: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)
    fired: tuple[str, ...] = ()

    def record(self, event_type: str, occurred_at: datetime) -> MailEvents:
        """With one more event that led nowhere."""
        earliest = min(occurred_at, self.first.get(event_type, occurred_at))
        return replace(self, first={**self.first, event_type: earliest})

    def use(self, event_type: str, occurred_at: datetime, counted_as: str) -> MailEvents:
        """With an event that led to a transition as `counted_as`; as that it leads to no other."""
        used_as = _counted(event_type, counted_as)
        used = {**self.used, used_as: (*self.used.get(used_as, ()), occurred_at)}
        if counted_as != event_type:
            return replace(self.record(event_type, occurred_at), used=used)
        first = {name: at for name, at in self.first.items() if (name, at) != (event_type, occurred_at)}
        return replace(self, first=first, used=used)

    def of_next_mail(self) -> MailEvents:
        """For a mail of which nothing is known yet. What is about no mail in particular (a reply) stays used."""
        used = {name: at for name, at in self.used.items() if name.partition(" ")[0] not in MAIL_EVENTS}
        return MailEvents(used=used)

    def fire(self, event_type: str) -> MailEvents:
        """With a timeout that led to a transition."""
        return self if event_type in self.fired else MailEvents(self.first, self.used, (*self.fired, event_type))

    def forget_fired(self) -> MailEvents:
        """Without the timeouts that led to a transition."""
        if not self.fired:
            return self
        return MailEvents(self.first, self.used) if self.first or self.used else NO_MAIL_EVENTS

    def is_used(self, event_type: str, occurred_at: datetime) -> bool:
        """Whether this very event already led to a transition, whatever it counted as."""
        return any(occurred_at in self.used.get(_counted(event_type, name), ()) for name in counts_as(event_type))

    def is_used_as(self, event_type: str, counted_as: str, occurred_at: datetime) -> bool:
        """Whether this very event already led to a transition as `counted_as`."""
        return occurred_at in self.used.get(_counted(event_type, counted_as), ())

    def to_json(self) -> str | None:
        """As stored; None when there is nothing to say."""
        if not (self.first or self.used or self.fired):
            return None
        return json.dumps(
            {
                "first": {name: at.isoformat() for name, at in self.first.items()},
                "used": {name: [at.isoformat() for at in instants] for name, instants in self.used.items()},
                "fired": list(self.fired),
            }
        )

    @classmethod
    def from_json(cls, text: str | None) -> MailEvents:
        """From what `to_json` gave."""
        if text is None:
            return NO_MAIL_EVENTS
        data = json.loads(text)
        return cls(
            {name: _instant(at) for name, at in data["first"].items()},
            {name: tuple(map(_instant, instants)) for name, instants in data["used"].items()},
            tuple(data["fired"]),
        )


def _counted(event_type: str, counted_as: str) -> str:
    return event_type if counted_as == event_type else f"{event_type} as {counted_as}"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


NO_MAIL_EVENTS: Final = MailEvents()


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """One contact walking one plan. Instants are aware UTC.

    `mail_node_id` and `mail_visit` are the last send node and its visit, `sent_visit` the last whose mail went out;
    `timezone` is the contact's own, where it gave one; `first_visit` is the visit its last start began with.
    `is_suppressed`: its contact must not be approached any more; `is_held`: its tenant, or everything, is paused.
    """

    tenant_id: str
    campaign_id: str
    contact_id: str
    plan_hash: str
    status: str
    current_node_id: str
    node_visit: int
    node_entered_at: datetime
    anchor_at: datetime
    started_at: datetime
    channel: str | None = None
    completed_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    timezone: str | None = None
    mail_node_id: str | None = None
    mail_visit: int | None = None
    sent_visit: int | None = None
    first_visit: int = 1
    mail_events: MailEvents = NO_MAIL_EVENTS
    is_suppressed: bool = False
    is_held: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """The primary key: tenant and campaign."""
        return (self.tenant_id, self.campaign_id)

    @property
    def mail_events_json(self) -> str | None:
        """`mail_events` as stored."""
        return self.mail_events.to_json()

    def but(self, **changes: Any) -> Campaign:
        """The same campaign with these fields changed: `dataclasses.replace`, at a fraction of its cost."""
        if not changes.keys() <= _FIELDS:
            raise TypeError(f"a campaign has no {', '.join(sorted(changes.keys() - _FIELDS))}")
        copy = object.__new__(Campaign)
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    def lets_retry(self, action_type: str, node_visit: int) -> bool:
        """Whether an action in error of that visit may be tried again.

        Not one of a visit that was left, nor of a campaign that is over, unless it is the send whose failure ended it;
        nor a send that somebody has confirmed since.
        """
        if node_visit != self.node_visit:
            return False
        if action_type == ActionType.SEND:
            return self.awaits_mail and self.status not in (CampaignStatus.COMPLETED, CampaignStatus.STOPPED)
        return not self.is_finished

    @property
    def is_finished(self) -> bool:
        """Whether its life is over."""
        return self.status in FINISHED

    @property
    def awaits_mail(self) -> bool:
        """Whether the current visit is a send's, and its mail hasn't gone out yet."""
        return self.mail_visit == self.node_visit and self.sent_visit != self.node_visit

    @property
    def time_runs_since(self) -> datetime:
        """Since when the visit's time runs: its anchor, or its entry while its mail is still to go out."""
        return self.node_entered_at if self.awaits_mail else self.anchor_at

    @property
    def newest_mail(self) -> int | None:
        """The visit an event without a message id belongs to: of the newest sent mail, else of the only one."""
        return self.mail_visit if self.sent_visit is None else self.sent_visit


_FIELDS: Final = frozenset(each.name for each in fields(Campaign))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row of `campaign_transitions`: the visit `node_visit` was left (0: the enrolment) for `to_node_id`."""

    tenant_id: str
    campaign_id: str
    node_visit: int
    from_node_id: str | None
    to_node_id: str
    trigger: str
    occurred_at: datetime
    created_at: datetime
    dedupe_key: str | None = None
    event_id: str | None = None
