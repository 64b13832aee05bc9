"""A campaign plan: the immutable graph of nodes that says how one contact is approached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self, cast
from zoneinfo import ZoneInfo

from scheduler.domain.errors import InvalidInputError, InvalidPlanError, PlanFault
from scheduler.domain.node import (
    DEFAULT_TIMERS,
    IMPLIED_STOP,
    STOP_NODE_ID,
    Edge,
    Node,
    NodeAction,
    Timer,
    TimerDefaults,
)
from scheduler.domain.plan_document import LARGEST_DOCUMENT, canonical_json, hash_of, read_document
from scheduler.domain.plan_findings import Findings
from scheduler.domain.plan_reading import (
    LONGEST_NAME,
    MACHINE_OPENS,
    PLAN_KEYS,
    NodeReader,
    read_exits,
    read_max_transitions,
    read_quiet_hours,
    read_timer_defaults,
    read_version,
)
from scheduler.domain.plan_validation import check_graph
from scheduler.domain.timing import QuietHours, parse_zone

__all__ = ["CampaignPlan", "Edge", "Node", "NodeAction", "Timer", "TimerDefaults"]

_UTC = ZoneInfo("UTC")


class FilePath(Protocol):
    """What `open` takes beside text, a `pathlib.Path` for instance."""

    def __fspath__(self) -> str:
        """The path as text."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CampaignPlan:
    """A plan without faults. Its `hash` is its identity: equal documents make equal plans.

    `nodes` are those the document has, in its order; `node()` knows the implied `stop`, too. `exits` end a
    campaign wherever it is; a list in the plan replaces the usual ones, and may be empty (an unsubscribed
    contact is suppressed all the same). `warnings` say what is probably not meant.
    """

    version: str
    name: str | None
    zone: ZoneInfo
    quiet_hours: QuietHours | None
    start_node_id: str
    nodes: Mapping[str, Node]
    max_transitions: int
    exits: tuple[str, ...]
    machine_opens: Literal["ignore", "count"]
    hash: str
    document: str
    warnings: tuple[PlanFault, ...]
    _by_id: dict[str, Node] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "_by_id", {STOP_NODE_ID: IMPLIED_STOP, **self.nodes})

    @classmethod
    def parse(cls, source: Mapping[str, Any] | str | bytes, timer_defaults: TimerDefaults = DEFAULT_TIMERS) -> Self:
        """The plan of a JSON document, parsed or as text. Raises `InvalidPlanError` with every fault."""
        document = read_document(source)
        findings = Findings()
        findings.members("$", document, PLAN_KEYS)
        exits = read_exits(findings, document)
        placed = NodeReader(findings, read_timer_defaults(findings, document), timer_defaults).read(document)
        check_graph(findings, placed, document.get("startNodeId"), exits)
        opens = findings.choice("$.machineOpens", document.get("machineOpens"), MACHINE_OPENS)
        fields = {
            "version": read_version(findings, document),
            "name": findings.text("$.name", document.get("name"), longest=LONGEST_NAME),
            "zone": findings.attempt(parse_zone, "$.timezone", document.get("timezone")) or _UTC,
            "quiet_hours": read_quiet_hours(findings, document),
            "max_transitions": read_max_transitions(findings, document),
        }
        if findings.faults:
            raise InvalidPlanError(findings.faults)
        canonical = canonical_json(document)
        return cls(
            **cast("dict[str, Any]", fields),
            start_node_id=document["startNodeId"],
            nodes={one.node.id: one.node for one in placed},
            exits=exits,
            machine_opens=cast("Literal['ignore', 'count']", opens or "ignore"),
            hash=hash_of(canonical),
            document=canonical,
            warnings=tuple(findings.warnings),
        )

    @classmethod
    def from_file(cls, path: str | FilePath, timer_defaults: TimerDefaults = DEFAULT_TIMERS) -> Self:
        """The plan of a JSON file. Raises `InvalidInputError` if it can't be read, else as `parse` does."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the domain imports no pathlib
                source = file.read(LARGEST_DOCUMENT + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidInputError("plan file", str(path), f"it can't be read: {reason}") from None
        return cls.parse(source, timer_defaults)

    def node(self, node_id: str) -> Node:
        """The node of that id, the implied `stop` among them. Raises `InvalidInputError` for any other."""
        try:
            return self._by_id[node_id]
        except KeyError:
            raise InvalidInputError("node_id", node_id, f"plan {self.hash[:12]} has no such node") from None

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, CampaignPlan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"CampaignPlan(name={self.name!r}, hash={self.hash!r}, nodes={list(self.nodes)!r})"
