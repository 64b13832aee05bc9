"""Hypothesis strategies for what the domain takes: plans, durations, zones, instants, quiet hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import strategies as st

from scheduler.domain.happening import Happening, Operation
from scheduler.domain.timing import Duration, QuietHours

REAL_EVENTS: Final = ("opened", "clicked", "delivered", "replied", "bounced")
SYNTHETIC_EVENTS: Final = ("no_open", "no_click", "no_reply")
DELAYS: Final = ("PT1S", "PT30M", "PT24H", "PT72H", "P7D", "P1M")
GUARDS: Final = ("PT0S", *DELAYS)
ZONE_NAMES: Final = tuple(sorted(available_timezones() - {"localtime", "posixrules", "Factory"}))

_EARLIEST: Final = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_WINDOWS: Final = ({"start": "21:00", "end": "07:30"}, {"start": "12:00", "end": "13:00"})
_FEW_ZONES: Final = ("UTC", "America/Los_Angeles", "Europe/Berlin", "Australia/Lord_Howe")


def zones() -> st.SearchStrategy[ZoneInfo]:
    """Every IANA zone this machine knows."""
    return st.sampled_from(ZONE_NAMES).map(ZoneInfo)


def instants() -> st.SearchStrategy[datetime]:
    """Aware UTC instants, to the microsecond, in years whose clock changes are on record or ruled."""
    seconds = st.integers(int(_EARLIEST.timestamp()), int(_LATEST.timestamp()))
    whole = seconds.map(lambda second: datetime.fromtimestamp(second, UTC))
    return st.builds(lambda instant, part: instant + part, whole, st.timedeltas(timedelta(0), timedelta(seconds=1)))


def durations() -> st.SearchStrategy[Duration]:
    """Durations of up to some 40 years, with and without months."""
    exact = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=5000))
    return st.builds(Duration, months=st.one_of(st.just(0), st.integers(0, 300)), exact=exact)


def wall_times() -> st.SearchStrategy[time]:
    """Local times of day to the second, often near the hours at which clocks change."""
    near_changes = st.builds(time, st.integers(0, 4), st.sampled_from((0, 15, 30, 45)), st.sampled_from((0, 1)))
    return st.one_of(near_changes, st.builds(time, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)))


def quiet_hours() -> st.SearchStrategy[QuietHours]:
    """Windows of any length, across midnight or not."""
    pairs = st.tuples(wall_times(), wall_times()).filter(lambda pair: pair[0] != pair[1])
    return pairs.map(lambda pair: QuietHours(*pair))


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Documents of valid plans: 1 to 6 sends and waits, loops, guards, several timers, a `stop` or none."""
    count = draw(st.integers(1, 6))
    ids = [f"node_{index}" for index in range(count)]
    nodes = [_draw_node(draw, node_id, ids) for node_id in ids]
    for index in range(1, count):
        parent = nodes[draw(st.integers(0, index - 1))]
        parent["transitions"].append(_draw_edge(draw, ids[index]))
    if draw(st.booleans()):
        nodes.append({"id": "stop", "action": "stop"})
    document: dict[str, Any] = {"version": "1.0", "startNodeId": ids[0], "nodes": nodes}
    document["defaults"] = {"timers": {"no_reply_after": "P5D"}}
    document["timezone"] = draw(st.sampled_from(_FEW_ZONES))
    if draw(st.booleans()):
        document["quietHours"] = dict(draw(st.sampled_from(_WINDOWS)))
    return document


def _draw_node(draw: st.DrawFn, node_id: str, ids: list[str]) -> dict[str, Any]:
    node: dict[str, Any] = {"id": node_id, "action": draw(st.sampled_from(("send", "wait")))}
    if node["action"] == "send":
        node |= {"channel": "email", "subject": "Hello", "body": "Hello {{first_name}}"}
        node["schedule"] = {"delay": draw(st.sampled_from(("PT0S", "PT2H", "P1D")))}
    targets = st.sampled_from([*ids, "stop"])
    node["transitions"] = [_draw_edge(draw, draw(targets)) for _ in range(draw(st.integers(0, 4)))]
    return node


def _draw_edge(draw: st.DrawFn, target: str) -> dict[str, Any]:
    if draw(st.booleans()):
        # Only the way to stop may take no time, so no cycle can.
        delays = GUARDS if target == "stop" else DELAYS
        return {"on": draw(st.sampled_from(SYNTHETIC_EVENTS)), "to": target} | _draw_bounds(draw, delays)
    return {"on": draw(st.sampled_from(REAL_EVENTS)), "to": target} | _draw_bounds(draw, GUARDS)


def _draw_bounds(draw: st.DrawFn, lengths: tuple[str, ...]) -> dict[str, str]:
    keys = draw(st.sampled_from(((), ("after",), ("within",))))
    return {key: draw(st.sampled_from(lengths)) for key in keys}


PASSED: Final = tuple(timedelta(seconds=seconds) for seconds in (0, 1, 1800, 3600, 7200, 86_400, 259_200, 604_800))
_COMMON: Final = ("opened", "clicked", "replied") * 3
ARRIVING: Final = (*_COMMON, *REAL_EVENTS, "meeting_booked", "soft_bounced", "unsubscribed", "spamreport")
OPERATIONS: Final = (*[Operation.PAUSE] * 2, *[Operation.RESUME] * 4, Operation.FAIL_SEND, Operation.STOP)


@st.composite
def happenings(draw: st.DrawFn, start_at: datetime) -> list[Happening]:
    """Up to 8 things that happen one after the other: mostly events, of any mail, late, early, twice."""
    found: list[Happening] = []
    at = start_at
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.sampled_from(PASSED))
        found.append(_draw_event(draw, at) if draw(st.integers(0, 3)) else _draw_operation(draw, at))
    return found


def _draw_event(draw: st.DrawFn, at: datetime) -> Happening:
    shift = draw(st.sampled_from((None, *PASSED, *(-length for length in PASSED))))
    return Happening(
        at=at,
        event_type=draw(st.sampled_from(ARRIVING)),
        occurred_at=None if shift is None else at + shift,
        visit=draw(st.sampled_from((None, None, None, 1, 2, 3))),
        node_id=draw(st.sampled_from((None, None, "node_0", "node_1"))),
        event_id=draw(st.sampled_from((None, None, "e-1", "e-2"))),
        metadata=draw(st.sampled_from((None, None, {"machine": True}))),
    )


def _draw_operation(draw: st.DrawFn, at: datetime) -> Happening:
    operation = draw(st.sampled_from(OPERATIONS))
    node_id = draw(st.sampled_from((None, "node_0", "node_1"))) if operation is Operation.FAIL_SEND else None
    policy = draw(st.sampled_from((None, "shift", "keep"))) if operation is Operation.RESUME else None
    return Happening(at=at, do=operation, node_id=node_id, policy=policy)
