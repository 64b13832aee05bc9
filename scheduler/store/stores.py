"""All statements of one database, gathered."""

from __future__ import annotations

from functools import cached_property
from typing import Self

from scheduler.domain.plan import TimerDefaults
from scheduler.store.action_changes import ActionChanges
from scheduler.store.action_edits import ActionEdits
from scheduler.store.actions import Actions
from scheduler.store.backlog import BacklogRows
from scheduler.store.campaigns import Campaigns
from scheduler.store.claims import Claims
from scheduler.store.contacts import Contacts
from scheduler.store.database import Database
from scheduler.store.due import Due
from scheduler.store.events import Events
from scheduler.store.explaining import Explaining
from scheduler.store.instances import Instances
from scheduler.store.migrating import Migrating
from scheduler.store.moves import Moves
from scheduler.store.operator_actions import OperatorActions
from scheduler.store.pauses import Pauses
from scheduler.store.plans import Plans
from scheduler.store.resuming import Resuming
from scheduler.store.settlements import Settlements


class Stores:
    """One object per table or use, sharing one database. Each builds its statements when it is first asked for.

    Thread-safe: at worst two threads build the same at once.
    """

    def __init__(self, database: Database, timer_defaults: TimerDefaults) -> None:
        self.database = database
        self._timer_defaults = timer_defaults

    @classmethod
    def of(cls, database: Database, timer_defaults: TimerDefaults) -> Self:
        """The stores of a database."""
        return cls(database, timer_defaults)

    @cached_property
    def actions(self) -> Actions:
        """Reading and inserting actions."""
        return Actions(self.database)

    @cached_property
    def changes(self) -> ActionChanges:
        """What transitions do to many actions."""
        return ActionChanges(self.database)

    @cached_property
    def edits(self) -> ActionEdits:
        """What is done to one action by hand."""
        return ActionEdits(self.database)

    @cached_property
    def claims(self) -> Claims:
        """Claiming and releasing."""
        return Claims(self.database)

    @cached_property
    def due(self) -> Due:
        """When something is due, and whose."""
        return Due(self.database)

    @cached_property
    def backlog(self) -> BacklogRows:
        """How much is waiting, as last counted."""
        return BacklogRows(self.database)

    @cached_property
    def campaigns(self) -> Campaigns:
        """Campaigns and their transitions."""
        return Campaigns(self.database)

    @cached_property
    def contacts(self) -> Contacts:
        """Contacts."""
        return Contacts(self.database)

    @cached_property
    def events(self) -> Events:
        """Events."""
        return Events(self.database)

    @cached_property
    def explaining(self) -> Explaining:
        """Looking at one campaign from all sides."""
        return Explaining(self.database)

    @cached_property
    def instances(self) -> Instances:
        """The processes that fire."""
        return Instances(self.database)

    @cached_property
    def migrating(self) -> Migrating:
        """Moving campaigns to another plan."""
        return Migrating(self.database)

    @cached_property
    def moves(self) -> Moves:
        """Campaigns moved on."""
        return Moves(self.database, self.changes, self.campaigns, self.actions)

    @cached_property
    def operator_actions(self) -> OperatorActions:
        """Who did what by hand."""
        return OperatorActions(self.database)

    @cached_property
    def pauses(self) -> Pauses:
        """Pauses."""
        return Pauses(self.database)

    @cached_property
    def resuming(self) -> Resuming:
        """Lifting pauses."""
        return Resuming(self.database)

    @cached_property
    def settlements(self) -> Settlements:
        """How claims end."""
        return Settlements(self.database)

    @cached_property
    def plans(self) -> Plans:
        """Plans, parsed once."""
        return Plans(self.database, self._timer_defaults)
