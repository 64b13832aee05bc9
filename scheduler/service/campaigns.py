"""The campaign state manager: enrols, takes events, fires timeouts, pauses, resumes and stops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from scheduler.domain.action import ScheduledAction, require_id, tenant_of
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import is_synthetic
from scheduler.domain.explaining.explanation import Explanation, StuckCampaign
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.migration import PlanMigration
from scheduler.domain.outcome import Outcome
from scheduler.domain.pausing import Pause, Paused, ResumePolicy, ResumePreview, ResumeSummary, Resumption
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.domain.storable import require_text
from scheduler.domain.timing import parse_instant
from scheduler.service.confirming import Confirmations
from scheduler.service.contact_events import ContactEvents
from scheduler.service.deciding import decide_timeouts
from scheduler.service.enrolment import Enroller, Enrolment, PlanLike
from scheduler.service.event_intake import EventIntake
from scheduler.service.explaining import Explainer
from scheduler.service.external_sends import ExternalSends
from scheduler.service.migrating import PlanMigrations
from scheduler.service.pausing import Pausing
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import EnrolSummary, EventResult
from scheduler.service.resuming import Resumes
from scheduler.service.suppression import Suppression
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

    def __init__(self, stores: Stores, settings: Settings, metrics: Metrics, *, is_external: bool = False) -> None:
        self._stores = stores
        self._database = stores.database
        self._writer = DecisionWriter(stores, settings.timeout_grace, metrics)
        self._enroller = Enroller(stores, self._writer, settings.timer_defaults)
        self._intake = EventIntake(stores, self._writer, metrics)
        self._pausing = Pausing(stores, self._writer)
        self._resumes = Resumes(stores)
        self._migrations = PlanMigrations(stores, self._writer, self._enroller, settings.timeout_grace)
        self._confirmations = Confirmations(stores, self._writer, self._intake)
        self._suppression = Suppression(stores, self._writer)
        self._contact_events = ContactEvents(stores, self._intake, self._suppression)
        self._synthetic = SyntheticEvents(stores, self._writer)
        self._external = ExternalSends(stores, self._writer, settings, metrics, is_external=is_external)
        self._explainer = Explainer(stores)

    def enroll(
        self,
        tenant_id: str,
        campaign_id: str,
        contact_id: str,
        plan: PlanLike,
        start_at: datetime | None = None,
        contact: Mapping[str, Any] | None = None,
        restart: bool = False,  # noqa: FBT001, FBT002 - where the contract has it
        connection: Any = None,
    ) -> Campaign:
        """Start a contact on a plan. The same campaign again: no change, and the same value.

        `start_at` is when the first node is entered (now); `contact` a mapping with address, timezone, variables.
        With `restart` a finished campaign begins again, on this plan; its visits go on counting, so no key is reused.
        Raises InvalidInputError for a suppressed contact.
        """
        enrolment = Enrolment(
            tenant_id=tenant_id,
            campaign_id=campaign_id,
            contact_id=contact_id,
            plan=plan,
            start_at=start_at,
            contact=contact,
            restart=restart,
        )
        return self._database.run(lambda transaction: self._enroller.enroll(transaction, enrolment), connection)

    def enroll_many(self, enrolments: Iterable[Enrolment | Mapping[str, Any]], connection: Any = None) -> EnrolSummary:
        """Enrol many contacts in one transaction: all of them or, when one is unusable, none.

        Suppressed contacts are left out, and counted.
        """
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

    def process_contact_event(
        self,
        tenant_id: str,
        contact_id: str,
        event_type: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        connection: Any = None,
    ) -> list[EventResult]:
        """Take in what concerns all of a contact's campaigns, such as an answer: a result for each unfinished one.

        `unsubscribed` and `spamreport` suppress the contact, whether it has a campaign or not.
        """
        contact = _contact_key(tenant_id, contact_id)
        return self._database.run(
            lambda transaction: self._contact_events.take(
                transaction, contact, event_type, metadata, occurred_at, event_id
            ),
            connection,
        )

    def suppress(
        self, tenant_id: str, contact_id: str, reason: str, connection: Any = None, *, actor: str | None = None
    ) -> bool:
        """Approach a contact no more: its campaigns stop, new ones are refused. False when it was suppressed already.

        The contact may be unknown yet.
        """
        contact, why = _contact_key(tenant_id, contact_id), require_text("reason", reason)
        who = _optional("actor", actor)
        return self._database.run(
            lambda transaction: self._suppression.suppress_one(transaction, contact, why, who), connection
        )

    def unsuppress(self, tenant_id: str, contact_id: str, connection: Any = None, *, actor: str | None = None) -> bool:
        """Let a contact be approached again; stopped campaigns stay so. False when it wasn't suppressed."""
        contact, who = _contact_key(tenant_id, contact_id), _optional("actor", actor)
        return self._database.run(
            lambda transaction: self._suppression.unsuppress(transaction, contact, who), connection
        )

    def erase(self, tenant_id: str, contact_id: str, connection: Any = None, *, actor: str | None = None) -> bool:
        """Remove a contact's personal data: address, time zone, variables, and what was said beside its events.

        Its campaigns stop. Its id, its history and a suppression stay, and so do all counts. False when it is unknown.
        """
        contact, who = _contact_key(tenant_id, contact_id), _optional("actor", actor)
        return self._database.run(lambda transaction: self._suppression.erase(transaction, contact, who), connection)

    def confirm_send(
        self, job_id: str, sent_at: datetime, message_id: str | None = None, connection: Any = None
    ) -> bool:
        """Say that a mail went out, for applications that send by themselves. False when the send is unknown.

        The visit's anchor and timeouts move to `sent_at`. Saying it again only adds a message id that was missing.
        """
        key = (tenant_of(job_id), job_id)
        mail = None if message_id is None else require_id("message_id", message_id)
        result = SendResult(mail, parse_instant("sent_at", sent_at))
        return self._database.run(
            lambda transaction: self._confirmations.by_application(transaction, key, result), connection
        )

    def take_sends(
        self,
        limit: int = 100,
        tenant_id: str | None = None,
        lease: timedelta | str | None = None,
        connection: Any = None,
    ) -> list[SendRequest]:
        """Due sends for an application that sends by itself: nobody else gets them for `lease` (the setting LEASE).

        Close each with `confirm_send` or `fail_send`; one that isn't by then is due again. Refused unless
        SEND_HANDLER is external.
        """
        return self._database.run(
            lambda transaction: self._external.take(transaction, limit, tenant_id, lease), connection
        )

    def fail_send(
        self,
        job_id: str,
        reason: str,
        retry_after: timedelta | str | None = None,
        permanent: bool = False,  # noqa: FBT001, FBT002 - as the contract has it
        connection: Any = None,
    ) -> bool:
        """Say that a mail couldn't be sent, with what a failing send handler leads to: another attempt, or the end.

        `reason` is kept in `last_error`: leave addresses out. False unless the send was handed out, or is due.
        """
        key = (tenant_of(job_id), job_id)
        return self._database.run(
            lambda transaction: self._external.fail(transaction, key, reason, retry_after, permanent=permanent),
            connection,
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
        key, who, why = _key(tenant_id, campaign_id), _optional("actor", actor), _optional("reason", reason)
        return self._database.run(lambda transaction: self._pausing.pause(transaction, key, who, why), connection)

    def resume(
        self,
        tenant_id: str,
        campaign_id: str,
        connection: Any = None,
        *,
        policy: str = "shift",
        spread: timedelta | str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Campaign:
        """Go on.

        With `shift` the pause doesn't count: anchor, deadlines and due times move by its length; with `keep` what is
        overdue fires now. `spread` is over how long to spread what would fire at once.
        """
        key, how = _key(tenant_id, campaign_id), Resumption.of(policy, spread)
        who, why = _optional("actor", actor), _optional("reason", reason)
        return self._database.run(lambda transaction: self._resumes.resume(transaction, key, how, who, why), connection)

    def pause_tenant(
        self, tenant_id: str, connection: Any = None, *, actor: str | None = None, reason: str | None = None
    ) -> Pause:
        """While paused nothing of the tenant fires, and nothing is lost. Paused already: no change."""
        paused = Paused(require_id("tenant_id", tenant_id))
        return self._pause_wide(paused, connection, actor, reason)

    def resume_tenant(
        self,
        tenant_id: str,
        connection: Any = None,
        *,
        policy: str = "shift",
        spread: timedelta | str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> ResumeSummary:
        """Let a tenant go on, as `resume` does a campaign. Campaigns paused by themselves stay paused."""
        paused = Paused(require_id("tenant_id", tenant_id))
        return self._resume_wide(paused, connection, Resumption.of(policy, spread), actor, reason)

    def pause_all(self, connection: Any = None, *, actor: str | None = None, reason: str | None = None) -> Pause:
        """While paused nothing fires in this database, whoever's it is. Paused already: no change."""
        return self._pause_wide(Paused(), connection, actor, reason)

    def resume_all(
        self,
        connection: Any = None,
        *,
        policy: str = "shift",
        spread: timedelta | str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> ResumeSummary:
        """Let everything go on, as `resume` does a campaign. Tenants and campaigns paused by themselves stay paused."""
        return self._resume_wide(Paused(), connection, Resumption.of(policy, spread), actor, reason)

    def pause_sends(
        self,
        tenant_id: str | None = None,
        connection: Any = None,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Pause:
        """While paused no mail goes out, of the tenant or of any; timeouts that wait for none go on.

        Paused already: no change.
        """
        return self._pause_wide(_paused(tenant_id, None, sends=True), connection, actor, reason)

    def resume_sends(
        self,
        tenant_id: str | None = None,
        connection: Any = None,
        *,
        spread: timedelta | str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> ResumeSummary:
        """Let mails go out again: what is overdue now, or over the length of `spread`. Other pauses go on holding."""
        how = Resumption.of(ResumePolicy.KEEP, spread)
        return self._resume_wide(_paused(tenant_id, None, sends=True), connection, how, actor, reason)

    def preview_resume_sends(
        self, tenant_id: str | None = None, spread: timedelta | str | None = None, connection: Any = None
    ) -> ResumePreview:
        """How many mails would be due when, if `resume_sends` were called now."""
        how = Resumption.of(ResumePolicy.KEEP, spread)
        with self._database.reading(connection) as transaction:
            return self._resumes.preview(transaction, _paused(tenant_id, None, sends=True), how)

    def pauses(self, tenant_id: str | None = None, connection: Any = None) -> list[Pause]:
        """What is paused, since when, by whom and why, the widest first; for a tenant, what holds anything of it."""
        tenant = None if tenant_id is None else require_id("tenant_id", tenant_id)
        with self._database.reading(connection) as transaction:
            return self._stores.pauses.select(transaction, tenant)

    def preview_resume(
        self,
        tenant_id: str | None = None,
        campaign_id: str | None = None,
        policy: str = "shift",
        spread: timedelta | str | None = None,
        connection: Any = None,
    ) -> ResumePreview:
        """How many actions would fire when, if the campaign, the tenant or everything were resumed now."""
        paused, how = _paused(tenant_id, campaign_id), Resumption.of(policy, spread)
        with self._database.reading(connection) as transaction:
            return self._resumes.preview(transaction, paused, how)

    def _pause_wide(self, paused: Paused, connection: Any, actor: str | None, reason: str | None) -> Pause:
        who, why = _optional("actor", actor), _optional("reason", reason)
        return self._database.run(
            lambda transaction: self._pausing.pause_wide(transaction, paused, who, why), connection
        )

    def _resume_wide(
        self, paused: Paused, connection: Any, how: Resumption, actor: str | None, reason: str | None
    ) -> ResumeSummary:
        who, why = _optional("actor", actor), _optional("reason", reason)
        return self._database.run(
            lambda transaction: self._resumes.resume_wide(transaction, paused, how, who, why), connection
        )

    def stop(
        self,
        tenant_id: str,
        campaign_id: str,
        connection: Any = None,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Campaign:
        """End the campaign now, with everything pending for it. On a finished campaign: no change."""
        key, who, why = _key(tenant_id, campaign_id), _optional("actor", actor), _optional("reason", reason)
        return self._database.run(lambda transaction: self._pausing.stop(transaction, key, who, why), connection)

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

    def migrate_plan(
        self,
        tenant_id: str,
        old_plan_hash: str,
        new_plan: PlanLike,
        node_map: Mapping[str, str] | None = None,
        dry_run: bool = False,  # noqa: FBT001, FBT002 - where the contract has it
        connection: Any = None,
        *,
        actor: str | None = None,
    ) -> PlanMigration:
        """Let unfinished campaigns of a plan go on, on another one, at the node `node_map` or the same id names.

        Moves them in many transactions, one after the other (in the caller's, all at once). Those that can't be moved
        now are counted as busy: call again. With `dry_run` only what would happen is counted.
        """
        if dry_run:
            return self._migrations.preview(tenant_id, old_plan_hash, new_plan, node_map, connection)
        return self._migrations.migrate(tenant_id, old_plan_hash, new_plan, node_map, connection, actor)

    def explain(self, tenant_id: str, campaign_id: str, connection: Any = None) -> Explanation:
        """What happened to the campaign, in order and in words, where it stands, and what it waits for.

        Works for finished campaigns too. Without `connection` all of it is read from one state of the database.
        """
        return self._explainer.explain(_key(tenant_id, campaign_id), connection)

    def stuck(self, tenant_id: str | None = None, limit: int = 100, connection: Any = None) -> list[StuckCampaign]:
        """Active campaigns that nothing will move by itself, each with the reason, by tenant and campaign."""
        tenant = None if tenant_id is None else require_id("tenant_id", tenant_id)
        return self._explainer.stuck(tenant, limit, connection)

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Fire due timeouts, in the scheduler's transaction (see `StateManager`)."""
        transaction = self._database.transaction_on(connection)
        return decide_timeouts(self._stores, self._writer, transaction, jobs)


def _contact_key(tenant_id: str, contact_id: str) -> tuple[str, str]:
    return (require_id("tenant_id", tenant_id), require_id("contact_id", contact_id))


def _key(tenant_id: str, campaign_id: str) -> tuple[str, str]:
    return (require_id("tenant_id", tenant_id), require_id("campaign_id", campaign_id))


def _paused(tenant_id: str | None, campaign_id: str | None, *, sends: bool = False) -> Paused:
    if tenant_id is None:
        if campaign_id is not None:
            raise InvalidInputError("tenant_id", None, "give the campaign's tenant")
        return Paused(sends=sends)
    if campaign_id is None:
        return Paused(require_id("tenant_id", tenant_id), sends=sends)
    return Paused(*_key(tenant_id, campaign_id))


def _optional(field: str, text: str | None) -> str | None:
    return None if text is None else require_text(field, text)
