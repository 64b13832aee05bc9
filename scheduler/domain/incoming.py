"""A real event as it comes from outside: checked, and placed with the mail it is about.

The event intake and the simulator read events through this one value, so that both understand them alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from scheduler.domain.action import require_id
from scheduler.domain.campaign import Campaign
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import normalise_event_type
from scheduler.domain.storable import json_text
from scheduler.domain.timing import parse_instant

_LONGEST_METADATA: Final = 65_536
_MACHINE_MARKS: Final = ("machine", "sg_machine_open")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingEvent:
    """An event as it comes from outside, checked when it is made."""

    tenant_id: str
    event_type: str
    message_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    campaign_id: str | None = None
    node_id: str | None = None
    occurred_at: datetime | None = None
    event_id: str | None = None
    metadata_text: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        require_id("tenant_id", self.tenant_id)
        for name in ("message_id", "campaign_id", "node_id", "event_id"):
            if getattr(self, name) is not None:
                require_id(name, getattr(self, name))
        if self.campaign_id is None and self.message_id is None:
            raise InvalidInputError("campaign_id", None, "give campaign_id or message_id")
        object.__setattr__(self, "event_type", normalise_event_type("event_type", self.event_type))
        if self.occurred_at is not None:
            object.__setattr__(self, "occurred_at", parse_instant("occurred_at", self.occurred_at))
        object.__setattr__(self, "metadata_text", metadata_text(self.metadata))

    @property
    def is_machine(self) -> bool:
        """Whether its metadata say that a mail gateway did it: `machine`, or SendGrid's `sg_machine_open`."""
        return self.metadata is not None and any(_is_true(self.metadata.get(name)) for name in _MACHINE_MARKS)

    @classmethod
    def of(cls, value: IncomingEvent | Mapping[str, Any]) -> IncomingEvent:
        """From a mapping with the same names; raises InvalidInputError for unknown or missing ones."""
        if isinstance(value, IncomingEvent):
            return value
        if not isinstance(value, Mapping):
            raise InvalidInputError("event", value, "give a mapping with tenant_id, event_type, campaign_id, ...")
        known = sorted(set(cls.__slots__) - {"metadata_text"})
        for name in value:
            if name not in known:
                raise InvalidInputError(str(name), value[name], f"use only {', '.join(known)}")
        for name in ("tenant_id", "event_type"):
            if value.get(name) is None:
                raise InvalidInputError(name, None, "is missing")
        return cls(**value)

    def mail_visit(self, campaign: Campaign | None, known: int | None) -> int | None:
        """The send visit whose mail it is about: `known` by its message id, else by node, else the newest."""
        if campaign is None or known is not None:
            return known
        if self.node_id is not None:
            is_current = self.node_id in (campaign.mail_node_id, campaign.current_node_id)
            return campaign.mail_visit if is_current else None
        return campaign.newest_mail

    def derived_id(self, campaign: Campaign | None, mail_visit: int | None, occurred_at: datetime) -> str:
        """From campaign, visit, type and instant: an event without an id counts once per instant.

        `occurred_at` is taken where the event doesn't say. A message id stands for campaign and visit, whether or not
        its mail is known already.
        """
        instant = (self.occurred_at or occurred_at).isoformat()
        if self.message_id is not None:
            return derive_id("message", self.message_id, self.event_type, instant)
        campaign_id = campaign.campaign_id if campaign is not None else self.campaign_id
        visit: int | str = mail_visit or (campaign.node_visit if campaign is not None else 0)
        if mail_visit is None and self.node_id is not None:  # of an earlier mail: not what came without a node
            visit = self.node_id
        return derive_id(campaign_id, visit, self.event_type, instant)


def derive_id(*parts: str | int | None) -> str:
    """An event id of its own for something that came without one; equal parts make equal ids."""
    return f"derived:{sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def metadata_text(metadata: Mapping[str, Any] | None) -> str | None:
    """What was said beside an event, as it is stored; raises InvalidInputError for what can't be."""
    return None if metadata is None else json_text("metadata", metadata, _LONGEST_METADATA)


def _is_true(mark: object) -> bool:
    return mark is True or mark == 1 or (isinstance(mark, str) and mark.strip().lower() in ("true", "1", "yes"))
