"""What only the simulator does: the timeline, its ends and its bounds. The rules themselves are in the scenarios."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler import CampaignPlan, InvalidInputError
from scheduler.domain.happening import Happening
from scheduler.domain.simulate import LONGEST, MOST_STEPS, simulate
from scheduler.domain.simulation import End, Simulation, What
from tests.support.walk import NOON, make_document, on, send, wait

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

INTRO = send("intro", on("opened", "wait_click"), on("no_open", "stop", after="PT72H"))
WAIT_CLICK = wait("wait_click", on("clicked", "stop"), on("no_click", "stop", after="PT24H"))
LOOP = wait("loop", on("no_reply", "loop", after="PT1H"), on("replied", "stop"))


def run(*nodes: dict[str, Any], steps: tuple[dict[str, Any], ...] = (), **options: Any) -> Simulation:
    """The plan of these nodes from noon on."""
    members = {name: options.pop(name) for name in {"maxTransitions", "quietHours"} & options.keys()}
    return simulate(CampaignPlan.parse(make_document(*nodes, **members)), steps, NOON, **options)


def lines(simulation: Simulation) -> list[tuple[timedelta, str, str, str | None]]:
    """The timeline: after how long, what, where, of which event."""
    return [(entry.at - NOON, entry.what, entry.node_id, entry.event_type) for entry in simulation.timeline]


def test_the_timeline_tells_everything_in_its_order() -> None:
    simulation = run(INTRO, WAIT_CLICK, steps=({"at": "PT1H", "event_type": "open"},))

    later = HOUR + DAY
    assert lines(simulation) == [
        (timedelta(0), What.ENTERED, "intro", None),
        (timedelta(0), What.PLANNED, "intro", "sent"),
        (timedelta(0), What.PLANNED, "intro", "no_open"),
        (timedelta(0), What.SENT, "intro", "sent"),
        (HOUR, What.EVENT, "intro", "opened"),
        (HOUR, What.CANCELED, "intro", "no_open"),
        (HOUR, What.ENTERED, "wait_click", None),
        (HOUR, What.PLANNED, "wait_click", "no_click"),
        (later, What.FIRED, "wait_click", "no_click"),
        (later, What.ENDED, "stop", None),
    ]
    assert (simulation.end, simulation.ended_at, simulation.pending) == (End.FINISHED, NOON + later, ())
    assert simulation.verdict == "the campaign is over: completed, at stop"


def test_the_timeline_says_why_a_thing_is_due_when_it_is() -> None:
    quiet = {"start": "10:00", "end": "14:00"}

    simulation = run(send("a", on("no_open", "stop", after="PT72H")), quietHours=quiet, grace=timedelta(minutes=10))

    planned = [(entry.due_at, entry.why) for entry in simulation.timeline if entry.what is What.PLANNED]
    assert planned == [
        (NOON + 2 * HOUR, "moved to the end of the quiet hours"),
        (NOON + 74 * HOUR + timedelta(minutes=10), "72 h after the mail, and 10 min of grace"),
    ]


def test_the_timeline_says_what_came_of_an_event_and_why() -> None:
    steps = (
        {"at": "PT1H", "event_type": "replied", "event_id": "e-1"},
        {"at": "PT2H", "event_type": "replied", "event_id": "e-1"},
        {"at": "PT3H", "event_type": "opened", "metadata": {"machine": True}},
        {"at": "PT4H", "do": "stop"},
        {"at": "PT5H", "event_type": "opened", "occurred_at": "PT1H"},
    )

    simulation = run(INTRO, WAIT_CLICK, steps=steps)

    events = [(entry.outcome, entry.why) for entry in simulation.timeline if entry.what is What.EVENT]
    assert events == [
        ("recorded", "no transition wants it"),
        ("duplicate", "it is known already"),
        ("recorded", "no transition wants it; a machine did it"),
        ("ignored", "the campaign is over; occurred at 2026-03-02T13:00:00+00:00"),
    ]


def test_a_campaign_that_waits_for_an_event_alone_is_where_nothing_more_comes() -> None:
    simulation = run(wait("a", on("replied", "stop")))

    assert (simulation.end, simulation.ended_at) == (End.WAITING, NOON)
    assert simulation.verdict == "nothing more comes by itself: the campaign waits at a for replied"


def test_where_no_transition_is_left_only_an_exit_leads_on() -> None:
    simulation = run(send("a"))

    assert simulation.verdict.endswith("waits at a for unsubscribed, spamreport or bounced")


def test_what_is_planned_during_a_pause_is_held() -> None:
    steps = ({"at": "PT1H", "do": "pause"}, {"at": "PT2H", "event_type": "opened"})

    simulation = run(INTRO, WAIT_CLICK, steps=steps)

    assert simulation.timeline[-1].why == "24 h after entering, held by the pause"


def test_a_campaign_that_nobody_resumes_is_where_it_was_paused() -> None:
    simulation = run(INTRO, WAIT_CLICK, steps=({"at": "P1D", "do": "pause"},))

    assert (simulation.end, simulation.ended_at) == (End.WAITING, NOON + DAY)
    assert [(one.event_type, one.is_paused) for one in simulation.pending] == [("no_open", True)]
    assert simulation.verdict == "the campaign is paused at intro, and nobody resumes it"


def test_a_simulation_ends_at_the_instant_it_is_given() -> None:
    simulation = run(LOOP, until=NOON + 2 * HOUR)

    assert (simulation.end, simulation.ended_at, simulation.campaign.node_visit) == (End.UNTIL, NOON + 2 * HOUR, 3)
    assert [one.run_at for one in simulation.pending] == [NOON + 3 * HOUR]
    assert simulation.verdict == "the time to simulate is over: the campaign is active, at loop"


def test_what_happens_after_the_end_doesnt_happen() -> None:
    simulation = run(LOOP, steps=({"at": "P1D", "event_type": "replied"},), until=NOON + HOUR)

    assert (simulation.end, [entry for entry in simulation.timeline if entry.what is What.EVENT]) == (End.UNTIL, [])


def test_a_loop_ends_when_its_transitions_are_used_up() -> None:
    simulation = run(LOOP, maxTransitions=10)

    assert (simulation.end, simulation.campaign.status, len(simulation.history)) == (End.FINISHED, "error", 11)
    assert simulation.timeline[-1].why == "maxTransitions is used up"


def test_a_slow_loop_ends_after_ten_years() -> None:
    simulation = run(wait("a", on("no_reply", "a", after="P1Y")))

    assert (simulation.end, simulation.ended_at) == (End.UNTIL, NOON + LONGEST)
    assert simulation.campaign.node_visit == 11


def test_a_fast_loop_ends_after_so_many_steps() -> None:
    fast = wait("a", on("no_reply", "a", after="PT0.001S"))

    simulation = run(fast, maxTransitions=10**9)

    assert (simulation.end, simulation.campaign.node_visit) == (End.LIMIT, MOST_STEPS + 1)
    assert simulation.verdict == "stopped after too many steps: the plan goes round, at a"


def test_the_order_in_which_things_are_given_doesnt_matter_unless_they_happen_at_once() -> None:
    opened, clicked = {"at": "PT1H", "event_type": "opened"}, {"at": "PT2H", "event_type": "clicked"}

    assert run(INTRO, WAIT_CLICK, steps=(clicked, opened)) == run(INTRO, WAIT_CLICK, steps=(opened, clicked))


def test_an_operation_on_a_finished_campaign_is_noted() -> None:
    simulation = run(INTRO, WAIT_CLICK, steps=({"at": "PT1H", "do": "stop"}, {"at": "PT2H", "do": "pause"}))

    assert simulation.timeline[-1].why == "pause: the campaign is over"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"event_type": "opened"}, "at"),
        ({"at": "1h", "event_type": "opened"}, "at"),
        ({"at": "-PT1H", "event_type": "opened"}, "at"),
        ({"at": "2026-03-02", "event_type": "opened"}, "at"),
        ({"at": "2026-03-02T12:00:00", "event_type": "opened"}, "at"),
        ({"at": "2026-03-02T11:59:59Z", "event_type": "opened"}, "at"),
        ({"at": datetime(2026, 3, 2, 12), "event_type": "opened"}, "at"),  # noqa: DTZ001 - naive on purpose
        ({"at": 3, "event_type": "opened"}, "at"),
        ({"at": "PT1H"}, "event_type"),
        ({"at": "PT1H", "event_type": "no_open"}, "event_type"),
        ({"at": "PT1H", "event_type": "0"}, "event_type"),
        ({"at": "PT1H", "event_type": "opened", "occurred_at": "yesterday"}, "occurred_at"),
        ({"at": "PT1H", "event_type": "opened", "visit": 0}, "visit"),
        ({"at": "PT1H", "event_type": "opened", "event_id": ""}, "event_id"),
        ({"at": "PT1H", "event_type": "opened", "node_id": ""}, "node_id"),
        ({"at": "PT1H", "event_type": "opened", "metadata": 3}, "metadata"),
        ({"at": "PT1H", "event_type": "opened", "policy": "keep"}, "policy"),
        ({"at": "PT1H", "event_type": "opened", "message_id": "m-1"}, "message_id"),
        ({"at": "PT1H", "do": "dance"}, "do"),
        ({"at": "PT1H", "do": "pause", "event_type": "opened"}, "event_type"),
        ({"at": "PT1H", "do": "pause", "node_id": "intro"}, "node_id"),
        ({"at": "PT1H", "do": "pause", "policy": "keep"}, "policy"),
        ({"at": "PT1H", "do": "resume", "policy": "hurry"}, "policy"),
    ],
)
def test_what_cant_happen_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Happening.parse(values, NOON)

    assert refused.value.field == field


def test_an_event_may_have_occurred_before_the_start() -> None:
    happening = Happening.parse({"at": "PT1H", "event_type": "opened", "occurred_at": "2026-03-01T12:00:00Z"}, NOON)

    assert (happening.at, happening.occurred_at) == (NOON + HOUR, NOON - DAY)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"until": NOON - HOUR}, "until"),
        ({"timezone": "Nowhere"}, "timezone"),
        ({"grace": -HOUR}, "grace"),
        ({"steps": (Happening(at=NOON - HOUR, event_type="opened"),)}, "at"),
    ],
)
def test_circumstances_that_cant_be_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        run(LOOP, **options)

    assert refused.value.field == field
