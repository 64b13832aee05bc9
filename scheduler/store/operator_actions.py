"""`operator_actions`: who did what by hand, when and why; append-only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from scheduler.store.database import Transaction
from scheduler.store.tables import Layout


class OperatorActions:
    """Statements on what was done by hand. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.operator_actions

    def record(
        self,
        transaction: Transaction,
        act: str,
        tenant_id: str | None,
        campaign_id: str | None,
        actor: str | None,
        details: Mapping[str, Any],
    ) -> None:
        """Note one act, such as `campaign.paused`; `details` are kept as JSON, without the data of a contact."""
        values = {
            "operator_action_id": uuid4().hex,
            "tenant_id": tenant_id,
            "campaign_id": campaign_id,
            "act": act,
            "actor": actor,
            "details": json.dumps(dict(details), ensure_ascii=False),
            "created_at": transaction.now,
        }
        transaction.connection.execute(self._table.insert(), values)
