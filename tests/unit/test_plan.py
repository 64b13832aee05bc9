import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from scheduler.domain.errors import InvalidInputError, InvalidPlanError
from scheduler.domain.event import EXIT_EVENTS
from scheduler.domain.plan import CampaignPlan, Edge, Timer, TimerDefaults
from scheduler.domain.plan_schema import plan_schema
from scheduler.domain.timing import Duration, QuietHours
from tests.strategies import plans

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
SAMPLES = Path(__file__).parents[2] / "config" / "plans"
HOUR = Duration(exact=timedelta(hours=1))

INTRO: dict[str, Any] = {
    "version": "1.0",
    "timezone": "America/Los_Angeles",
    "quietHours": {"start": "21:00", "end": "07:30"},
    "defaults": {"timers": {"no_open_after": "PT72H", "no_click_after": "PT24H"}},
    "startNodeId": "email_intro",
    "nodes": [
        {
            "id": "email_intro",
            "channel": "email",
            "action": "send",
            "subject": "...",
            "body": "...",
            "schedule": {"delay": "PT0S"},
            "transitions": [
                {"on": "opened", "to": "wait_click", "within": "PT72H"},
                {"on": "no_open", "to": "email_bump_1", "after": "PT72H"},
                {"on": "bounced", "to": "stop", "after": "PT0S"},
            ],
        },
        {
            "id": "wait_click",
            "channel": "email",
            "action": "wait",
            "transitions": [
                {"on": "clicked", "to": "stop", "within": "PT24H"},
                {"on": "no_click", "to": "email_bump_1", "after": "PT24H"},
            ],
        },
        {
            "id": "email_bump_1",
            "channel": "email",
            "action": "send",
            "subject": "...",
            "body": "...",
            "transitions": [{"on": "no_open", "to": "stop"}],
        },
    ],
}


def make_node(node_id: str = "a", **overrides: Any) -> dict[str, Any]:
    transitions = [{"on": "opened", "to": "stop"}, {"on": "no_open", "to": "stop"}]
    return {"id": node_id, "action": "send", "transitions": transitions} | overrides


