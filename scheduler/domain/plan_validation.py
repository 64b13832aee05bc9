"""What a plan's graph must be (faults) and had better be (warnings): targets, reach, loops, and ways on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scheduler.domain.errors import PlanFault
from scheduler.domain.event import counter_event
from scheduler.domain.node import STOP_NODE_ID, Node
from scheduler.domain.plan_findings import Findings, did_you_mean
from scheduler.domain.plan_reading import PlacedNode

LONGEST_CYCLE_SHOWN: Final = 10


def check_graph(findings: Findings, nodes: Sequence[PlacedNode], start: object, exits: Sequence[str]) -> None:
    """Adds what is wrong with the graph of these nodes; `start` is the document's startNodeId."""
    by_id: dict[str, PlacedNode] = {}
    for placed in nodes:
        first = by_id.setdefault(placed.node.id, placed)
        if first is not placed:
            remedy = f"{first.path} has this id already; give each node its own"
            findings.fault(f"{placed.path}.id", placed.node.id, remedy)
    findings.faults.extend(_unknown_targets(nodes, by_id))
    if _check_start(findings, by_id, start):
        _check_reach(findings, by_id, str(start))
    findings.faults.extend(_timeless_cycles(by_id))
    for placed in by_id.values():
        findings.warnings.extend(_ways_on(placed, exits))


def _check_start(findings: Findings, by_id: dict[str, PlacedNode], start: object) -> bool:
    if start is None:
        findings.fault("$.startNodeId", None, "it is missing; write the id of the first node")
    elif not isinstance(start, str):
        findings.fault("$.startNodeId", start, "it must be text, the id of a node")
    elif start not in by_id:
        findings.fault("$.startNodeId", start, f"no node has this id{did_you_mean(start, by_id)}")
    else:
        return True
    return False


def _unknown_targets(nodes: Sequence[PlacedNode], by_id: dict[str, PlacedNode]) -> Iterator[PlanFault]:
    for placed in nodes:
        for written in placed.written:
            target = written.edge.to
            if target not in by_id and target != STOP_NODE_ID:
                hint = did_you_mean(target, [*by_id, STOP_NODE_ID])
                yield PlanFault(f"{written.path}.to", target, f"no node has this id{hint}")


def _check_reach(findings: Findings, by_id: dict[str, PlacedNode], start: str) -> None:
    reached = {start}
    frontier = [start]
    while frontier:
        targets = {edge.to for edge in by_id[frontier.pop()].node.edges if edge.to in by_id} - reached
        reached |= targets
        frontier.extend(targets)
    for node_id, placed in by_id.items():
        if node_id not in reached:
            report = findings.warn if node_id == STOP_NODE_ID else findings.fault
            report(
                f"{placed.path}.id",
                node_id,
                "no way leads here from startNodeId; add a transition or remove it",
            )


def _instant_steps(node: Node, by_id: dict[str, PlacedNode]) -> list[str]:
    """The nodes that follow in the very instant this one is entered."""
    if not node.delay.is_zero:
        return []
    return [timer.to for timer in node.timers if timer.delay.is_zero and timer.to in by_id]


def _timeless_cycles(by_id: dict[str, PlacedNode]) -> Iterator[PlanFault]:
    """One fault for each step that closes a cycle; depth first, without recursion: plans may be long."""
    finished: set[str] = set()
    for root, first in by_id.items():
        trail: dict[str, Iterator[str]] = {}
        if root not in finished:
            trail[root] = iter(_instant_steps(first.node, by_id))
        while trail:
            node_id = next(reversed(trail))
            following = next(trail[node_id], None)
            if following is None:
                finished.add(node_id)
                del trail[node_id]
            elif following in trail:
                yield _timeless_cycle(by_id[node_id], following, list(trail))
            elif following not in finished:
                trail[following] = iter(_instant_steps(by_id[following].node, by_id))


def _timeless_cycle(closing: PlacedNode, target: str, trail: list[str]) -> PlanFault:
    edge_path = next(
        written.path
        for written in closing.written
        if any(
            written.edge.on == timer.event_type and timer.to == target == written.edge.to
            for timer in closing.node.timers
        )
    )
    cycle = [*trail[trail.index(target) :], target]
    if len(cycle) > LONGEST_CYCLE_SHOWN:
        cycle[LONGEST_CYCLE_SHOWN - 1 : -1] = ["..."]
    return PlanFault(edge_path, " -> ".join(cycle), "this cycle takes no time; give one of its timers or sends a delay")


def _ways_on(placed: PlacedNode, exits: Sequence[str]) -> Iterator[PlanFault]:
    """A warning where what a contact does, or doesn't do, leaves it at this node for good.

    A timer is sure to lead on if its counter-event does too, by a transition or as an exit.
    One sure timer is enough. Without any, the contact who does everything the timers wait for stays.
    """
    node = placed.node
    if node.action == "stop":
        return
    if not node.edges:
        yield PlanFault(f"{placed.path}.transitions", node.id, "it has no transitions: a contact stays here for ever")
        return
    if not node.timers:
        remedy = "it has no timer: a contact who does nothing stays here for ever; add one such as no_open"
        yield PlanFault(f"{placed.path}.transitions", node.id, remedy)
        return
    handled = {edge.on for edge in node.edges} | set(exits)
    counters = [counter_event(timer.event_type) for timer in node.timers]
    if not handled.intersection(counters):
        done = " and ".join(counters)
        remedy = f"a contact who has {done} stays here for ever; add a transition on {' or '.join(counters)}"
        yield PlanFault(f"{placed.path}.transitions", node.id, remedy)
