"""The same things happening to a simulated campaign and to a real one, and what can be seen of it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler import Campaign, CampaignPlan, Settings, Transition
from scheduler.domain.happening import Happening, Operation
from scheduler.domain.simulate import simulate
from scheduler.domain.simulated_contact import CAMPAIGN, CONTACT, KEPT, TENANT, message_of
from scheduler.domain.simulation import What
from scheduler.testing import CampaignRehearsal

AT_ONCE = timedelta(0)
VARIABLES = {"first_name": "Ada"}


@dataclass(frozen=True)
class Story:
    """What becomes of a contact: everything the two have to agree on."""

    history: list[Transition]
    outcomes: list[str]
    mails: list[tuple[str, int, datetime]]
    pending: list[tuple[str, datetime, datetime]]
    campaign: tuple[object, ...]


@dataclass(frozen=True)
class Cast:
    """A plan, what happens, and the circumstances."""

    plan: CampaignPlan
    happenings: Sequence[Happening]
    start_at: datetime
    until: datetime
    timezone: str | None = None
    grace: timedelta = AT_ONCE

    def simulated(self) -> Story:
        """Through the simulator."""
        simulation = simulate(
            self.plan, self.happenings, self.start_at, timezone=self.timezone, grace=self.grace, until=self.until
        )
        events = [entry for entry in simulation.timeline if entry.what is What.EVENT and KEPT not in entry.why]
        return Story(
            history=list(simulation.history),
            outcomes=[entry.outcome or "" for entry in events],
            mails=[(mail.node_id, mail.node_visit, mail.at) for mail in simulation.mails],
            pending=sorted((one.dedupe_key, one.deadline, one.run_at) for one in simulation.pending),
            campaign=state_of(simulation.campaign),
        )

    def performed(self, database_url: str | None = None) -> Story:
        """Through the public API, on a real database."""
        with CampaignRehearsal(
            self.start_at, database_url=database_url, settings=Settings(timeout_grace=self.grace), tenant_id=TENANT
        ) as rehearsal:
            return perform(rehearsal, self)


def perform(rehearsal: CampaignRehearsal, cast: Cast) -> Story:
    """Enrol, let everything happen when it does, and look."""
    contact = {"timezone": cast.timezone, "variables": VARIABLES}
    rehearsal.enroll(cast.plan, CAMPAIGN, CONTACT, contact=contact)
    outcomes: list[str] = []
    for happening in sorted(cast.happenings, key=lambda one: one.at):
        if happening.at > cast.until:
            break
        rehearsal.advance_to(happening.at)
        outcomes += happen(rehearsal, happening)
    rehearsal.advance_to(cast.until)
    return Story(
        history=rehearsal.history(),
        outcomes=outcomes,
        mails=[(mail.node_id, mail.node_visit, sent_at(rehearsal, mail.dedupe_key)) for mail in rehearsal.mails],
        pending=sorted((one.dedupe_key, one.deadline, one.run_at) for one in rehearsal.pending()),
        campaign=state_of(rehearsal.campaign()),
    )


def happen(rehearsal: CampaignRehearsal, happening: Happening) -> Iterable[str]:
    """One thing happens; the answer to an event."""
    match happening.do:
        case Operation.PAUSE:
            rehearsal.pause()
        case Operation.RESUME:
            rehearsal.resume(**({} if happening.policy is None else {"policy": happening.policy}))
        case Operation.STOP:
            rehearsal.stop()
        case Operation.FAIL_SEND:
            rehearsal.fail_next_send(happening.node_id)
        case _:
            visit = happening.visit
            result = rehearsal.event(
                happening.event_type or "",
                CAMPAIGN if visit is None else None,
                message_id=None if visit is None else message_of(visit),
                node_id=happening.node_id,
                occurred_at=happening.occurred_at,
                event_id=happening.event_id,
                metadata=happening.metadata,
            )
            yield result.outcome


def sent_at(rehearsal: CampaignRehearsal, dedupe_key: str) -> datetime:
    """When a mail went out."""
    action = rehearsal.scheduler.find(dedupe_key)
    assert action is not None
    assert action.sent_at is not None
    return action.sent_at


def state_of(campaign: Campaign) -> tuple[object, ...]:
    """Where a campaign stands."""
    return (
        str(campaign.status),
        campaign.current_node_id,
        campaign.node_visit,
        campaign.node_entered_at,
        campaign.anchor_at,
        campaign.started_at,
        campaign.completed_at,
        campaign.mail_node_id,
        campaign.mail_visit,
        campaign.sent_visit,
        campaign.mail_events,
    )
