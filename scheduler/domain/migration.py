"""Running campaigns go on, on another plan: which node becomes which, and what that would set off at once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus, ActionType
from scheduler.domain.campaign import CampaignStatus
from scheduler.domain.decision import Decision, PlannedAction, TimeoutExpired
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.node import STOP_NODE_ID
from scheduler.domain.plan import CampaignPlan

NODE_MAP: Final = "node_map"


@dataclass(frozen=True, slots=True)
class NodeMigration:
    """Those who stand at one node of the old plan, and where in the new one they go on.

    `to_node_id` is None where nobody can go on: busy ones, who came there while the others were moved. `campaigns` is
    how many stand there; for `timeouts_at_once` of them a timeout fires as soon as they are moved, and to
    `mails_at_once` a mail goes out then.
    """

    from_node_id: str
    to_node_id: str | None
    campaigns: int
    timeouts_at_once: int
    mails_at_once: int


@dataclass(frozen=True, slots=True)
class PlanMigration:
    """What a migration did, or with `is_dry_run` would do.

    `moved` is how many campaigns go on, on the new plan; `busy` how many were left, since their mail was just going
    out or somebody held them: the same call does those, later.
    """

    tenant_id: str
    old_plan_hash: str
    new_plan_hash: str
    nodes: tuple[NodeMigration, ...]
    moved: int
    busy: int
    is_dry_run: bool


class NodeTargets:
    """Where the contacts of each node of the old plan go on in the new one."""

    def __init__(self, old: CampaignPlan, new: CampaignPlan, node_map: Mapping[str, str] | None = None) -> None:
        """Raises InvalidInputError for a map that names what there isn't, or a node of another kind."""
        if node_map is not None and not isinstance(node_map, Mapping):
            raise InvalidInputError(
                NODE_MAP, node_map, "give a mapping, from nodes of the old plan to those of the new"
            )
        self._old = old
        self._new = new
        self._map = dict(node_map or {})
        for from_node_id, to_node_id in self._map.items():
            self._check(from_node_id, to_node_id)

    def find(self, node_id: str) -> str | None:
        """The node to go on at: the one the map says, else the same id with the same action, else None."""
        if node_id in self._map:
            return self._map[node_id]
        old, new = self._old.nodes.get(node_id), self._new.nodes.get(node_id)
        return node_id if old is not None and new is not None and old.action == new.action else None

    def get(self, node_id: str) -> str:
        """The same; raises InvalidInputError, naming the node, where there is none."""
        target = self.find(node_id)
        if target is not None:
            return target
        same = self._new.nodes.get(node_id)
        why = "the new plan has no such node" if same is None else f"in the new plan it is a {same.action}"
        raise InvalidInputError(NODE_MAP, node_id, f"contacts stand there and {why}: map it to {self._wanted(node_id)}")

    def _check(self, from_node_id: object, to_node_id: object) -> None:
        if not isinstance(from_node_id, str) or from_node_id not in self._old.nodes:
            raise InvalidInputError(NODE_MAP, from_node_id, f"the old plan has no such node, but {_listed(self._old)}")
        if not isinstance(to_node_id, str) or (to_node_id not in self._new.nodes and to_node_id != STOP_NODE_ID):
            raise InvalidInputError(NODE_MAP, to_node_id, f"the new plan has no such node, but {_listed(self._new)}")
        old, new = self._old.node(from_node_id), self._new.node(to_node_id)
        if new.action not in (old.action, "stop"):
            remedy = f"{from_node_id} is a {old.action} and {to_node_id} a {new.action}: map it to "
            raise InvalidInputError(NODE_MAP, f"{from_node_id}={to_node_id}", remedy + self._wanted(from_node_id))

    def _wanted(self, node_id: str) -> str:
        action = self._old.nodes[node_id].action if node_id in self._old.nodes else None
        like = [node.id for node in self._new.nodes.values() if node.action == action and action != "stop"]
        return " or ".join([*([f"a {action} ({', '.join(like)})"] if like else []), STOP_NODE_ID])


def at_once(plan: CampaignPlan, decision: Decision, now: datetime, grace: timedelta) -> tuple[int, int]:
    """What a decision sets off as soon as it is written: (timeouts that lead on, mails), each 0 or 1.

    A visit is left by the first timeout that leads on; the mail may be that of the node it leads to.
    """
    campaign = decision.campaign
    if campaign.status != CampaignStatus.ACTIVE or campaign.is_held:
        return 0, 0
    send = next((action for action in decision.actions if action.action_type == ActionType.SEND), None)
    pending = [action for action in decision.actions if action.status == ActionStatus.PENDING]
    timeouts = sorted(
        (one for one in pending if one.action_type == ActionType.TIMEOUT and one.deadline + grace <= now),
        key=lambda timeout: (timeout.deadline, timeout.event_type),
    )
    for timeout in timeouts:
        fired = machine.transition(plan, campaign, _expired(timeout, send), now)
        if fired.transitions or fired.ends:
            return 1, int(any(_is_mail_due(action, now) for action in fired.actions))
    return 0, int(any(_is_mail_due(action, now) for action in pending))


def _expired(timeout: PlannedAction, send: PlannedAction | None) -> TimeoutExpired:
    return TimeoutExpired(
        event_type=timeout.event_type,
        node_id=timeout.node_id,
        node_visit=timeout.node_visit,
        deadline=timeout.deadline,
        send_run_at=None if send is None else send.run_at or send.deadline,
    )


def _is_mail_due(action: PlannedAction, now: datetime) -> bool:
    return action.action_type == ActionType.SEND and (action.run_at or action.deadline) <= now


def _listed(plan: CampaignPlan) -> str:
    return ", ".join(node.id for node in plan.nodes.values())
