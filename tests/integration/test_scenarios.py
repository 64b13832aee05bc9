"""The scenarios of tests/scenarios come true in the simulator, and through the public API on both databases."""

from collections import Counter

import pytest

from tests.support.scenarios import Scenario, plans, scenarios

SCENARIOS = [pytest.param(scenario, id=scenario.name) for scenario in scenarios()]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_comes_true_in_the_simulator(scenario: Scenario) -> None:
    assert scenario.expected == scenario.told(scenario.cast().simulated())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_comes_true_on_a_database_and_the_simulator_tells_the_same(
    scenario: Scenario, database_url: str
) -> None:
    cast = scenario.cast()

    story = cast.performed(database_url)

    assert scenario.expected == scenario.told(story)
    assert cast.simulated() == story


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(one.name for one in scenarios()).items() if count > 1] == []


def test_every_plan_is_used() -> None:
    assert set(plans()) == {scenario.plan for scenario in scenarios()}
