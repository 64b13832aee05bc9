"""What a test expects of a rehearsed campaign; a failure says what happened instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from scheduler.domain.action import ScheduledAction
from scheduler.domain.campaign import FINISHED, Campaign, Transition
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.explaining.wording import instant_text
from scheduler.domain.sending import SendRequest
from scheduler.domain.timing import parse_duration, parse_instant

_CAMPAIGN: Final = "c-1"
_UTC: Final = ZoneInfo("UTC")

When = datetime | timedelta | str


class Rehearsed(Protocol):
    """What is looked at."""

    @property
    def now(self) -> datetime:
        """The present."""

    @property
    def mails(self) -> list[SendRequest]:
        """The mails that went out."""

    def campaign(self, campaign_id: str) -> Campaign:
        """A campaign."""

    def history(self, campaign_id: str) -> list[Transition]:
        """Its transitions."""

    def pending(self, campaign_id: str) -> list[ScheduledAction]:
        """What is still to come."""


class RehearsalChecks:
    """Assertions about one campaign, `c-1` unless told otherwise. Each raises AssertionError."""

    def assert_at(self: Rehearsed, node_id: str, campaign_id: str = _CAMPAIGN) -> None:
        """The contact stands at that node."""
        __tracebackhide__ = True
        actual = self.campaign(campaign_id).current_node_id
        _expect(self, campaign_id, "the contact is at", node_id, actual)

    def assert_mailed(self: Rehearsed, node_ids: Sequence[str], campaign_id: str = _CAMPAIGN) -> None:
        """The mails of these nodes went out, in this order, and no other."""
        __tracebackhide__ = True
        actual = [request.node_id for request in self.mails if request.campaign_id == campaign_id]
        _expect(self, campaign_id, "mails went out of", list(node_ids), actual)

    def assert_path(self: Rehearsed, steps: Sequence[str], campaign_id: str = _CAMPAIGN) -> None:
        """The transitions since the enrolment, each as `intro -> wait_click (opened)`."""
        __tracebackhide__ = True
        _expect(self, campaign_id, "the path is", list(steps), path_of(self.history(campaign_id)))

    def assert_pending(
        self: Rehearsed, expected: Mapping[str, When] | Iterable[str], campaign_id: str = _CAMPAIGN
    ) -> None:
        """These timeouts (and `sent`, for a mail) are still to come, and no other.

        A mapping says when each is due: an instant, or how long from now (`PT24H`, or a `timedelta`).
        """
        __tracebackhide__ = True
        actual = {action.event_type: action.run_at for action in self.pending(campaign_id)}
        if not isinstance(expected, Mapping):
            _expect(self, campaign_id, "still to come are", sorted(expected), sorted(actual))
            return
        due = {name: _instant(when, self.now) for name, when in expected.items()}
        _expect(self, campaign_id, "still to come are", _texts(due), _texts(actual))

    def assert_finished(self: Rehearsed, status: str = "completed", campaign_id: str = _CAMPAIGN) -> None:
        """The campaign is over: `completed`, `stopped` or `error`."""
        __tracebackhide__ = True
        if status not in tuple(FINISHED):
            raise InvalidInputError("status", status, f"give one of {', '.join(FINISHED)}")
        _expect(self, campaign_id, "the campaign is", status, str(self.campaign(campaign_id).status))


def path_of(history: Iterable[Transition]) -> list[str]:
    """Transitions as text, without the enrolment: `intro -> wait_click (opened)`."""
    return [
        f"{one.from_node_id} -> {one.to_node_id} ({one.trigger})" for one in history if one.from_node_id is not None
    ]


def _expect(rehearsed: Rehearsed, campaign_id: str, what: str, expected: object, actual: object) -> None:
    __tracebackhide__ = True
    if expected != actual:
        raise AssertionError(f"{what} {actual!r}, expected {expected!r}\n{_story(rehearsed, campaign_id)}")


def _story(rehearsed: Rehearsed, campaign_id: str) -> str:
    """What happened so far, for whoever reads a failed test."""
    campaign = rehearsed.campaign(campaign_id)
    stand = (
        f"It is {instant_text(rehearsed.now)} (UTC). {campaign_id} is {campaign.status}, at {campaign.current_node_id}:"
    )
    past = [
        f"  {instant_text(one.created_at)}  {one.from_node_id or '-'} -> {one.to_node_id} ({one.trigger})"
        for one in rehearsed.history(campaign_id)
    ]
    future = [
        f"  {instant_text(action.run_at)}  {action.event_type} of {action.node_id}, {action.status}"
        for action in rehearsed.pending(campaign_id)
    ]
    return "\n".join([stand, *past, *future])


def _instant(when: When, now: datetime) -> datetime:
    if isinstance(when, timedelta) or (isinstance(when, str) and when.startswith("P")):
        return parse_duration("expected", when).add_to(now, _UTC)
    return parse_instant("expected", when)


def _texts(due: Mapping[str, datetime]) -> dict[str, str]:
    return {name: due[name].isoformat() for name in sorted(due)}
