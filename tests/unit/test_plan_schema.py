from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from scheduler.domain.errors import InvalidPlanError
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.plan_reading import EDGE_KEYS, NODE_KEYS, PLAN_KEYS
from scheduler.domain.plan_schema import plan_schema
from tests.strategies import plans
from tests.unit.test_plan import INTRO

VALIDATOR = Draft202012Validator(plan_schema())


def is_accepted(document: object) -> bool:
    try:
        CampaignPlan.parse(document)  # type: ignore[arg-type]
    except InvalidPlanError:
        return False
    return True


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(plan_schema())


def test_the_schema_is_a_new_copy_each_time() -> None:
    plan_schema()["properties"].clear()
    assert plan_schema()["properties"]


def test_the_schema_describes_every_key_the_parser_reads() -> None:
    schema = plan_schema()
    assert {*PLAN_KEYS, "name"} == set(schema["properties"])
    assert set(NODE_KEYS) == set(schema["$defs"]["node"]["properties"])
    assert set(EDGE_KEYS) == set(schema["$defs"]["transition"]["properties"])


@settings(deadline=None)
@given(plans())
def test_every_valid_plan_satisfies_the_schema(document: dict[str, Any]) -> None:
    assert is_accepted(document)
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(),
        lambda plan: plan.update(zebra=1, metadata={"x": [1]}),
        lambda plan: plan.update(timezone=None, quietHours=None, defaults=None, name=None),
        lambda plan: plan.update(maxTransitions=None, exits=None, machineOpens=None),
        lambda plan: plan.update(maxTransitions=7, exits=["replied", "Unsubscribe"], machineOpens="count"),
        lambda plan: plan.update(maxTransitions=7.0),
        lambda plan: plan.update(exits=[]),
        lambda plan: plan.update(quietHours={"start": "21:00:30", "end": "24:00"}),
        lambda plan: plan["nodes"][0].update(channel=None, subject=None, body=None, schedule=None),
        lambda plan: plan["nodes"][0].update(schedule={"delay": None}),
        lambda plan: plan["nodes"][0].update(schedule={"delay": "P1Y2M1.5W1DT1H1M1,5S"}),
        lambda plan: plan["nodes"].append({"id": "stop", "action": "stop"}),
        lambda plan: plan["nodes"][0]["transitions"][0].update(on="Spam Report", after=None),
        lambda plan: plan["defaults"].update(timers=None),
        lambda plan: plan["defaults"]["timers"].update(no_open_after=None, other=3),
    ],
)
def test_schema_and_parser_accept_the_same_structures(change: Callable[[dict[str, Any]], object]) -> None:
    document = deepcopy(INTRO)
    change(document)
    assert is_accepted(document)
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("version"),
        lambda plan: plan.pop("startNodeId"),
        lambda plan: plan.pop("nodes"),
        lambda plan: plan.update(version="1"),
        lambda plan: plan.update(version=1.0),
        lambda plan: plan.update(version=None),
        lambda plan: plan.update(name=1),
        lambda plan: plan.update(name="n" * 201),
        lambda plan: plan.update(timezone=1),
        lambda plan: plan.update(startNodeId=1),
        lambda plan: plan.update(nodes=[]),
        lambda plan: plan.update(nodes={}),
        lambda plan: plan.update(nodes=None),
        lambda plan: plan.update(maxTransitions=0),
        lambda plan: plan.update(maxTransitions=True),
        lambda plan: plan.update(maxTransitions=1.5),
        lambda plan: plan.update(exits="replied"),
        lambda plan: plan.update(exits=["no_open"]),
        lambda plan: plan.update(exits=[1]),
        lambda plan: plan.update(exits=[None]),
        lambda plan: plan.update(machineOpens="no"),
        lambda plan: plan.update(quietHours=[]),
        lambda plan: plan.update(quietHours={"start": "21:00"}),
        lambda plan: plan.update(quietHours={"start": "24:00", "end": "07:00"}),
        lambda plan: plan.update(quietHours={"start": "9:00", "end": "07:00"}),
        lambda plan: plan.update(quietHours={"start": 21, "end": 7}),
        lambda plan: plan.update(defaults=[]),
        lambda plan: plan["defaults"].update(timers=[]),
        lambda plan: plan["defaults"]["timers"].update(no_open_after="72h"),
        lambda plan: plan["nodes"].append(1),
        lambda plan: plan["nodes"][0].pop("id"),
        lambda plan: plan["nodes"][0].update(id=""),
        lambda plan: plan["nodes"][0].update(id=" "),
        lambda plan: plan["nodes"][0].update(id="x" * 129),
        lambda plan: plan["nodes"][0].update(id=1),
        lambda plan: plan["nodes"][0].pop("action"),
        lambda plan: plan["nodes"][0].update(action="post"),
        lambda plan: plan["nodes"][0].update(action=None),
        lambda plan: plan["nodes"].append({"id": "stop", "action": "wait"}),
        lambda plan: plan["nodes"][0].update(channel=""),
        lambda plan: plan["nodes"][0].update(channel="c" * 65),
        lambda plan: plan["nodes"][0].update(subject=1),
        lambda plan: plan["nodes"][0].update(body={}),
        lambda plan: plan["nodes"][0].update(schedule="PT0S"),
        lambda plan: plan["nodes"][0].update(schedule={"delay": "PT"}),
        lambda plan: plan["nodes"][0].update(schedule={"delay": "P1.5M"}),
        lambda plan: plan["nodes"][0].update(schedule={"delay": "-PT1S"}),
        lambda plan: plan["nodes"][0].update(schedule={"delay": "P1DT"}),
        lambda plan: plan["nodes"][0].update(transitions={}),
        lambda plan: plan["nodes"][0]["transitions"].append([]),
        lambda plan: plan["nodes"][0]["transitions"][0].pop("on"),
        lambda plan: plan["nodes"][0]["transitions"][0].pop("to"),
        lambda plan: plan["nodes"][0]["transitions"][0].update(on="1x"),
        lambda plan: plan["nodes"][0]["transitions"][0].update(on=None),
        lambda plan: plan["nodes"][0]["transitions"][0].update(to=None),
        lambda plan: plan["nodes"][0]["transitions"][0].update(to=" "),
        lambda plan: plan["nodes"][0]["transitions"][0].update(within="1h"),
        lambda plan: plan["nodes"][0]["transitions"][1].update(after=72),
    ],
)
def test_schema_and_parser_refuse_the_same_structures(change: Callable[[dict[str, Any]], object]) -> None:
    document = deepcopy(INTRO)
    change(document)
    assert not is_accepted(document)
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize("document", [[], None, "x", 1])
def test_schema_and_parser_refuse_what_is_no_object(document: object) -> None:
    assert not is_accepted(document)
    assert not VALIDATOR.is_valid(document)