def make_plan(*nodes: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    nodes = nodes or (make_node(),)
    return {"version": "1.0", "startNodeId": nodes[0]["id"], "nodes": list(nodes)} | overrides


def make_edge(**overrides: Any) -> Edge:
    fields: dict[str, Any] = {"on": "opened", "to": "stop"}
    return Edge(**(fields | overrides))


def faults_of(source: Any) -> dict[str, str]:
    """Every fault's remedy by its path."""
    with pytest.raises(InvalidPlanError) as caught:
        CampaignPlan.parse(source)
    return {fault.path: fault.remedy for fault in caught.value.faults}


def warnings_of(source: Any) -> dict[str, str]:
    return {warning.path: warning.remedy for warning in CampaignPlan.parse(source).warnings}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = deepcopy(INTRO)
    change(document)
    return document


# Reading


def test_the_contracts_example_is_read() -> None:
    plan = CampaignPlan.parse(INTRO)
    assert plan.zone == ZoneInfo("America/Los_Angeles")
    assert plan.quiet_hours == QuietHours(time(21), time(7, 30))
    assert plan.start_node_id == "email_intro"
    assert list(plan.nodes) == ["email_intro", "wait_click", "email_bump_1"]
    intro = plan.node("email_intro")
    assert (intro.action, intro.channel, intro.subject, intro.delay) == ("send", "email", "...", Duration())
    assert [edge.on for edge in intro.edges] == ["opened", "no_open", "bounced"]
    assert intro.timers == (Timer("no_open", Duration(exact=timedelta(hours=72)), "email_bump_1"),)


def test_the_contracts_example_warns_only_of_the_node_where_an_open_leads_nowhere() -> None:
    warnings = warnings_of(INTRO)
    assert list(warnings) == ["$.nodes[2].transitions"]
    assert "a contact who has opened stays here" in warnings["$.nodes[2].transitions"]


@pytest.mark.parametrize("name", ["intro_sequence", "demo"])
def test_a_sample_plan_has_no_fault_and_no_warning(name: str) -> None:
    assert CampaignPlan.from_file(SAMPLES / f"{name}.json").warnings == ()


def test_what_a_plan_leaves_out_has_defaults() -> None:
    plan = CampaignPlan.parse(make_plan(make_node(transitions=None, schedule=None, channel=None)))
    assert (plan.zone, plan.quiet_hours, plan.name) == (UTC_ZONE, None, None)
    assert (plan.max_transitions, plan.exits, plan.machine_opens) == (1000, EXIT_EVENTS, "ignore")
    node = plan.node("a")
    assert (node.channel, node.delay, node.edges, node.timers) == ("email", Duration(), (), ())


def test_a_plan_says_its_own_limits_exits_and_machine_opens() -> None:
    document = make_plan(
        maxTransitions=5, exits=["Unsubscribe", "replied", "reply"], machineOpens="count", name="Spring"
    )
    plan = CampaignPlan.parse(document)
    assert (plan.max_transitions, plan.machine_opens, plan.name) == (5, "count", "Spring")
    assert plan.exits == ("unsubscribed", "replied")
    assert CampaignPlan.parse(make_plan(exits=[])).exits == ()


def test_provider_names_in_a_plan_are_normalised() -> None:
    node = make_node(transitions=[{"on": "Click", "to": "stop"}, {"on": "no_opened", "to": "stop"}])
    assert [edge.on for edge in CampaignPlan.parse(make_plan(node)).node("a").edges] == ["clicked", "no_open"]


@pytest.mark.parametrize(
    "stop",
    [
        [],
        [{"id": "stop", "action": "stop"}],
        [{"id": "stop", "action": "stop", "channel": "email", "transitions": []}],
    ],
)
def test_stop_is_a_node_written_or_implied(stop: list[dict[str, Any]]) -> None:
    plan = CampaignPlan.parse(make_plan(make_node(), *stop))
    assert plan.node("stop").action == "stop"
    assert plan.warnings == ()


def test_another_node_may_stop_too() -> None:
    node = make_node(transitions=[{"on": "no_open", "to": "lost"}, {"on": "opened", "to": "stop"}])
    assert CampaignPlan.parse(make_plan(node, {"id": "lost", "action": "stop"})).node("lost").action == "stop"


def test_an_unknown_node_is_an_input_error() -> None:
    with pytest.raises(InvalidInputError, match="no such node"):
        CampaignPlan.parse(INTRO).node("email_bump_2")


def test_nodes_that_are_a_loop_are_accepted() -> None:
    first = make_node("a", transitions=[{"on": "no_open", "to": "b"}, {"on": "opened", "to": "b"}])
    second = make_node("b", action="wait", transitions=[{"on": "no_click", "to": "a"}, {"on": "clicked", "to": "b"}])
    assert CampaignPlan.parse(make_plan(first, second)).warnings == ()


def test_text_bytes_and_mapping_give_the_same_plan() -> None:
    text = json.dumps(INTRO, indent=2)
    expected = CampaignPlan.parse(INTRO)
    for source in (text, text.encode(), b"\xef\xbb\xbf" + text.encode(), "\ufeff" + text):
        assert expected == CampaignPlan.parse(source)


@settings(deadline=None)
@given(plans())
def test_every_generated_plan_is_valid_and_its_document_reads_back(document: dict[str, Any]) -> None:
    plan = CampaignPlan.parse(document)
    again = CampaignPlan.parse(plan.document)
    assert again == plan
    assert (again.nodes, again.warnings) == (plan.nodes, plan.warnings)
    for node in plan.nodes.values():
        assert len({timer.event_type for timer in node.timers}) == len(node.timers)
        assert {edge.to for edge in node.edges} <= {*plan.nodes, "stop"}


# Identity


def test_the_hash_is_of_the_content_not_of_its_spelling() -> None:
    turned = dict(reversed(INTRO.items()))
    plan, same = CampaignPlan.parse(INTRO), CampaignPlan.parse(json.dumps(turned, indent=4))
    assert plan == same
    assert hash(plan) == hash(same)
    assert len({plan, same}) == 1
    assert plan.hash == "87c6b6c6a0b161704ac239cc386cd63c6c74aba80e218b437530f403bbf2473b"


def test_another_content_is_another_plan() -> None:
    other = CampaignPlan.parse(INTRO | {"timezone": "UTC"})
    assert CampaignPlan.parse(INTRO) != other
    assert CampaignPlan.parse(INTRO) != other.hash


def test_the_document_is_canonical_and_keeps_every_letter() -> None:
    document = make_plan(make_node(subject="Grüße, 東京 👋"))
    canonical = CampaignPlan.parse(document).document
    assert json.loads(canonical) == document
    assert "Grüße, 東京 👋" in canonical
    assert ": " not in canonical


def test_a_plan_cant_be_changed() -> None:
    document = deepcopy(INTRO)
    plan = CampaignPlan.parse(document)
    document["nodes"].clear()
    assert len(plan.nodes) == 3
    with pytest.raises(TypeError):
        plan.nodes["x"] = plan.node("stop")  # type: ignore[index]


# Guards and timers


@pytest.mark.parametrize(
    ("edge", "minutes", "expected"),
    [
        (make_edge(), -600, True),
        (make_edge(after=Duration()), -1, True),
        (make_edge(after=HOUR), 59, False),
        (make_edge(after=HOUR), 60, True),
        (make_edge(within=HOUR), 60, True),
        (make_edge(within=HOUR), 61, False),
        (make_edge(within=HOUR), -5, True),
        (make_edge(within=Duration()), 0, True),
        (make_edge(within=Duration()), 1, False),
        (make_edge(after=HOUR, within=Duration(exact=timedelta(hours=2))), 30, False),
        (make_edge(after=HOUR, within=Duration(exact=timedelta(hours=2))), 90, True),
        (make_edge(after=HOUR, within=Duration(exact=timedelta(hours=2))), 121, False),
    ],
)
def test_a_guard_compares_the_event_with_the_anchor(edge: Edge, minutes: int, expected: bool) -> None:  # noqa: FBT001
    assert expected == edge.holds(NOON + timedelta(minutes=minutes), NOON, UTC_ZONE)


def test_a_guard_of_a_month_is_a_step_in_the_plans_zone() -> None:
    edge = make_edge(within=Duration(months=1))
    berlin = ZoneInfo("Europe/Berlin")
    # A month on, at the same local hour, the clocks in Berlin are one hour ahead.
    month_later = datetime(2026, 4, 2, 11, 0, tzinfo=UTC)
    assert edge.holds(month_later, NOON, berlin)
    assert not edge.holds(month_later + timedelta(minutes=1), NOON, berlin)


def timers_of(transition: dict[str, Any], **overrides: Any) -> tuple[Timer, ...]:
    node = make_node(transitions=[{"to": "stop", **transition}])
    return CampaignPlan.parse(make_plan(node, **overrides)).node("a").timers


def test_a_real_event_makes_no_timer() -> None:
    assert timers_of({"on": "bounced", "after": "PT0S"}) == ()


@pytest.mark.parametrize(
    ("transition", "defaults", "hours"),
    [
        ({"on": "no_open", "after": "PT1H", "within": "PT2H"}, {"no_open_after": "PT3H"}, 1),
        ({"on": "no_open", "within": "PT2H"}, {"no_open_after": "PT3H"}, 2),
        ({"on": "no_open"}, {"no_open_after": "PT3H"}, 3),
        ({"on": "no_opened"}, {"no_opens_after": "PT3H"}, 3),
        ({"on": "no_open"}, {}, 72),
        ({"on": "no_click"}, {}, 24),
        ({"on": "no_open", "after": "PT0S"}, {}, 0),
        ({"on": "no_open"}, {"no_open_after": "PT0S"}, 0),
        ({"on": "no_purchase"}, {"no_purchase_after": "PT5H"}, 5),
    ],
)
def test_a_timers_delay_is_its_after_else_its_within_else_a_default(
    transition: dict[str, Any], defaults: dict[str, Any], hours: int
) -> None:
    (timer,) = timers_of(transition, defaults={"timers": defaults})
    assert timer.delay == Duration(exact=timedelta(hours=hours))


def test_the_settings_defaults_come_last() -> None:
    defaults = TimerDefaults(no_open=HOUR)
    assert CampaignPlan.parse(make_plan(), defaults).node("a").timers == (Timer("no_open", HOUR, "stop"),)


def test_a_custom_synthetic_event_without_a_delay_is_a_fault() -> None:
    faults = faults_of(make_plan(make_node(transitions=[{"on": "no_reply", "to": "stop"}])))
    assert list(faults) == ["$.nodes[0].transitions[0].after"]
    assert "defaults.timers.no_reply_after" in faults["$.nodes[0].transitions[0].after"]


@pytest.mark.parametrize(
    ("delays", "chosen"),
    [(("PT2H", "PT1H"), 1), (("PT1H", "PT2H"), 0), (("PT1H", "PT60M"), 0), (("P1M", "P30D", "P31D"), 1)],
)
def test_of_several_transitions_on_one_synthetic_event_the_earliest_counts(
    delays: tuple[str, ...], chosen: int
) -> None:
    targets = [make_node(f"b{index}") for index in range(len(delays))]
    edges = [{"on": "no_open", "to": f"b{index}", "after": delay} for index, delay in enumerate(delays)]
    plan = CampaignPlan.parse(make_plan(make_node(transitions=[{"on": "opened", "to": "stop"}, *edges]), *targets))
    assert [timer.to for timer in plan.node("a").timers] == [f"b{chosen}"]
    assert len(plan.warnings) == len(delays) - 1
    assert all("never used" in warning.remedy for warning in plan.warnings)


def test_a_node_finds_its_timers_and_transitions_by_event() -> None:
    node = CampaignPlan.parse(INTRO).node("email_intro")
    assert node.timer("no_open") == node.timers[0]
    assert node.timer("no_click") is None
    assert [edge.to for edge in node.edges_on("bounced")] == ["stop"]
    assert node.edges_on("clicked") == ()


# Faults


@pytest.mark.parametrize(
    ("change", "path", "remedy"),
    [
        (lambda plan: plan.pop("version"), "$.version", '"version": "1.0"'),
        (lambda plan: plan.update(version="2.0"), "$.version", '"1.0"'),
        (lambda plan: plan.update(version=1.0), "$.version", "as text"),
        (lambda plan: plan.update(timezone="Europe/Berln"), "$.timezone", "did you mean Europe/Berlin"),
        (lambda plan: plan.update(timezone=1), "$.timezone", "IANA"),
        (lambda plan: plan.update(quietHours="21-7"), "$.quietHours", "object"),
        (lambda plan: plan.update(quietHours={"start": "21:00"}), "$.quietHours.end", "missing"),
        (lambda plan: plan["quietHours"].update(start="9 pm"), "$.quietHours.start", "HH:MM"),
        (lambda plan: plan["quietHours"].update(start="24:00"), "$.quietHours.start", "00:00"),
        (lambda plan: plan["quietHours"].update(end="21:00"), "$.quietHours", "differ"),
        (lambda plan: plan.update(defaults=[]), "$.defaults", "object"),
        (lambda plan: plan.update(defaults={"timers": 3}), "$.defaults.timers", "no_open_after"),
        (
            lambda plan: plan["defaults"]["timers"].update(no_open_after="3 days"),
            "$.defaults.timers.no_open_after",
            "ISO-8601",
        ),
        (lambda plan: plan.pop("startNodeId"), "$.startNodeId", "missing"),
        (lambda plan: plan.update(startNodeId="email_into"), "$.startNodeId", "did you mean 'email_intro'"),
        (lambda plan: plan.update(startNodeId=["email_intro"]), "$.startNodeId", "text"),
        (lambda plan: plan.update(nodes=[]), "$.nodes", "at least one"),
        (lambda plan: plan.pop("nodes"), "$.nodes", "at least one"),
        (lambda plan: plan.update(nodes={"a": 1}), "$.nodes", "list"),
        (lambda plan: plan["nodes"].append("x"), "$.nodes[3]", "object"),
        (lambda plan: plan["nodes"][1].pop("id"), "$.nodes[1].id", "text"),
        (lambda plan: plan["nodes"][1].update(id=""), "$.nodes[1].id", "text"),
        (lambda plan: plan["nodes"][1].update(id="  "), "$.nodes[1].id", "blank"),
        (lambda plan: plan["nodes"][1].update(id="x" * 129), "$.nodes[1].id", "128"),
        (lambda plan: plan["nodes"][1].update(id="email_intro"), "$.nodes[1].id", "$.nodes[0]"),
        (lambda plan: plan["nodes"].append(make_node("lonely")), "$.nodes[3].id", "no way leads here"),
        (lambda plan: plan["nodes"][1].pop("action"), "$.nodes[1].action", "missing"),
        (lambda plan: plan["nodes"][1].update(action="Wait"), "$.nodes[1].action", "did you mean 'wait'"),
        (lambda plan: plan["nodes"][1].update(action=["wait"]), "$.nodes[1].action", "send, wait, stop"),
        (lambda plan: plan["nodes"].append(make_node("stop")), "$.nodes[3].action", "action stop"),
        (lambda plan: plan["nodes"][0].update(channel=1), "$.nodes[0].channel", "text"),
        (lambda plan: plan["nodes"][0].update(channel=""), "$.nodes[0].channel", "text"),
        (lambda plan: plan["nodes"][0].update(subject=1), "$.nodes[0].subject", "text"),
        (lambda plan: plan["nodes"][0].update(body=["x"]), "$.nodes[0].body", "text"),
        (lambda plan: plan["nodes"][0].update(schedule="PT0S"), "$.nodes[0].schedule", "object"),
        (
            lambda plan: plan["nodes"][0]["schedule"].update(delay="-PT1S"),
            "$.nodes[0].schedule.delay",
            "negative",
        ),
        (lambda plan: plan["nodes"][0].update(transitions={}), "$.nodes[0].transitions", "list"),
        (lambda plan: plan["nodes"][0]["transitions"].append(3), "$.nodes[0].transitions[3]", "object"),
        (
            lambda plan: plan["nodes"][0]["transitions"][0].pop("on"),
            "$.nodes[0].transitions[0].on",
            "missing",
        ),
        (
            lambda plan: plan["nodes"][0]["transitions"][0].update(on="öffnen"),
            "$.nodes[0].transitions[0].on",
            "event type",
        ),
        (
            lambda plan: plan["nodes"][2]["transitions"][0].update(to="stopp"),
            "$.nodes[2].transitions[0].to",
            "did you mean 'stop'",
        ),
        (lambda plan: plan["nodes"][2]["transitions"][0].pop("to"), "$.nodes[2].transitions[0].to", "text"),
        (
            lambda plan: plan["nodes"][2]["transitions"][0].update(after="72h"),
            "$.nodes[2].transitions[0].after",
            "ISO-8601",
        ),
        (
            lambda plan: plan["nodes"][2]["transitions"][0].update(within=3),
            "$.nodes[2].transitions[0].within",
            "ISO-8601",
        ),
        (lambda plan: plan.update(maxTransitions=0), "$.maxTransitions", "whole number"),
        (lambda plan: plan.update(maxTransitions=True), "$.maxTransitions", "whole number"),
        (lambda plan: plan.update(maxTransitions=1.5), "$.maxTransitions", "whole number"),
        (lambda plan: plan.update(exits="unsubscribed"), "$.exits", "list"),
        (lambda plan: plan.update(exits=["no_open"]), "$.exits[0]", "real event"),
        (lambda plan: plan.update(exits=[None]), "$.exits[0]", "event type"),
        (lambda plan: plan.update(machineOpens="maybe"), "$.machineOpens", "ignore, count"),
        (lambda plan: plan.update(name=7), "$.name", "text"),
    ],
)
def test_a_fault_is_named_with_its_path_and_remedy(
    change: Callable[[dict[str, Any]], object], path: str, remedy: str
) -> None:
    faults = faults_of(changed(change))
    assert remedy in faults[path]


def test_every_fault_is_named_at_once() -> None:
    document = changed(lambda plan: plan.update(version="3", timezone="x", maxTransitions=-1))
    document["nodes"][0]["transitions"][0]["to"] = "nowhere"
    document["nodes"][2]["transitions"][0]["after"] = "soon"
    expected = {
        "$.version",
        "$.timezone",
        "$.maxTransitions",
        "$.nodes[0].transitions[0].to",
        "$.nodes[1].id",  # nothing leads there any more
        "$.nodes[2].transitions[0].after",
    }
    assert expected == set(faults_of(document))


def test_the_error_lists_the_faults_one_a_line() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        CampaignPlan.parse(make_plan(version="3", timezone="x"))
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (make_node("a", transitions=[{"on": "no_open", "to": "a", "after": "PT0S"}]), None),
        (
            make_node("a", transitions=[{"on": "no_open", "to": "b", "after": "PT0S"}]),
            make_node("b", action="wait", transitions=[{"on": "no_click", "to": "a", "within": "PT0S"}]),
        ),
    ],
)
def test_a_cycle_that_takes_no_time_is_a_fault(first: dict[str, Any], second: dict[str, Any] | None) -> None:
    faults = faults_of(make_plan(*(node for node in (first, second) if node)))
    assert len(faults) == 1
    assert "takes no time" in next(iter(faults.values()))


