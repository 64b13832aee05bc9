"""The campaign state manager: enrols, takes events, fires timeouts, pauses, resumes and stops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from scheduler.domain.action import ScheduledAction, require_id, tenant_of
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.event import is_synthetic
from scheduler.domain.outcome import Outcome
from scheduler.domain.sending import SendResult
from scheduler.domain.timing import parse_instant
from scheduler.service.confirming import Confirmations
from scheduler.service.deciding import decide_timeouts
from scheduler.service.enrolment import Enroller, Enrolment, PlanLike
from scheduler.service.event_intake import EventIntake, IncomingEvent
from scheduler.service.pausing import Pausing
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import EnrolSummary, EventResult
from scheduler.service.synthetic import SyntheticEvents
from scheduler.settings import Settings
from scheduler.store.database import Connection
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics


class CampaignStateManager:
    """Campaigns of all tenants. Every call is one transaction, or joins the caller's; thread-safe.

    Raises InvalidInputError (nothing is written), UnknownCampaignError where a campaign must exist,
    DatabaseUnavailableError when the database is away; the same call may then be made again.
    """

    def __init__(self, stores: Stores, settings: Settings, metrics: Metrics) -> None:
        self._stores = stores
        self._database = stores.database
        self._writer = DecisionWriter(stores, settings.timeout_grace, metrics)
        self._enroller = Enroller(stores, self._writer, settings.timer_defaults)
        self._intake = EventIntake(stores, self._writer, metrics)
        self._pausing = Pausing(stores, self._writer)
        self._confirmations = Confirmations(stores, self._writer)
        self._synthetic = SyntheticEvents(stores, self._writer)

    def enroll(
        self,
        tenant_id: str,
        campaign_id: str,
        contact_id: str,
        plan: PlanLike,
        start_at: datetime | None = None,
        contact: Mapping[str, Any] | None = None,
        connection: Any = None,
    ) -> Campaign:
        """Start a contact on a plan. The same campaign again: no change, and the same value.

        `start_at` is when the first node is entered (now); `contact` a mapping with address, timezone, variables.
        """
        enrolment = Enrolment(
            tenant_id=tenant_id,
            campaign_id=campaign_id,
            contact_id=contact_id,
            plan=plan,
            start_at=start_at,
            contact=contact,
        )
        return self._database.run(lambda transaction: self._enroller.enroll(transaction, enrolment), connection)

    def enroll_many(self, enrolments: Iterable[Enrolment | Mapping[str, Any]], connection: Any = None) -> EnrolSummary:
        """Enrol many contacts in one transaction: all of them or, when one is unusable, none."""
        with self._database.transaction(connection) as transaction, transaction.all_or_nothing():
            return self._enroller.enroll_many(transaction, enrolments)

    def process_event(
        self,
        tenant_id: str,
        event_type: str,
        message_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        campaign_id: str | None = None,
        node_id: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        connection: Any = None,
    ) -> EventResult:
        """Take one event in. A synthetic type fires that visit's pending timeout, and is refused before its time."""
        event = IncomingEvent(
            tenant_id=tenant_id,
            event_type=event_type,
            message_id=message_id,
            metadata=metadata,
            campaign_id=campaign_id,
            node_id=node_id,
            occurred_at=occurred_at,
            event_id=event_id,
        )
        if is_synthetic(event.event_type):
            return self._database.run(lambda transaction: self._synthetic.fire(transaction, event), connection)
        return self._database.run(lambda transaction: self._intake.take(transaction, [event])[0], connection)

    def process_events(
        self, events: Iterable[IncomingEvent | Mapping[str, Any]], connection: Any = None
    ) -> list[EventResult]:
        """Take many events in, in their order, in one transaction; one result each."""
        incoming = [IncomingEvent.of(event) for event in events]
        return self._database.run(lambda transaction: self._intake.take(transaction, incoming), connection)

    def confirm_send(
        self, job_id: str, sent_at: datetime, message_id: str | None = None, connection: Any = None
    ) -> bool:
        """Say that a mail went out, for applications that send by themselves. False when the send is unknown.

        The visit's anchor and timeouts move to `sent_at`. Saying it again changes nothing.
        """
        key = (tenant_of(job_id), job_id)
        mail = None if message_id is None else require_id("message_id", message_id)
        result = SendResult(mail, parse_instant("sent_at", sent_at))
        return self._database.run(
            lambda transaction: self._confirmations.by_application(transaction, key, result), connection
        )

    def pause(
        self,
        tenant_id: str,
        campaign_id: str,
        connection: Any = None,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Campaign:
        """While paused nothing of the campaign fires, and nothing is lost. On a finished campaign: no change."""
        key = _key(tenant_id, campaign_id)
        return self._database.run(lambda transaction: self._pausing.pause(transaction, key, actor, reason), connection)

    def resume(self, tenant_id: str, campaign_id: str, connection: Any = None) -> Campaign:
        """Go on: the pause doesn't count, so anchor, deadlines and due times move by its length."""
        key = _key(tenant_id, campaign_id)
        return self._database.run(lambda transaction: self._pausing.resume(transaction, key), connection)

    def stop(self, tenant_id: str, campaign_id: str, connection: Any = None) -> Campaign:
        """End the campaign now, with everything pending for it. On a finished campaign: no change."""
        key = _key(tenant_id, campaign_id)
        return self._database.run(lambda transaction: self._pausing.stop(transaction, key), connection)

    def find(self, tenant_id: str, campaign_id: str, connection: Any = None) -> Campaign | None:
        """The campaign as it is now."""
        key = _key(tenant_id, campaign_id)
        with self._database.reading(connection) as transaction:
            return self._stores.campaigns.read(transaction, [key]).get(key)

    def history(self, tenant_id: str, campaign_id: str, connection: Any = None) -> list[Transition]:
        """The visits left, in order; the enrolment first."""
        key = _key(tenant_id, campaign_id)
        with self._database.reading(connection) as transaction:
            return self._stores.campaigns.history(transaction, key)

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Fire due timeouts, in the scheduler's transaction (see `StateManager`)."""
        transaction = self._database.transaction_on(connection)
        return decide_timeouts(self._stores, self._writer, transaction, jobs)


def _key(tenant_id: str, campaign_id: str) -> tuple[str, str]:
    return (require_id("tenant_id", tenant_id), require_id("campaign_id", campaign_id))
