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
from scheduler.store.outlook import Outlooks
from scheduler.store.pauses import Pauses
from scheduler.store.plans import Plans
from scheduler.store.resuming import Resuming
from scheduler.store.settlements import Settlements
from scheduler.store.shared import statements_of


class Stores:
    """One object per table or use, for one database. Thread-safe.

    Their statements are built when they are first asked for, and shared with every database of the same layout.
    """

    def __init__(self, database: Database, timer_defaults: TimerDefaults) -> None:
        self.database = database
        self._layout = database.layout
        self._timer_defaults = timer_defaults

    @classmethod
    def of(cls, database: Database, timer_defaults: TimerDefaults) -> Self:
        """The stores of a database."""
        return cls(database, timer_defaults)

    @cached_property
    def actions(self) -> Actions:
        """Reading and inserting actions."""
        return statements_of(Actions, self._layout)

    @cached_property
    def changes(self) -> ActionChanges:
        """What transitions do to many actions."""
        return statements_of(ActionChanges, self._layout)

    @cached_property
    def edits(self) -> ActionEdits:
        """What is done to one action by hand."""
        return statements_of(ActionEdits, self._layout)

    @cached_property
    def claims(self) -> Claims:
        """Claiming and releasing."""
        return statements_of(Claims, self._layout)

    @cached_property
    def due(self) -> Due:
        """Whose turn it is."""
        return statements_of(Due, self._layout)

    @cached_property
    def outlooks(self) -> Outlooks:
        """When something is due, and what else a process has to know all the time."""
        return statements_of(Outlooks, self._layout)

    @cached_property
    def backlog(self) -> BacklogRows:
        """How much is waiting, as last counted."""
        return statements_of(BacklogRows, self._layout)

    @cached_property
    def campaigns(self) -> Campaigns:
        """Campaigns and their transitions."""
        return statements_of(Campaigns, self._layout)

    @cached_property
    def contacts(self) -> Contacts:
        """Contacts."""
        return statements_of(Contacts, self._layout)

    @cached_property
    def events(self) -> Events:
        """Events."""
        return statements_of(Events, self._layout)

    @cached_property
    def explaining(self) -> Explaining:
        """Looking at one campaign from all sides."""
        return statements_of(Explaining, self._layout)

    @cached_property
    def instances(self) -> Instances:
        """The processes that fire."""
        return statements_of(Instances, self._layout)

    @cached_property
    def migrating(self) -> Migrating:
        """Moving campaigns to another plan."""
        return statements_of(Migrating, self._layout)

    @cached_property
    def moves(self) -> Moves:
        """Campaigns moved on."""
        return statements_of(Moves, self._layout)

    @cached_property
    def operator_actions(self) -> OperatorActions:
        """Who did what by hand."""
        return statements_of(OperatorActions, self._layout)

    @cached_property
    def pauses(self) -> Pauses:
        """Pauses."""
        return statements_of(Pauses, self._layout)

    @cached_property
    def resuming(self) -> Resuming:
        """Lifting pauses."""
        return statements_of(Resuming, self._layout)

    @cached_property
    def settlements(self) -> Settlements:
        """How claims end."""
        return statements_of(Settlements, self._layout)

    @cached_property
    def plans(self) -> Plans:
        """Plans, parsed once."""
        return Plans(self.database, self._timer_defaults)
