"""Timeouts and sends as values: what is asked for (`TimeoutJob`), what is stored (`ScheduledAction`), their names.

The dedupe key is the identity of an action and its APScheduler job id:

    tenant : campaign : node : visit : action type : event type

with ':' '%' and control characters inside a part percent-encoded as UTF-8 bytes, so that two different
actions never share a key and the tenant can be read back from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import is_synthetic, normalise_event_type
from scheduler.domain.storable import require_storable
from scheduler.domain.timing import parse_instant, require_aware

MAX_ID_LENGTH: Final = 128
_SEPARATORS: Final = 5
MAX_VISIT: Final = 2**31 - 1
SENT_EVENT: Final = "sent"

_ENCODED = re.compile("[:%\x00-\x1f\x7f-\x9f]")


class ActionType(StrEnum):
    """What an action does when it is due."""

    TIMEOUT = "timeout"
    SEND = "send"


class ActionStatus(StrEnum):
    """Where an action is in its life; the last three are final."""

    PENDING = "pending"
    CLAIMED = "claimed"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELED = "canceled"
    ERROR = "error"


UNFINISHED: Final = (ActionStatus.PENDING, ActionStatus.CLAIMED, ActionStatus.PAUSED)


def require_id(field: str, value: object) -> str:
    """`value` when it can be an identifier (1 to 128 characters that a database can store)."""
    if not isinstance(value, str):
        raise InvalidInputError(field, value, "give a text")
    if not value:
        raise InvalidInputError(field, value, "give at least one character")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInputError(field, value, f"give at most {MAX_ID_LENGTH} characters (these are {len(value)})")
    if not value.isascii() or "\x00" in value:
        require_storable(field, value)
    return value


def require_visit(field: str, value: object) -> int:
    """`value` when it can be a visit number (1, 2, 3, ...)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_VISIT:
        raise InvalidInputError(field, value, "give a whole number from 1 on")
    return value


def _encode(part: str) -> str:
    return _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), part)


def make_dedupe_key(
    tenant_id: str, campaign_id: str, node_id: str, node_visit: int, action_type: str, event_type: str
) -> str:
    """The key of an action; equal exactly when all six parts are equal."""
    return ":".join(
        (_encode(tenant_id), _encode(campaign_id), _encode(node_id), str(node_visit), action_type, event_type)
    )


def tenant_of(job_id: object) -> str:
    """The tenant a job id belongs to, read from its first part; raises InvalidInputError for what is no job id."""
    if not isinstance(job_id, str) or job_id.count(":") != _SEPARATORS:
        raise InvalidInputError(
            "job_id", job_id, "give a dedupe key: tenant:campaign:node:visit:action type:event type"
        )
    require_storable("job_id", job_id)
    try:
        tenant_id = unquote(job_id.partition(":")[0], errors="strict")
    except UnicodeDecodeError:
        raise InvalidInputError("job_id", job_id, "its percent-encoding is not UTF-8") from None
    return require_id("job_id", tenant_id)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutJob:
    """A timeout to schedule: at `scheduled_at` the campaign's visit `node_visit` of `node_id` gets `event_type`.

    Every field is checked when the value is made; raises InvalidInputError. `scheduled_at` becomes aware UTC.
    """

    tenant_id: str
    campaign_id: str
    contact_id: str
    node_id: str
    event_type: str
    scheduled_at: datetime
    node_visit: int = 1

    def __post_init__(self) -> None:
        for name in ("tenant_id", "campaign_id", "contact_id", "node_id"):
            require_id(name, getattr(self, name))
        require_visit("node_visit", self.node_visit)
        event_type = normalise_event_type("event_type", self.event_type)
        if not is_synthetic(event_type):
            raise InvalidInputError(
                "event_type", self.event_type, "give a synthetic event, such as no_open or no_click"
            )
        object.__setattr__(self, "event_type", event_type)
        object.__setattr__(self, "scheduled_at", require_aware("scheduled_at", self.scheduled_at))

    @property
    def dedupe_key(self) -> str:
        """The action's identity and APScheduler job id."""
        return make_dedupe_key(
            self.tenant_id, self.campaign_id, self.node_id, self.node_visit, ActionType.TIMEOUT, self.event_type
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """A job from JSON-like data, keys as `tenant_id` or `tenantId`; `scheduledAt` may be ISO-8601 text."""
        if not isinstance(mapping, Mapping):
            raise InvalidInputError("job", mapping, "give a mapping with tenantId, campaignId, contactId, ...")
        names = {spelling: field.name for field in fields(cls) for spelling in (field.name, _camel(field.name))}
        unknown = [key for key in mapping if key not in names]
        if unknown:
            raise InvalidInputError(
                str(unknown[0]), mapping[unknown[0]], f"use only {', '.join(sorted(set(names.values())))}"
            )
        values = {names[key]: value for key, value in mapping.items()}
        for name in values if len(values) < len(mapping) else ():
            if name in mapping and _camel(name) in mapping and _camel(name) != name:
                raise InvalidInputError(name, mapping[name], f"it is given twice, also as {_camel(name)}")
        for field in fields(cls):
            if field.name not in values and field.name != "node_visit":
                raise InvalidInputError(field.name, None, "is missing")
        values["scheduled_at"] = parse_instant("scheduled_at", values["scheduled_at"])
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The job as JSON-ready data with camelCase keys."""
        values = {_camel(field.name): getattr(self, field.name) for field in fields(self)}
        return {**values, "scheduledAt": self.scheduled_at.isoformat()}


@dataclass(frozen=True)
class ScheduledAction:
    """One row of `scheduled_actions`. Instants are aware UTC."""

    tenant_id: str
    dedupe_key: str
    campaign_id: str
    contact_id: str
    node_id: str
    node_visit: int
    action_type: str
    event_type: str
    deadline: datetime
    run_at: datetime
    status: str
    outcome: str | None
    attempts: int
    last_error: str | None
    claimed_by: str | None
    claim_number: int
    claimed_until: datetime | None
    message_id: str | None
    sent_at: datetime | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @cached_property
    def key(self) -> tuple[str, str]:
        """The primary key: tenant and dedupe key."""
        return (self.tenant_id, self.dedupe_key)

    @property
    def campaign_key(self) -> tuple[str, str]:
        """The campaign this action belongs to."""
        return (self.tenant_id, self.campaign_id)

    @property
    def scheduled_at(self) -> datetime:
        """When the timeout was to expire, as `TimeoutJob` calls it."""
        return self.deadline

    @property
    def is_finished(self) -> bool:
        """Whether its life is over."""
        return self.status not in UNFINISHED


class UnfinishedAction(NamedTuple):
    """What a decision needs of an action that is still to come. Instants are aware UTC."""

    tenant_id: str
    dedupe_key: str
    campaign_id: str
    node_id: str
    node_visit: int
    action_type: str
    event_type: str
    deadline: datetime
    run_at: datetime
    status: str

    @property
    def key(self) -> tuple[str, str]:
        """The primary key: tenant and dedupe key."""
        return (self.tenant_id, self.dedupe_key)


class NewAction(NamedTuple):
    """An action that is to be stored, `run_at` being when it is due. Instants are aware UTC."""

    tenant_id: str
    dedupe_key: str
    campaign_id: str
    contact_id: str
    node_id: str
    node_visit: int
    action_type: str
    event_type: str
    deadline: datetime
    run_at: datetime
    status: str = ActionStatus.PENDING

    @property
    def key(self) -> tuple[str, str]:
        """The primary key: tenant and dedupe key."""
        return (self.tenant_id, self.dedupe_key)