@pytest.mark.parametrize(
    "second",
    [
        make_node("b", transitions=[{"on": "no_open", "to": "a", "after": "PT1S"}]),
        make_node("b", transitions=[{"on": "opened", "to": "a", "after": "PT0S"}]),
        make_node("b", transitions=[{"on": "no_open", "to": "a", "after": "PT0S"}], schedule={"delay": "PT1S"}),
    ],
)
def test_a_cycle_with_a_delay_or_a_real_event_is_accepted(second: dict[str, Any]) -> None:
    first = make_node("a", transitions=[{"on": "no_open", "to": "b", "after": "PT0S"}])
    assert list(CampaignPlan.parse(make_plan(first, second)).nodes) == ["a", "b"]


def test_a_long_cycle_that_takes_no_time_is_found_and_shown_shortly() -> None:
    count = 3000
    nodes = [
        {
            "id": f"n{index}",
            "action": "wait",
            "transitions": [{"on": "no_x", "to": f"n{(index + 1) % count}"}],
        }
        for index in range(count)
    ]
    with pytest.raises(InvalidPlanError) as caught:
        CampaignPlan.parse(make_plan(*nodes, defaults={"timers": {"no_x_after": "PT0S"}}))
    (fault,) = caught.value.faults
    assert fault.path == f"$.nodes[{count - 1}].transitions[0]"
    assert len(str(fault.value)) < 100


