"""A PostgreSQL database with the roles of sql/roles.sql, each of which may log in; and every call of the Python API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import psycopg
from psycopg import sql

from scheduler import TimeoutScheduler
from scheduler.store.rights import ROLES, roles_sql
from tests.support.postgres import PostgresServer
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, WAIT_PLAN, make_job, make_settings
from tests.support.walk import make_document, on, send

# Sent by hand; after it the campaign waits for years.
MAIL_PLAN: Final = make_document(send("mail", on("opened", "stop"), on("no_open", "stop", after="P36500D")))
OTHER_PLAN: Final = make_document(send("mail", on("clicked", "stop"), on("no_open", "stop", after="P36500D")))
LATER: Final = datetime(2100, 1, 1, tzinfo=UTC)

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class RoledDatabase:
    """Where it is, and what its roles are called."""

    server: PostgresServer
    name: str
    schema: str | None
    prefix: str

    def url(self, role: str, tenant_id: str | None = None) -> str:
        """The URL of one of the four roles; with a tenant, that one is named by each of its sessions."""
        options = "" if tenant_id is None else f"?options=-ctimeout_scheduler.tenant_id%3D{tenant_id}"
        return self.server.url(self.name).replace("postgres@", f"{self.prefix}_{role}@") + options

    @contextmanager
    def opened(
        self, role: str, tenant_id: str | None = None, send_handler: Any = "external", **options: Any
    ) -> Iterator[TimeoutScheduler]:
        """A scheduler that is connected as one of the roles."""
        settings = make_settings(schema_name=self.schema, **options)
        timeout_scheduler = TimeoutScheduler(self.url(role, tenant_id), settings=settings, send_handler=send_handler)
        try:
            yield timeout_scheduler
        finally:
            timeout_scheduler.close()

    def connect(self, role: str, tenant_id: str | None = None) -> psycopg.Connection[Any]:
        """A plain connection, in the schema of the tables."""
        url = self.url(role, tenant_id).replace("+psycopg", "")
        connection = psycopg.connect(url, autocommit=True)
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema or "public")))
        return connection

    @property
    def server_version(self) -> int:
        """As 150004."""
        with psycopg.connect(self.server.url(self.name, "postgresql")) as connection:
            return connection.info.server_version

    def run(self, script: str) -> None:
        """Run what `db roles` or `db rls` prints, as an administrator does."""
        with psycopg.connect(self.server.url(self.name, "postgresql"), autocommit=True) as connection:
            connection.execute(script.encode())

    def grant(self) -> None:
        """What `db roles` prints, and that the roles may log in."""
        self.run(roles_sql(self.schema, self.prefix))
        for role in ROLES:
            name = sql.Identifier(f"{self.prefix}_{role}")
            self.server.execute(sql.SQL("ALTER ROLE {} LOGIN").format(name))


@contextmanager
def roled_database(server: PostgresServer, schema: str | None = None) -> Iterator[RoledDatabase]:
    """An empty database, with roles and rights given before its tables are made, and again after."""
    number = next(_numbers)
    database = RoledDatabase(server, f"roled_{number}", schema, f"roled_{number}")
    server.create_database(database.name)
    try:
        database.grant()
        with database.opened("owner") as owner:
            owner.migrate()
        database.grant()
        yield database
    finally:
        server.drop_database(database.name)
        for role in ROLES:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(f"{database.prefix}_{role}")))


# What isn't the application's: it belongs to whoever fires, or to the owner.
NOT_THE_APPLICATIONS: Final = frozenset({"migrate", "run_due", "fire", "start", "shutdown", "close", "process"})


def calls_of(timeouts: TimeoutScheduler, tenant_id: str) -> dict[str, Callable[[], object]]:
    """Every call of the Python API by its name, to be made in this order: each has an effect, or finds something."""
    return {**_calls_of_timeouts(timeouts, tenant_id), **_calls_of_campaigns(timeouts, tenant_id)}


def _calls_of_timeouts(timeouts: TimeoutScheduler, tenant_id: str) -> dict[str, Callable[[], object]]:
    def job(campaign_id: str) -> Any:
        return make_job(tenant_id=tenant_id, campaign_id=campaign_id, scheduled_at=FAR_AHEAD)

    key = job("t-1").dedupe_key
    return {
        "require_current_schema": timeouts.require_current_schema,
        "schedule": lambda: timeouts.schedule(job("t-1")),
        "schedule_many": lambda: timeouts.schedule_many([job("t-2"), job("t-3")]),
        "find": lambda: timeouts.find(key),
        "pending": lambda: timeouts.pending(tenant_id),
        "list_actions": timeouts.list_actions,
        "reschedule": lambda: timeouts.reschedule(key, LATER),
        "cancel": lambda: timeouts.cancel(key, "a test"),
        "cancel_node": lambda: timeouts.cancel_node(tenant_id, "t-2", "intro"),
        "cancel_campaign": lambda: timeouts.cancel_campaign(tenant_id, "t-3"),
        "retry": lambda: timeouts.retry(key),
    }


def _calls_of_campaigns(timeouts: TimeoutScheduler, tenant_id: str) -> dict[str, Callable[[], object]]:
    manager = timeouts.campaigns
    contact = {"address": "ada@example.com", "timezone": "Europe/Berlin", "variables": {"name": "Ada"}}

    def enrolled(*campaign_ids: str, plan: Any = WAIT_PLAN) -> list[dict[str, Any]]:
        one = {"tenant_id": tenant_id, "plan": plan, "contact": contact}
        return [{**one, "campaign_id": name, "contact_id": f"k-{name}"} for name in campaign_ids]

    def plan_of(campaign_id: str) -> str:
        campaign = manager.find(tenant_id, campaign_id)
        assert campaign is not None
        return campaign.plan_hash

    def send_key(campaign_id: str) -> str:
        return f"{tenant_id}:{campaign_id}:mail:1:send:sent"

    return {
        "enroll": lambda: manager.enroll(tenant_id, "c-0", "k-0", WAIT_PLAN, contact=contact),
        "enroll_many": lambda: manager.enroll_many(
            [*enrolled("c-1", "c-2", "c-3", "c-4"), *enrolled("m-1", "m-2", "m-3", plan=MAIL_PLAN)]
        ),
        "find_campaign": lambda: manager.find(tenant_id, "c-0"),
        "process_event": lambda: manager.process_event(tenant_id, "opened", campaign_id="c-0", metadata={"ip": "::1"}),
        "process_events": lambda: manager.process_events(
            [
                {"tenant_id": tenant_id, "event_type": "clicked", "campaign_id": "c-1"},
                {"tenant_id": tenant_id, "event_type": "opened", "message_id": "m-unknown-yet"},
            ]
        ),
        "take_sends": lambda: manager.take_sends(2, tenant_id),
        "fail_send": lambda: manager.fail_send(send_key("m-1"), "no such mailbox", permanent=True),
        "confirm_send": lambda: manager.confirm_send(send_key("m-2"), LONG_AGO, "m-unknown-yet"),
        "history": lambda: manager.history(tenant_id, "c-0"),
        "explain": lambda: manager.explain(tenant_id, "c-0"),
        "stuck": lambda: manager.stuck(tenant_id),
        "pause": lambda: manager.pause(tenant_id, "c-2"),
        "preview_resume": lambda: manager.preview_resume(tenant_id, "c-2"),
        "resume": lambda: manager.resume(tenant_id, "c-2"),
        "pause_tenant": lambda: manager.pause_tenant(tenant_id),
        "pauses": lambda: manager.pauses(tenant_id),
        "resume_tenant": lambda: manager.resume_tenant(tenant_id),
        "pause_sends": lambda: manager.pause_sends(tenant_id),
        "preview_resume_sends": lambda: manager.preview_resume_sends(tenant_id),
        "resume_sends": lambda: manager.resume_sends(tenant_id),
        "pause_all": manager.pause_all,
        "resume_all": manager.resume_all,
        "migrate_plan": lambda: manager.migrate_plan(tenant_id, plan_of("m-3"), OTHER_PLAN),
        "stop": lambda: manager.stop(tenant_id, "c-3"),
        "process_contact_event": lambda: manager.process_contact_event(tenant_id, "k-c-4", "unsubscribed"),
        "suppress": lambda: manager.suppress(tenant_id, "k-c-2", "asked by phone"),
        "unsuppress": lambda: manager.unsuppress(tenant_id, "k-c-2"),
        "erase": lambda: manager.erase(tenant_id, "k-m-1"),
    }


def error_of(call: Callable[[], object]) -> Exception | None:
    """What the call raised."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - all are wanted, each by its call's name
        return error
    return None
