"""Reads a plan's document into values, naming every fault on the way; the graph is checked elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from scheduler.domain.event import EXIT_EVENTS, is_synthetic, normalise_event_type
from scheduler.domain.node import NODE_ACTIONS, STOP_NODE_ID, Edge, Node, NodeAction, Timer, TimerDefaults
from scheduler.domain.plan_document import child_path
from scheduler.domain.plan_findings import Findings
from scheduler.domain.timing import Duration, QuietHours, parse_duration, parse_wall_time

DEFAULT_CHANNEL: Final = "email"
DEFAULT_MAX_TRANSITIONS: Final = 1000
MACHINE_OPENS: Final = ("ignore", "count")
VERSION: Final = "1.0"
LONGEST_NAME: Final = 200
LONGEST_CHANNEL: Final = 64
TIMER_SUFFIX: Final = "_after"

PLAN_KEYS: Final = (
    "version",
    "timezone",
    "quietHours",
    "defaults",
    "startNodeId",
    "nodes",
    "maxTransitions",
    "exits",
    "machineOpens",
)
NODE_KEYS: Final = ("id", "channel", "action", "subject", "body", "schedule", "transitions")
EDGE_KEYS: Final = ("on", "to", "after", "within")


@dataclass(frozen=True, slots=True)
class PlacedEdge:
    """A transition, and where it stands; `has_bounds`: there is an `after` or a `within`, good or bad."""

    path: str
    edge: Edge
    has_bounds: bool


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node, and where it stands; `written` are its transitions before a stop node's were dropped."""

    path: str
    node: Node
    written: tuple[PlacedEdge, ...]


def read_version(findings: Findings, document: Mapping[str, Any]) -> str:
    """The plan's format; only 1.0 exists."""
    version = document.get("version")
    if version is None:
        findings.fault("$.version", None, 'it is missing; write "version": "1.0"')
    elif version != VERSION or not isinstance(version, str):
        findings.fault("$.version", version, 'this software reads version "1.0" (as text)')
    return VERSION


def read_quiet_hours(findings: Findings, document: Mapping[str, Any]) -> QuietHours | None:
    """The plan's quiet hours, if it has any."""
    value = document.get("quietHours")
    if value is None or (members := findings.members("$.quietHours", value, ("start", "end"))) is None:
        return None
    for key in ("start", "end"):
        if members.get(key) is None:
            findings.fault(f"$.quietHours.{key}", None, "it is missing; write a local time of day such as 21:00")
    start = findings.attempt(parse_wall_time, "$.quietHours.start", members.get("start"))
    end = findings.attempt(_parse_end, "$.quietHours.end", members.get("end"))
    if start is None or end is None:
        return None
    if start == end:
        findings.fault("$.quietHours", value, "start and end must differ; leave quietHours out to have none")
    return QuietHours(start, end)


def _parse_end(field: str, value: object) -> Any:
    return parse_wall_time(field, value, is_end=True)


def read_timer_defaults(findings: Findings, document: Mapping[str, Any]) -> dict[str, Duration]:
    """The plan's `defaults.timers`, by synthetic event type."""
    if (value := document.get("defaults")) is None:
        return {}
    defaults = findings.members("$.defaults", value, ("timers",)) or {}
    timers = defaults.get("timers")
    if timers is None:
        return {}
    if not isinstance(timers, Mapping):
        findings.fault("$.defaults.timers", timers, 'write it as {"no_open_after": "PT72H"}')
        return {}
    return _read_timers(findings, timers)


def _read_timers(findings: Findings, timers: Mapping[str, Any]) -> dict[str, Duration]:
    read: dict[str, Duration] = {}
    for key, value in timers.items():
        path = child_path("$.defaults.timers", key)
        event_type = key.removesuffix(TIMER_SUFFIX)
        if not key.endswith(TIMER_SUFFIX) or not is_synthetic(event_type):
            findings.warn(path, key, "this key means nothing here; write no_open_after, or no_<event>_after")
            continue
        name = findings.attempt(normalise_event_type, path, event_type)
        delay = findings.attempt(parse_duration, path, value)
        if name is not None and delay is not None:
            read[name] = delay
    return read


def read_exits(findings: Findings, document: Mapping[str, Any]) -> tuple[str, ...]:
    """The events that end a campaign wherever it is. A list in the plan replaces the usual ones."""
    if document.get("exits") is None:
        return EXIT_EVENTS
    exits: list[str] = []
    for index, value in enumerate(findings.items("$.exits", document["exits"])):
        path = f"$.exits[{index}]"
        if value is None:
            findings.fault(path, value, "write an event type such as unsubscribed")
        event_type = findings.attempt(normalise_event_type, path, value)
        if event_type is not None and is_synthetic(event_type):
            findings.fault(path, value, "only a real event can be an exit; give the nodes a transition instead")
        elif event_type is not None:
            exits.append(event_type)
    return tuple(dict.fromkeys(exits))


def read_max_transitions(findings: Findings, document: Mapping[str, Any]) -> int:
    """How many transitions a campaign may make before it is stopped as going round for ever."""
    value = document.get("maxTransitions")
    if value is None:
        return DEFAULT_MAX_TRANSITIONS
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        findings.fault("$.maxTransitions", value, "it must be a whole number from 1")
        return DEFAULT_MAX_TRANSITIONS
    return int(value)