# Documents that are no plan at all


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("", "isn't JSON"),
        ("{", "line 1, column 2"),
        ("plan.json", "isn't JSON"),
        ("[]", "JSON object"),
        ("null", "JSON object"),
        (b"\xff{}", "UTF-8"),
        ("[" * 100_000, "nested"),
        ('{"metadata": ' * 50 + "1" + "}" * 50, "nested"),
        ('{"maxTransitions": ' + "9" * 5000 + "}", "beyond"),
        (b" " * 1_048_577, "larger"),
        ({"x-notes": "x" * 1_048_576}, "larger"),
        (None, "JSON object"),
        (["version"], "JSON object"),
    ],
)
def test_a_document_that_is_no_plan_is_refused_in_one_line(source: object, remedy: str) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        CampaignPlan.parse(source)  # type: ignore[arg-type]
    assert remedy in caught.value.faults[0].remedy
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"version": "1.0", "version": "1.0"}', "$.version"),
        ('{"nodes": [{"id": "a", "id": "b"}]}', "$.nodes[0].id"),
        ('{"x-score": NaN}', "$.x-score"),
        ('{"x-score": [1, -Infinity]}', "$.x-score[1]"),
        ('{"x-score": 1e999}', "$.x-score"),
        ('{"x-score": 9223372036854775808}', "$.x-score"),
        ('{"nodes": [{"id": "a\\u0000"}]}', "$.nodes[0].id"),
        ('{"nodes": [{"id": "a\\ud800"}]}', "$.nodes[0].id"),
        ('{"a\\u0000b": 1}', "$"),
        ('{"a.b": NaN}', '$["a.b"]'),
    ],
)
def test_what_json_or_the_database_cant_hold_is_refused_with_its_path(text: str, path: str) -> None:
    assert path in faults_of(text)


