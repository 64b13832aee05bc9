"""The tables, as SQLAlchemy sees them. The migrations in sql/ make them; a test proves that both agree.

Instants are `timestamptz` on PostgreSQL and fixed-width UTC text on SQLite (`2026-03-02 12:00:00.000000`),
which sorts as it should. JSON is kept as text on both, byte for byte: a plan's hash is that of its text.
Every key starts with the tenant, so that the schema can be partitioned by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator, TypeEngine

from scheduler.domain.action import ActionStatus, ActionType
from scheduler.domain.campaign import CampaignStatus

NAMING: Final = {
    "pk": "pk_%(table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, whatever time zone the connection speaks."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`timestamptz` on PostgreSQL, text on SQLite."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """The value as the driver takes it."""
        if value is None or dialect.name == "postgresql":
            return value
        return to_text(value)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], datetime | None]:  # noqa: ARG002 - the base's
        """What turns the driver's value into aware UTC: one call a value, for there are many in a batch."""
        return _in_utc


def _in_utc(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        return from_text(value)
    in_utc: datetime = value if value.tzinfo is UTC else value.astimezone(UTC)
    return in_utc


def to_text(value: datetime) -> str:
    """An instant as SQLite stores it."""
    in_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return in_utc.isoformat(" ", "microseconds")[:26]


def from_text(value: str) -> datetime:
    """An instant from what SQLite stores."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


def _one_of(column: str, values: type[ActionStatus | ActionType | CampaignStatus]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _readable(column: str) -> CheckConstraint:
    """An instant that Python can hold; one without a value passes."""
    earliest, latest = "1000-01-01 00:00:00+00", "9000-01-01 00:00:00+00"
    return CheckConstraint(f"{column} >= '{earliest}' AND {column} < '{latest}'", name=f"{column}_readable")


def _required(name: str, type_: Any = Text, default: str | None = None) -> Column[Any]:
    return Column(name, type_, nullable=False, server_default=None if default is None else text(default))


def _optional(name: str, type_: Any = Text) -> Column[Any]:
    return Column(name, type_, nullable=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a statement depends on: where the tables are, and on which system. The same for every such database."""

    schema: str | None
    dialect_name: str

    @property
    def tables(self) -> Tables:
        """The tables in that schema."""
        return tables_of(self.schema)

    @property
    def is_postgresql(self) -> bool:
        """Whether this is PostgreSQL (else SQLite)."""
        return self.dialect_name == "postgresql"


@cache
def tables_of(schema: str | None) -> Tables:
    """The tables in the schema of that name, made once: they never change."""
    return Tables(schema)


class Tables:
    """Every table, in the schema of that name (None: the connection's own)."""

    def __init__(self, schema: str | None = None) -> None:
        self.metadata = MetaData(schema=schema, naming_convention=NAMING)
        self.installation = self._table(
            "timeout_scheduler_installation",
            _required("installation_id"),
            _required("created_at", Instant),
            _optional("oldest_program"),
            PrimaryKeyConstraint("installation_id"),
        )
        self.instances = self._table(
            "timeout_scheduler_instances",
            _required("instance_id"),
            _required("instance_name"),
            _required("process_id", Integer),
            _optional("process_mark"),
            _optional("presence", BigInteger().with_variant(Integer(), "sqlite")),
            _required("started_at", Instant),
            _required("seen_at", Instant),
            _optional("stopped_at", Instant),
            _required("ended", BigInteger().with_variant(Integer(), "sqlite"), "0"),
            _optional("rate", Double),
            _optional("lateness", Double),
            _optional("progress_at", Instant),
            PrimaryKeyConstraint("instance_id"),
        )
        self.backlog = self._backlog()
        self.campaign_plans = self._table(
            "campaign_plans",
            _required("tenant_id"),
            _required("plan_hash"),
            _required("plan"),
            _optional("name"),
            _required("created_at", Instant),
            PrimaryKeyConstraint("tenant_id", "plan_hash"),
        )
        self.contacts = self._table(
            "contacts",
            _required("tenant_id"),
            _required("contact_id"),
            _optional("address"),
            _optional("timezone"),
            _optional("variables"),
            _optional("suppressed_at", Instant),
            _optional("suppressed_reason"),
            _required("created_at", Instant),
            _required("updated_at", Instant),
            PrimaryKeyConstraint("tenant_id", "contact_id"),
        )
        self.contact_campaigns = self._contact_campaigns()
        self.scheduled_actions = self._scheduled_actions()
        self.campaign_transitions = self._table(
            "campaign_transitions",
            _required("tenant_id"),
            _required("campaign_id"),
            _required("node_visit", Integer),
            _optional("from_node_id"),
            _required("to_node_id"),
            _required("trigger"),
            _required("occurred_at", Instant),
            _required("created_at", Instant),
            _optional("dedupe_key"),
            _optional("event_id"),
            # A visit is left at most once: a second transition out of it can't be stored.
            PrimaryKeyConstraint("tenant_id", "campaign_id", "node_visit"),
            CheckConstraint("node_visit >= 0", name="node_visit_counts"),
        )
        self.campaign_events = self._campaign_events()
        self.pauses = self._table(
            "pauses",
            _required("tenant_id"),
            _required("campaign_id"),
            _required("scope"),
            _required("dedupe_key", default="''"),
            _required("started_at", Instant),
            _optional("actor"),
            _optional("reason"),
            # One pause per thing paused; tenant_id, campaign_id and dedupe_key are '' where the scope is wider.
            PrimaryKeyConstraint("tenant_id", "campaign_id", "scope", "dedupe_key"),
            CheckConstraint("scope IN ('all', 'tenant', 'campaign', 'action', 'sends')", name="scope_known"),
        )
        self.operator_actions = self._table(
            "operator_actions",
            _required("operator_action_id"),
            _optional("tenant_id"),
            _required("act"),
            _optional("actor"),
            _optional("details"),
            _required("created_at", Instant),
            _optional("campaign_id"),
            PrimaryKeyConstraint("operator_action_id"),
            Index("ix_operator_actions_campaign", "tenant_id", "campaign_id", "created_at"),
        )

    def _table(self, name: str, *items: SchemaItem) -> Table:
        return Table(name, self.metadata, *items)

    def _backlog(self) -> Table:
        number = BigInteger().with_variant(Integer(), "sqlite")
        return self._table(
            "timeout_scheduler_backlog",
            _required("only_row", Integer, "1"),
            *(_required(name, number) for name in ("due", "claimed", "errors")),
            _required("counted_at", Instant),
            _required("took", Double),
            _optional("pending", number),
            _optional("pending_counted_at", Instant),
            _optional("pending_took", Double),
            _optional("lowest_due", number),
            _optional("lowest_at", Instant),
            _optional("alerted_at", Instant),
            PrimaryKeyConstraint("only_row"),
            CheckConstraint("only_row = 1", name="one_row"),
        )

    def _contact_campaigns(self) -> Table:
        table = self._table(
            "contact_campaigns",
            _required("tenant_id"),
            _required("campaign_id"),
            _required("contact_id"),
            _optional("channel"),
            _required("plan_hash"),
            _required("status"),
            _required("current_node_id"),
            _required("node_visit", Integer),
            _required("node_entered_at", Instant),
            _required("anchor_at", Instant),
            _required("started_at", Instant),
            _optional("completed_at", Instant),
            _required("created_at", Instant),
            _required("updated_at", Instant),
            _optional("mail_node_id"),
            _optional("mail_visit", Integer),
            _optional("sent_visit", Integer),
            _required("first_visit", Integer, "1"),
            _optional("mail_events"),
            PrimaryKeyConstraint("tenant_id", "campaign_id"),
            _one_of("status", CampaignStatus),
            CheckConstraint("node_visit >= 1", name="node_visit_counts"),
            # All campaigns of one contact: what stops with an unsubscribe.
            Index("ix_contact_campaigns_contact", "tenant_id", "contact_id"),
        )
        # What ended, the longest ago first: what retention removes.
        ended, campaigns = text("completed_at IS NOT NULL"), table.c
        by_end = (campaigns.completed_at, campaigns.tenant_id, campaigns.campaign_id)
        _partial("ix_contact_campaigns_completed", ended, *by_end)
        return table

    def _scheduled_actions(self) -> Table:
        table = self._table(
            "scheduled_actions",
            _required("tenant_id"),
            _required("dedupe_key"),
            _required("campaign_id"),
            _required("contact_id"),
            _required("node_id"),
            _required("node_visit", Integer, "1"),
            _required("action_type", default="'timeout'"),
            _required("event_type"),
            _optional("deadline", Instant),
            _required("run_at", Instant),
            _required("status", default="'pending'"),
            _optional("outcome"),
            _required("attempts", Integer, "0"),
            _optional("last_error"),
            _optional("claimed_by"),
            _required("claim_number", Integer, "0"),
            _optional("claimed_until", Instant),
            _optional("message_id"),
            _optional("sent_at", Instant),
            _required("created_at", Instant, "CURRENT_TIMESTAMP"),
            _required("updated_at", Instant, "CURRENT_TIMESTAMP"),
            _optional("finished_at", Instant),
            # One action per key, in every state: the same timeout can't be scheduled twice, finished or not.
            PrimaryKeyConstraint("tenant_id", "dedupe_key"),
            _one_of("action_type", ActionType),
            _one_of("status", ActionStatus),
            CheckConstraint("node_visit >= 1", name="node_visit_counts"),
            # A claim always says whose it is and when it ends.
            CheckConstraint(
                "status <> 'claimed' OR (claimed_by IS NOT NULL AND claimed_until IS NOT NULL)", name="claim_whole"
            ),
            # What is finished has an end, and what is not has none.
            CheckConstraint(
                "(status IN ('completed', 'canceled', 'error')) = (finished_at IS NOT NULL)", name="finish_dated"
            ),
            # `infinity`, or a year before Christ, from another language: every claim that met it would fail.
            _readable("run_at"),
            _readable("deadline"),
        )
        pending = text("status = 'pending'")
        claimed = text("status = 'claimed'")
        unfinished = text("status IN ('pending', 'claimed', 'paused')")
        finished = text("status IN ('completed', 'canceled', 'error')")
        with_message = text("message_id IS NOT NULL")
        failed = text("status = 'error'")
        actions = table.c
        # What is due, in order: the claim reads only its batch from here, however much is pending.
        _partial("ix_scheduled_actions_due", pending, actions.action_type, actions.run_at)
        # The same by tenant: whose turn it is, however much another one has pending. `is_pending_of_tenant` asks so.
        by_tenant = (actions.action_type, actions.tenant_id, actions.run_at)
        _partial("ix_scheduled_actions_tenant_due", text("status || '' = 'pending'"), *by_tenant)
        _partial("ix_scheduled_actions_claimed", claimed, actions.claimed_until)
        _partial("ix_scheduled_actions_unfinished", unfinished, actions.tenant_id, actions.campaign_id)
        _partial("ix_scheduled_actions_finished", finished, actions.tenant_id, actions.campaign_id, actions.node_visit)
        _partial("ix_scheduled_actions_message", with_message, actions.tenant_id, actions.message_id)
        _partial("ix_scheduled_actions_error", failed, actions.tenant_id, actions.run_at)
        return table

    def _campaign_events(self) -> Table:
        table = self._table(
            "campaign_events",
            _required("tenant_id"),
            _required("event_id"),
            _optional("campaign_id"),
            _optional("message_id"),
            _optional("node_id"),
            _optional("node_visit", Integer),
            _required("event_type"),
            _required("occurred_at", Instant),
            _required("received_at", Instant),
            _required("outcome"),
            _optional("metadata"),
            _optional("contact_id"),
            # An event counts once, however often the mail provider sends it.
            PrimaryKeyConstraint("tenant_id", "event_id"),
            Index("ix_campaign_events_campaign", "tenant_id", "campaign_id", "received_at"),
        )
        # Events of a mail nobody has confirmed yet: looked for when one is.
        waiting = text("outcome = 'unknown_campaign'")
        of_contact = text("contact_id IS NOT NULL")
        _partial("ix_campaign_events_contact", of_contact, table.c.tenant_id, table.c.contact_id)
        _partial("ix_campaign_events_waiting", waiting, table.c.tenant_id, table.c.message_id)
        # What came for no campaign, the longest ago first: what retention removes by itself.
        apart = text("outcome = 'unknown_campaign' OR contact_id IS NOT NULL")
        _partial("ix_campaign_events_apart", apart, table.c.received_at, table.c.tenant_id, table.c.event_id)
        return table


def _partial(name: str, where: Any, *columns: Column[Any]) -> None:
    Index(name, *columns, postgresql_where=where, sqlite_where=where)
