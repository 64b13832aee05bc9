"""A whole scheduler on a clock that stands still, with a mail server that is a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from scheduler import (
    Campaign,
    CampaignPlan,
    EventResult,
    ScheduledAction,
    SendRequest,
    SendResult,
    Settings,
    TimeoutScheduler,
)
from scheduler.testing import SettableClock
from tests.support.scheduling import query
from tests.support.walk import NOON, make_document

TABLES: Final = (
    "campaign_plans",
    "contacts",
    "contact_campaigns",
    "scheduled_actions",
    "campaign_transitions",
    "campaign_events",
    "pauses",
)

Node = dict[str, Any]
Handler = Callable[[SendRequest], SendResult | None]


class Stage:
    """A scheduler of the tenant `acme`; campaign `c-1` of contact `k-1` unless told otherwise."""

    def __init__(self, open_one: Callable[..., TimeoutScheduler], url: str, **settings: Any) -> None:
        self.clock = SettableClock(NOON)
        self.mailed: list[SendRequest] = []
        self.handler: Handler = self.mail
        self._open = open_one
        self.url = url
        self.ts = self.another(**settings)
        self.sm = self.ts.campaigns

    def another(self, send_handler: str | None = None, **settings: Any) -> TimeoutScheduler:
        """One more scheduler on the same database and clock; its mail server is this stage's unless told otherwise."""
        handler = send_handler or self._send
        return self._open(self.url, clock=self.clock, settings=Settings(**settings), send_handler=handler)

    def _send(self, request: SendRequest) -> SendResult | None:
        return self.handler(request)

    def mail(self, request: SendRequest) -> SendResult:
        """Put the mail on the list. Its message id is its campaign and visit: `m-c-1-1`."""
        self.mailed.append(request)
        return SendResult(message_id=f"m-{request.campaign_id}-{request.node_visit}")

    def enroll(self, *nodes: Node, campaign: str = "c-1", tenant: str = "acme", **options: Any) -> Campaign:
        """Enrol a contact in the plan of these nodes."""
        names = {"start_at", "contact", "connection", "restart"}
        given = {name: options.pop(name) for name in names & options.keys()}
        contact_id = options.pop("contact_id", campaign.replace("c-", "k-"))
        return self.sm.enroll(tenant, campaign, contact_id, make_document(*nodes, **options), **given)

    def event(self, event_type: str, campaign: str | None = "c-1", tenant: str = "acme", **options: Any) -> EventResult:
        """Something happened, just now unless told otherwise."""
        return self.sm.process_event(tenant, event_type, campaign_id=campaign, **options)

    def run(self, duration: str | timedelta = "PT0S") -> int:
        """Let time pass, and fire what is due then."""
        self.clock.advance(duration)
        return self.ts.run_due()

    def campaign(self, campaign: str = "c-1", tenant: str = "acme") -> Campaign:
        """The campaign as it is."""
        found = self.sm.find(tenant, campaign)
        assert found is not None
        return found

    def node(self, campaign: str = "c-1") -> str:
        """Where the contact stands."""
        return self.campaign(campaign).current_node_id

    def history(self, campaign: str = "c-1", tenant: str = "acme") -> list[tuple[str | None, str, str]]:
        """The stations of the contact: from, to, why; without the enrolment."""
        transitions = self.sm.history(tenant, campaign)
        assert [transition.node_visit for transition in transitions] == list(range(len(transitions)))
        return [(one.from_node_id, one.to_node_id, one.trigger) for one in transitions[1:]]

    def actions(self, campaign: str = "c-1", tenant: str = "acme") -> list[ScheduledAction]:
        """Every action of the campaign, by visit and event."""
        found = self.ts.list_actions(tenant_id=tenant, campaign_id=campaign, limit=1000)
        return sorted(found, key=lambda action: (action.node_visit, action.event_type))

    def states(self, campaign: str = "c-1") -> dict[tuple[int, str], str]:
        """In what state each action is, with the outcome of a completed one."""
        return {
            (action.node_visit, action.event_type): (
                action.outcome or "" if action.status == "completed" else action.status
            )
            for action in self.actions(campaign)
        }

    def action(self, visit: int, event_type: str, campaign: str = "c-1") -> ScheduledAction:
        """One action."""
        (found,) = [one for one in self.actions(campaign) if (one.node_visit, one.event_type) == (visit, event_type)]
        return found

    def counts(self) -> dict[str, int]:
        """How many rows there are."""
        return {table: query(self.ts, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608

    def rows(self, table: str) -> Sequence[Any]:
        """Everything in a table."""
        return query(self.ts, f"SELECT * FROM {table}")  # noqa: S608


def make_plan(*nodes: Node, **members: Any) -> CampaignPlan:
    """A plan that starts at the first node."""
    return CampaignPlan.parse(make_document(*nodes, **members))
