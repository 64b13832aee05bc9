"""One node of a plan: its transitions, and the timers they make. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from scheduler.domain.timing import Duration

STOP_NODE_ID: Final = "stop"

DEFAULT_NO_OPEN: Final = Duration(exact=timedelta(hours=72))
DEFAULT_NO_CLICK: Final = Duration(exact=timedelta(hours=24))

NodeAction = Literal["send", "wait", "stop"]
NODE_ACTIONS: Final[tuple[NodeAction, ...]] = ("send", "wait", "stop")


@dataclass(frozen=True, slots=True)
class TimerDefaults:
    """What a `no_open` or `no_click` waits where neither its transition nor its plan says."""

    no_open: Duration = DEFAULT_NO_OPEN
    no_click: Duration = DEFAULT_NO_CLICK

    def find(self, event_type: str) -> Duration | None:
        """The default of that synthetic event; None for any other than these two."""
        return {"no_open": self.no_open, "no_click": self.no_click}.get(event_type)


DEFAULT_TIMERS: Final = TimerDefaults()


@dataclass(frozen=True, slots=True)
class Edge:
    """A transition as the plan has it. On a real event `after` and `within` guard it; nothing is timed."""

    on: str
    to: str
    after: Duration | None = None
    within: Duration | None = None

    def holds(self, occurred_at: datetime, anchor: datetime, zone: ZoneInfo) -> bool:
        """Whether a real event of that instant passes: `after` to `within` past the anchor, both included.

        A zero `after` is no lower bound: it lets through what occurred before the anchor, too.
        """
        if self.after is not None and not self.after.is_zero and occurred_at < self.after.add_to(anchor, zone):
            return False
        return self.within is None or occurred_at <= self.within.add_to(anchor, zone)


@dataclass(frozen=True, slots=True)
class Timer:
    """What one synthetic event of a node leads to, and how long after the anchor it is due."""

    event_type: str
    delay: Duration
    to: str


@dataclass(frozen=True, slots=True)
class Node:
    """A step of a plan. `delay` is a send's, from entering the node; `timers` has one per synthetic event."""

    id: str
    action: NodeAction
    channel: str = "email"
    subject: str | None = None
    body: str | None = None
    delay: Duration = field(default_factory=Duration)
    edges: tuple[Edge, ...] = ()
    timers: tuple[Timer, ...] = ()

    def timer(self, event_type: str) -> Timer | None:
        """The timer of a synthetic event, if this node has one."""
        for timer in self.timers:
            if timer.event_type == event_type:
                return timer
        return None

    def edges_on(self, event_type: str) -> tuple[Edge, ...]:
        """The transitions on an event, in the plan's order."""
        return tuple(edge for edge in self.edges if edge.on == event_type)


IMPLIED_STOP: Final = Node(id=STOP_NODE_ID, action="stop")
