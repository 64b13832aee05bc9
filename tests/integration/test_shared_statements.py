"""Schedulers of the same layout share their statements, and nothing else."""

from __future__ import annotations

from contextlib import closing

import pytest

from scheduler import TimeoutScheduler
from scheduler.store.actions import Actions
from scheduler.store.claims import Claims
from scheduler.store.moves import Moves
from scheduler.store.shared import statements_of
from scheduler.store.tables import Layout

LAYOUTS = [Layout(schema, system) for schema in (None, "outreach") for system in ("postgresql", "sqlite")]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_two_databases_share_statements_and_no_installation(request: pytest.FixtureRequest, backend: str) -> None:
    one_url, other_url = (request.getfixturevalue(name) for name in (f"{backend}_url", f"empty_{backend}_url"))
    with closing(TimeoutScheduler(one_url)) as one, closing(TimeoutScheduler(other_url)) as other:
        other.migrate()
        assert one.stores.actions is other.stores.actions
        assert one.stores.claims is other.stores.claims
        assert one.stores.plans is not other.stores.plans
        assert one.database.installation_id != other.database.installation_id


@pytest.mark.parametrize("kind", [Actions, Claims, Moves])
def test_another_schema_or_another_system_has_statements_of_its_own(kind: type) -> None:
    assert len({id(statements_of(kind, layout)) for layout in LAYOUTS}) == len(LAYOUTS)
    assert statements_of(kind, Layout("outreach", "sqlite")) is statements_of(kind, LAYOUTS[3])
