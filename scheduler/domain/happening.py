"""What comes to a simulated campaign from outside: a real event, or somebody's hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from scheduler.domain.action import require_id, require_visit
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import is_synthetic, normalise_event_type
from scheduler.domain.incoming import metadata_text
from scheduler.domain.pausing import ResumePolicy
from scheduler.domain.timing import parse_duration, parse_instant, parse_zone


class Operation(StrEnum):
    """What somebody does to a campaign; `fail_send` is the mail system's doing."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    FAIL_SEND = "fail_send"


_OF_AN_EVENT: Final = ("event_type", "occurred_at", "visit", "event_id", "metadata")
_WHEN_REMEDY: Final = "write a duration from the start such as PT1H, or an instant such as 2026-03-02T12:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happens at the instant `at`: an event that arrives, or an operation (`do`).

    An event is about the newest mail, that of `node_id`, or that of the send visit `visit`; one about a mail that isn't
    out yet waits for it. `fail_send` lets the next send (of `node_id`) fail for good. `policy` is how to `resume`.
    Checked when it is made; raises InvalidInputError.
    """

    at: datetime
    event_type: str | None = None
    do: str | None = None
    occurred_at: datetime | None = None
    node_id: str | None = None
    visit: int | None = None
    event_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    policy: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", parse_instant("at", self.at))
        if self.do is None:
            self._check_event()
        else:
            self._check_operation()
        if self.node_id is not None:
            require_id("node_id", self.node_id)

    def _check_event(self) -> None:
        if self.event_type is None:
            raise InvalidInputError("event_type", None, f"give it, or do: {', '.join(Operation)}")
        event_type = normalise_event_type("event_type", self.event_type)
        if is_synthetic(event_type):
            raise InvalidInputError("event_type", self.event_type, "leave it out: timeouts fire by themselves")
        object.__setattr__(self, "event_type", event_type)
        if self.policy is not None:
            raise InvalidInputError("policy", self.policy, "leave it out: it belongs to do: resume")
        if self.occurred_at is not None:
            object.__setattr__(self, "occurred_at", parse_instant("occurred_at", self.occurred_at))
        if self.visit is not None:
            require_visit("visit", self.visit)
        if self.event_id is not None:
            require_id("event_id", self.event_id)
        metadata_text(self.metadata)

    def _check_operation(self) -> None:
        if self.do not in tuple(Operation):
            raise InvalidInputError("do", self.do, f"write one of {', '.join(Operation)}")
        for name in _OF_AN_EVENT:
            if getattr(self, name) is not None:
                raise InvalidInputError(
                    name, getattr(self, name), f"leave it out: it has no meaning with do: {self.do}"
                )
        if self.node_id is not None and self.do != Operation.FAIL_SEND:
            raise InvalidInputError("node_id", self.node_id, f"leave it out: it has no meaning with do: {self.do}")
        if self.policy is not None and (self.do != Operation.RESUME or self.policy not in tuple(ResumePolicy)):
            raise InvalidInputError("policy", self.policy, f"write one of {', '.join(ResumePolicy)}, with do: resume")

    @classmethod
    def parse(cls, values: Mapping[str, Any], start_at: datetime) -> Self:
        """From JSON-like data with the same names; `at` and `occurred_at` may count from `start_at`, as `PT1H`."""
        if not isinstance(values, Mapping):
            raise InvalidInputError("happening", values, "give a mapping with at, and event_type or do")
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise InvalidInputError(str(name), values[name], f"use only {', '.join(names)}")
        given = {name: value for name, value in values.items() if value is not None}
        if "at" not in given:
            raise InvalidInputError("at", None, f"is missing: {_WHEN_REMEDY}")
        given["at"] = when("at", given["at"], start_at)
        if "occurred_at" in given:
            given["occurred_at"] = _at_any_time("occurred_at", given["occurred_at"], start_at)
        return cls(**given)


def when(field: str, value: object, start_at: datetime) -> datetime:
    """An instant, or how long after `start_at` it is. Never before that: raises InvalidInputError."""
    instant = _at_any_time(field, value, start_at)
    if instant < start_at:
        raise InvalidInputError(field, value, f"give an instant from the start on, {start_at.isoformat()}")
    return instant


def _at_any_time(field: str, value: object, start_at: datetime) -> datetime:
    if isinstance(value, datetime) or (isinstance(value, str) and value[:1].isdigit()):
        return _instant(field, value)
    return _later(field, value, start_at)


def _instant(field: str, value: datetime | str) -> datetime:
    try:
        return parse_instant(field, value)
    except InvalidInputError as error:
        remedy = error.remedy if not isinstance(value, str) or "T" in value else _WHEN_REMEDY
        raise InvalidInputError(field, value, remedy) from None


def _later(field: str, value: object, start_at: datetime) -> datetime:
    try:
        duration = parse_duration(field, value)
    except InvalidInputError as error:
        remedy = error.remedy if isinstance(value, str) and value.startswith(("P", "-P")) else _WHEN_REMEDY
        raise InvalidInputError(field, value, remedy) from None
    return duration.add_to(start_at, parse_zone("timezone", "UTC"))