@pytest.mark.parametrize("value", [NOON, {1, 2}, b"x", object(), float("nan"), {3: 4}, Path("x")])
def test_a_mapping_that_isnt_json_is_refused(value: object) -> None:
    assert [path for path in faults_of(make_plan(metadata={"by": value})) if path.startswith("$.metadata.by")]


def test_a_mapping_that_holds_itself_is_refused() -> None:
    document = make_plan()
    document["metadata"] = document
    assert "nested" in next(iter(faults_of(document).values()))


def test_a_mapping_that_grows_without_end_is_refused_soon() -> None:
    shared: list[Any] = []
    for _ in range(30):
        shared = [shared, shared]
    assert "larger" in faults_of(make_plan(metadata=shared))["$"]


SCHEMA = Draft202012Validator(plan_schema())
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(plans(), st.data())
def test_a_plan_with_any_part_replaced_is_a_plan_or_a_plan_error(document: dict[str, Any], data: st.DataObject) -> None:
    part: Any = document
    while True:
        key = data.draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
            break
        part = part[key]
    part[key] = data.draw(JSON_VALUES)
    try:
        plan = CampaignPlan.parse(document)
    except InvalidPlanError as error:
        assert all(fault.path.startswith("$") and fault.remedy for fault in error.faults)  # noqa: PT017
    else:
        assert plan == CampaignPlan.parse(plan.document)
        SCHEMA.validate(document)


