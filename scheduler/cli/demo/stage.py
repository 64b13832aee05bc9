"""The demo's stage: the throw-away database with its contacts, and what can be seen there from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from scheduler.cli.demo.clock import PatientClock
from scheduler.cli.demo.script import Role, Walk
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.outcome import SENT, TRANSITIONED
from scheduler.domain.sending import SendRequest, SendResult
from scheduler.domain.timing import SystemClock
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings

TENANT: Final = "demo"
# A contact acts at most twice this and its own hesitation after its mail: sooner than any timeout of the plan.
PATIENCE: Final = timedelta(milliseconds=800)
_MOST_ACTIONS: Final = 10_000


def demo_plan() -> dict[str, Any]:
    """The sample plan with second-long timeouts."""
    file = files("scheduler") / "_config" / "plans" / "demo.json"
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return document


class Outbox:
    """The send handler: mails go nowhere, and are counted. Instant, so that a batch shares its transactions."""

    batch_size = 500

    def __init__(self) -> None:
        self.mails: list[str] = []

    def __call__(self, request: SendRequest, /) -> SendResult:
        """Count the mail, and say that it went out now."""
        self.mails.append(request.dedupe_key)
        return SendResult(message_id=f"mail-{len(self.mails)}")


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The database at one moment: every action by its key, every contact's transitions, where each is."""

    actions: Mapping[str, ScheduledAction]
    transitions: Mapping[str, list[Transition]]
    campaigns: Mapping[str, Campaign]

    @property
    def is_over(self) -> bool:
        """Whether every campaign is finished."""
        return all(campaign.is_finished for campaign in self.campaigns.values())

    def walk_of(self, contact: str) -> Walk:
        """What became of a contact, in the numbers of the database."""
        actions = [action for action in self.actions.values() if action.campaign_id == contact]
        campaign = self.campaigns[contact]
        return Walk(
            end_node=campaign.current_node_id,
            status=campaign.status,
            transitions=sum(1 for one in self.transitions[contact] if one.node_visit > 0),
            mails=sum(1 for action in actions if is_sent(action)),
            fired=sum(1 for action in actions if is_fired(action)),
            canceled=sum(1 for action in actions if action.status == ActionStatus.CANCELED),
        )


class Stage:
    """The scheduler, its contacts, and a way to look."""

    def __init__(self, timeout_scheduler: TimeoutScheduler, cast: Mapping[str, Role], clock: PatientClock) -> None:
        self.timeout_scheduler = timeout_scheduler
        self.cast = cast
        self.clock = clock

    def enroll(self, plan: Mapping[str, Any]) -> None:
        """Start every contact, in one transaction; a contact's campaign has its name."""
        self.timeout_scheduler.campaigns.enroll_many(
            {
                "tenant_id": TENANT,
                "campaign_id": contact,
                "contact_id": contact,
                "plan": plan,
                "contact": {"address": f"{contact}@example.com", "variables": {"first_name": contact.title()}},
            }
            for contact in self.cast
        )

    def look(self) -> Glimpse:
        """The database as it is now."""
        campaigns = self.timeout_scheduler.campaigns
        actions = self.timeout_scheduler.list_actions(tenant_id=TENANT, limit=_MOST_ACTIONS)
        found = {contact: campaigns.find(TENANT, contact) for contact in self.cast}
        return Glimpse(
            actions={action.dedupe_key: action for action in actions},
            transitions={contact: campaigns.history(TENANT, contact) for contact in self.cast},
            campaigns={contact: campaign for contact, campaign in found.items() if campaign is not None},
        )


@contextmanager
def set_up(cast: Mapping[str, Role], outbox: Outbox) -> Iterator[Stage]:
    """A migrated SQLite file in a temporary folder, gone afterwards. No setting of this machine is read."""
    settings = Settings.model_construct(poll_interval=timedelta(milliseconds=200), instance_name="demo")
    with TemporaryDirectory(prefix="timeout-scheduler-demo-") as folder:
        url, clock = f"sqlite:///{Path(folder) / 'demo.db'}", PatientClock(SystemClock(), PATIENCE)
        with closing(TimeoutScheduler(url, settings=settings, send_handler=outbox, clock=clock)) as timeout_scheduler:
            timeout_scheduler.migrate()
            yield Stage(timeout_scheduler, cast, clock)


def is_sent(action: ScheduledAction) -> bool:
    """Whether it is a mail that went out."""
    return action.action_type == ActionType.SEND and action.outcome == SENT


def is_fired(action: ScheduledAction) -> bool:
    """Whether it is a timeout that led on."""
    return action.action_type == ActionType.TIMEOUT and action.outcome == TRANSITIONED
