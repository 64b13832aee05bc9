"""A whole scheduler for a test: a database of its own, a clock that jumps from one due instant to the next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from scheduler.domain.action import UNFINISHED, ScheduledAction
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.errors import InvalidInputError, UnknownCampaignError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.domain.timing import parse_duration, parse_instant
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.results import EventResult
from scheduler.settings import Settings
from scheduler.testing.checks import RehearsalChecks
from scheduler.testing.clock import SettableClock
from scheduler.testing.stage import MailSystem, fresh_database

START: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday, at noon."""

TENANT: Final = "acme"
CAMPAIGN: Final = "c-1"
CONTACT: Final = "k-1"
_UTC: Final = ZoneInfo("UTC")
_MOST: Final = 1000


class CampaignRehearsal(RehearsalChecks):
    """Campaigns rehearsed in the test's own thread, with the real scheduler on a temporary SQLite file.

    Or on the migrated database of `database_url`, which nobody else may fire on.

    Nothing is ever late: the clock stands still, and `advance` moves it from one due instant to the next. What is due
    fires at once, after each call. `scheduler`, `campaigns` and `clock` are there for all that has no method here.
    Use it with `with`, or call `close`. Raises what the scheduler raises.
    """

    def __init__(
        self,
        start: datetime = START,
        *,
        database_url: str | None = None,
        settings: Settings | None = None,
        send_handler: Callable[[SendRequest], SendResult | None] | None = None,
        tenant_id: str = TENANT,
    ) -> None:
        self.clock = SettableClock(start)
        self.tenant_id = tenant_id
        self._mail_system = MailSystem(send_handler)
        self._folder = tempfile.TemporaryDirectory(prefix="rehearsal-")
        try:
            self.scheduler = TimeoutScheduler(
                database_url or fresh_database(self._folder.name),
                settings=settings or Settings(),
                clock=self.clock,
                send_handler=self._mail_system,
            )
        except BaseException:
            self._folder.cleanup()
            raise
        self.campaigns = self.scheduler.campaigns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close and remove the database."""
        self.scheduler.close()
        self._folder.cleanup()

    @property
    def now(self) -> datetime:
        """The clock's instant."""
        return self.clock.now()

    @property
    def mails(self) -> list[SendRequest]:
        """The mails that went out, in their order, of all campaigns."""
        return list(self._mail_system.mails)

    def enroll(
        self,
        plan: CampaignPlan | Mapping[str, Any] | str,
        campaign_id: str = CAMPAIGN,
        contact_id: str = CONTACT,
        *,
        contact: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        restart: bool = False,
    ) -> Campaign:
        """Enrol a contact, as `CampaignStateManager.enroll` does; a mail that is due now goes out."""
        self.campaigns.enroll(self.tenant_id, campaign_id, contact_id, plan, start_at, contact, restart)
        self.scheduler.run_due()
        return self.campaign(campaign_id)

    def advance(self, duration: timedelta | str) -> datetime:
        """Let that much time pass (`PT72H`, or a `timedelta`), firing each thing exactly when it is due."""
        return self.advance_to(parse_duration("duration", duration).add_to(self.now, _UTC))

    def advance_to(self, instant: datetime) -> datetime:
        """Let time pass until that instant, which what is due then belongs to."""
        goal = parse_instant("instant", instant)
        if goal < self.now:
            raise InvalidInputError("instant", instant, f"give one from {self.now.isoformat()} on")
        self.scheduler.run_due()
        while (due := self._next_due(goal)) is not None:
            self.clock.set(due)
            self.scheduler.run_due()
        self.clock.set(goal)
        return goal

    def _next_due(self, goal: datetime) -> datetime | None:
        pending = self.scheduler.pending(due_before=goal, limit=_MOST)
        return next((action.run_at for action in pending if action.run_at > self.now), None)

    def event(
        self,
        event_type: str,
        campaign_id: str | None = CAMPAIGN,
        *,
        mail_of: str | None = None,
        message_id: str | None = None,
        node_id: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> EventResult:
        """Something happened, as `process_event` takes it; what is due by that fires.

        About the newest mail, the one of `message_id`, or the last that went out of the node `mail_of`.
        """
        if mail_of is not None:
            message_id = self._message_of(mail_of, campaign_id)
        result = self.campaigns.process_event(
            self.tenant_id,
            event_type,
            message_id,
            metadata,
            campaign_id=campaign_id,
            node_id=node_id,
            occurred_at=occurred_at,
            event_id=event_id,
        )
        self.scheduler.run_due()
        return result

    def _message_of(self, node_id: str, campaign_id: str | None) -> str:
        for request in reversed(self.mails):
            if request.node_id == node_id and request.campaign_id == campaign_id:
                action = self.scheduler.find(request.dedupe_key)
                if action is not None and action.message_id is not None:
                    return action.message_id
        raise InvalidInputError("mail_of", node_id, "no mail of this node went out yet")

    def fail_next_send(self, node_id: str | None = None, error: Exception | None = None) -> None:
        """Let the next mail (of `node_id`) fail: for good, or as `error` says (`RetryLater`, or any other)."""
        self._mail_system.fail_next(node_id, error)

    def pause(self, campaign_id: str = CAMPAIGN) -> Campaign:
        """Pause a campaign."""
        return self.campaigns.pause(self.tenant_id, campaign_id)

    def resume(self, campaign_id: str = CAMPAIGN, **options: Any) -> Campaign:
        """Let a campaign go on, with the options of `CampaignStateManager.resume`; what is due fires."""
        self.campaigns.resume(self.tenant_id, campaign_id, **options)
        self.scheduler.run_due()
        return self.campaign(campaign_id)

    def stop(self, campaign_id: str = CAMPAIGN) -> Campaign:
        """Stop a campaign."""
        return self.campaigns.stop(self.tenant_id, campaign_id)

    def campaign(self, campaign_id: str = CAMPAIGN) -> Campaign:
        """The campaign as it is."""
        found = self.campaigns.find(self.tenant_id, campaign_id)
        if found is None:
            raise UnknownCampaignError(self.tenant_id, campaign_id)
        return found

    def history(self, campaign_id: str = CAMPAIGN) -> list[Transition]:
        """The transitions, the enrolment first."""
        return self.campaigns.history(self.tenant_id, campaign_id)

    def pending(self, campaign_id: str = CAMPAIGN) -> list[ScheduledAction]:
        """The sends and timeouts still to come, paused ones too, the earliest due first."""
        wanted: dict[str, Sequence[str] | str] = {"tenant_id": self.tenant_id, "campaign_id": campaign_id}
        return self.scheduler.list_actions(limit=_MOST, statuses=UNFINISHED, **wanted)