@pytest.mark.parametrize("name", ["missing.json", "nul\x00.json", "."])
def test_a_file_that_cant_be_read_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="can't be read"):
        CampaignPlan.from_file(f"{tmp_path}/{name}")


# Warnings


@pytest.mark.parametrize(
    ("transitions", "remedy"),
    [
        (["no_open"], "who has opened stays here"),
        (["no_open", "clicked"], "who has opened stays here"),
        (["no_open", "no_click"], "who has opened and clicked stays here"),
        (["no_click"], "who has clicked stays here"),
        (["clicked"], "who does nothing stays here"),
        ([], "no transitions"),
        (["no_open", "opened"], None),
        (["no_open", "no_click", "clicked"], None),
        (["no_open", "no_click", "opened"], None),
        (["no_bounce", "no_open"], None),
    ],
)
def test_a_node_that_a_contact_may_never_leave_is_warned_of(transitions: list[str], remedy: str | None) -> None:
    node = make_node(transitions=[{"on": event, "to": "stop"} for event in transitions])
    warnings = warnings_of(make_plan(node, defaults={"timers": {"no_bounce_after": "P1D"}}))
    assert (remedy is None) == (warnings == {})
    assert (remedy or "") in warnings.get("$.nodes[0].transitions", "")


@pytest.mark.parametrize(
    ("document", "path", "remedy"),
    [
        (make_plan(timeZone="UTC"), "$.timeZone", "did you mean 'timezone'"),
        (make_plan(zebra=1), "$.zebra", "means nothing here"),
        (make_plan(make_node(acton="send")), "$.nodes[0].acton", "did you mean 'action'"),
        (make_plan(make_node(schedule={"dely": "PT1H"})), "$.nodes[0].schedule.dely", "did you mean 'delay'"),
        (make_plan(defaults={"timer": {}}), "$.defaults.timer", "did you mean 'timers'"),
        (make_plan(defaults={"timers": {"no_open": "PT1H"}}), "$.defaults.timers.no_open", "no_open_after"),
        (
            make_plan(quietHours={"start": "21:00", "end": "07:00", "zone": "UTC"}),
            "$.quietHours.zone",
            "means nothing here",
        ),
        (
            make_plan(make_node(transitions=[{"on": "no_open", "to": "stop", "afer": "PT1H"}])),
            "$.nodes[0].transitions[0].afer",
            "did you mean 'after'",
        ),
        (
            make_plan(make_node(), {"id": "stop", "action": "stop", "transitions": [{"on": "opened", "to": "a"}]}),
            "$.nodes[1].transitions",
            "never left",
        ),
        (
            make_plan(make_node(action="wait", schedule={"delay": "PT1H"})),
            "$.nodes[0].schedule.delay",
            "only a send node",
        ),
        (
            make_plan(make_node(transitions=[{"on": "opened", "to": "stop", "after": "P2D", "within": "P1D"}])),
            "$.nodes[0].transitions[0].within",
            "no event can be in time",
        ),
        (
            make_plan(make_node(transitions=[{"on": "no_open", "to": "stop", "after": "P1D", "within": "P2D"}])),
            "$.nodes[0].transitions[0].within",
            "ignored",
        ),
        (
            make_plan(
                make_node(transitions=[{"on": "opened", "to": "a"}, {"on": "no_open", "to": "a"}]),
                {"id": "stop", "action": "stop"},
            ),
            "$.nodes[1].id",
            "no way leads here",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(document: dict[str, Any], path: str, remedy: str) -> None:
    assert remedy in warnings_of(document)[path]


def test_what_editors_add_is_no_warning() -> None:
    extras = {
        "name": "n",
        "description": "d",
        "metadata": {"any": [1]},
        "label": "l",
        "position": {"x": 1},
        "x-y": 0,
    }
    node = make_node(transitions=[{"on": "opened", "to": "stop"} | extras, {"on": "no_open", "to": "stop"}])
    assert warnings_of(make_plan(node | extras, **extras)) == {}


def test_a_wait_nodes_delay_is_not_kept() -> None:
    node = make_node(action="wait", schedule={"delay": "PT1H"})
    assert CampaignPlan.parse(make_plan(node)).node("a").delay == Duration()
