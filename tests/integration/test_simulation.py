"""The simulator and the real thing are one: whatever plan, whatever happens, they tell the same story."""

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scheduler import CampaignPlan
from scheduler.domain.happening import Happening
from tests.strategies import happenings, plans
from tests.support.replay import Cast
from tests.support.walk import NOON

LENGTH = timedelta(days=40)
ZONES = (None, None, "Asia/Kathmandu")
GRACES = (timedelta(0), timedelta(0), timedelta(minutes=10))
EXITS: tuple[list[str] | None, ...] = (None, None, [], ["replied"])


# Every example is a whole campaign on a database: shrinking a failure would take minutes.
@settings(
    max_examples=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(
    document=plans(),
    arriving=happenings(NOON),
    timezone=st.sampled_from(ZONES),
    grace=st.sampled_from(GRACES),
    exits=st.sampled_from(EXITS),
)
def test_a_simulation_tells_what_really_happens(
    document: dict[str, Any], arriving: list[Happening], timezone: str | None, grace: timedelta, exits: list[str] | None
) -> None:
    plan = CampaignPlan.parse({**document, "maxTransitions": 5, "exits": exits})
    cast = Cast(plan, arriving, NOON, NOON + LENGTH, timezone, grace)

    assert cast.simulated() == cast.performed()