class NodeReader:
    """Reads nodes; a timer without a delay of its own takes the plan's default, then the settings'."""

    def __init__(self, findings: Findings, plan_defaults: Mapping[str, Duration], defaults: TimerDefaults) -> None:
        self._findings = findings
        self._plan_defaults = plan_defaults
        self._defaults = defaults

    def read(self, document: Mapping[str, Any]) -> list[PlacedNode]:
        """Every node that has an id, as far as it can be read."""
        nodes = document.get("nodes")
        if nodes is None or nodes == []:
            self._findings.fault("$.nodes", nodes, "a plan needs at least one node")
        placed = [
            self._read_node(f"$.nodes[{index}]", value)
            for index, value in enumerate(self._findings.items("$.nodes", nodes))
        ]
        return [node for node in placed if node is not None]

    def _read_node(self, path: str, value: object) -> PlacedNode | None:
        members = self._findings.members(path, value, NODE_KEYS)
        if members is None:
            return None
        node_id = self._findings.identifier(f"{path}.id", members.get("id"))
        action = self._read_action(path, members, node_id)
        channel = self._findings.text(f"{path}.channel", members.get("channel"), longest=LONGEST_CHANNEL)
        node = Node(
            id=node_id or "",
            action=action,
            channel=channel or DEFAULT_CHANNEL,
            subject=self._findings.text(f"{path}.subject", members.get("subject")),
            body=self._findings.text(f"{path}.body", members.get("body")),
            delay=self._read_delay(path, members, action),
        )
        written = self._read_edges(path, members)
        if action != "stop":
            edges = tuple(placed.edge for placed in written)
            node = replace(node, edges=edges, timers=self._make_timers(written))
        elif written:
            self._findings.warn(f"{path}.transitions", f"{len(written)} transitions", "a stop node is never left")
        return PlacedNode(path, node, written) if node_id else None

    def _read_action(self, path: str, members: Mapping[str, Any], node_id: str | None) -> NodeAction:
        value = members.get("action")
        if value is None:
            self._findings.fault(f"{path}.action", None, f"it is missing; write one of {', '.join(NODE_ACTIONS)}")
            return "wait"
        action = self._findings.choice(f"{path}.action", value, NODE_ACTIONS)
        if action is None:
            return "wait"
        if node_id == STOP_NODE_ID and action != "stop":
            self._findings.fault(f"{path}.action", action, 'the node with the id "stop" must have the action stop')
        return cast("NodeAction", action)

    def _read_delay(self, path: str, members: Mapping[str, Any], action: NodeAction) -> Duration:
        if (value := members.get("schedule")) is None:
            return Duration()
        schedule = self._findings.members(f"{path}.schedule", value, ("delay",)) or {}
        delay = self._findings.attempt(parse_duration, f"{path}.schedule.delay", schedule.get("delay"))
        if delay is None or action == "send":
            return delay or Duration()
        if not delay.is_zero:
            self._findings.warn(f"{path}.schedule.delay", value, "only a send node has a delay; it is ignored")
        return Duration()

    def _read_edges(self, path: str, members: Mapping[str, Any]) -> tuple[PlacedEdge, ...]:
        items = self._findings.items(f"{path}.transitions", members.get("transitions"))
        placed = [self._read_edge(f"{path}.transitions[{index}]", item) for index, item in enumerate(items)]
        return tuple(edge for edge in placed if edge is not None)

    def _read_edge(self, path: str, value: object) -> PlacedEdge | None:
        members = self._findings.members(path, value, EDGE_KEYS)
        if members is None:
            return None
        if members.get("on") is None:
            self._findings.fault(f"{path}.on", None, "it is missing; write an event type such as opened or no_open")
        event_type = self._findings.attempt(normalise_event_type, f"{path}.on", members.get("on"))
        target = self._findings.identifier(f"{path}.to", members.get("to"))
        after = self._findings.attempt(parse_duration, f"{path}.after", members.get("after"))
        within = self._findings.attempt(parse_duration, f"{path}.within", members.get("within"))
        if event_type is None or target is None:
            return None
        edge = Edge(on=event_type, to=target, after=after, within=within)
        self._check_bounds(path, members, edge)
        has_bounds = members.get("after") is not None or members.get("within") is not None
        return PlacedEdge(path, edge, has_bounds)

    def _check_bounds(self, path: str, members: Mapping[str, Any], edge: Edge) -> None:
        if edge.after is None or edge.within is None:
            return
        if is_synthetic(edge.on):
            self._findings.warn(f"{path}.within", members["within"], "it is ignored: the timer is due at after")
        elif edge.within.nominal < edge.after.nominal:
            self._findings.warn(f"{path}.within", members["within"], "no event can be in time: it ends before after")

    def _make_timers(self, written: tuple[PlacedEdge, ...]) -> tuple[Timer, ...]:
        """One timer per synthetic event: the earliest, and among equals the first."""
        chosen: dict[str, tuple[Timer, str]] = {}
        for placed in written:
            if not is_synthetic(placed.edge.on):
                continue
            timer = Timer(placed.edge.on, self._find_delay(placed), placed.edge.to)
            rival = chosen.setdefault(timer.event_type, (timer, placed.path))
            if rival[0] is timer:
                continue
            if timer.delay.nominal < rival[0].delay.nominal:
                chosen[timer.event_type] = (timer, placed.path)
            unused = rival[1] if chosen[timer.event_type][0] is timer else placed.path
            self._findings.warn(unused, timer.event_type, "never used: the node has an earlier one on this event")
        return tuple(timer for timer, _ in chosen.values())

    def _find_delay(self, placed: PlacedEdge) -> Duration:
        edge = placed.edge
        for delay in (
            edge.after,
            edge.within,
            self._plan_defaults.get(edge.on),
            self._defaults.find(edge.on),
        ):
            if delay is not None:
                return delay
        if not placed.has_bounds:
            key = f"{edge.on}{TIMER_SUFFIX}"
            remedy = f"{edge.on} has no delay; write after, or defaults.timers.{key}"
            self._findings.fault(f"{placed.path}.after", None, remedy)
        return Duration()
