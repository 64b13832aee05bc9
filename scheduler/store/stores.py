"""All statements of one database, gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from scheduler.domain.plan import TimerDefaults
from scheduler.store.action_changes import ActionChanges
from scheduler.store.action_edits import ActionEdits
from scheduler.store.actions import Actions
from scheduler.store.campaigns import Campaigns
from scheduler.store.claims import Claims
from scheduler.store.contacts import Contacts
from scheduler.store.database import Database
from scheduler.store.events import Events
from scheduler.store.instances import Instances
from scheduler.store.operator_actions import OperatorActions
from scheduler.store.pauses import Pauses
from scheduler.store.plans import Plans
from scheduler.store.resuming import Resuming
from scheduler.store.settlements import Settlements


@dataclass(frozen=True, slots=True)
class Stores:
    """One object per table or use, sharing one database."""

    database: Database
    actions: Actions
    changes: ActionChanges
    edits: ActionEdits
    claims: Claims
    campaigns: Campaigns
    contacts: Contacts
    events: Events
    instances: Instances
    operator_actions: OperatorActions
    pauses: Pauses
    plans: Plans
    resuming: Resuming
    settlements: Settlements

    @classmethod
    def of(cls, database: Database, timer_defaults: TimerDefaults) -> Self:
        """The stores of a database."""
        return cls(
            database=database,
            actions=Actions(database),
            changes=ActionChanges(database),
            edits=ActionEdits(database),
            claims=Claims(database),
            campaigns=Campaigns(database),
            contacts=Contacts(database),
            events=Events(database),
            instances=Instances(database),
            operator_actions=OperatorActions(database),
            pauses=Pauses(database),
            plans=Plans(database, timer_defaults),
            resuming=Resuming(database),
            settlements=Settlements(database),
        )
