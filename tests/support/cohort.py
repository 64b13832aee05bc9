"""Many contacts on one plan, all due at once and once more a moment later: for tests of what happens in between."""

from collections import Counter
from typing import Any, Final

from scheduler import TimeoutScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import LONG_AGO, query
from tests.support.walk import make_document, on, wait

_PLAN: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H"), on("no_click", "stop", after="PT99H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT1S")),
)
_HISTORY: Final = [(0, None, "first", "enrolled"), (1, "first", "second", "no_open"), (2, "second", "stop", "no_open")]


class Cohort:
    """Contacts of one tenant. `scheduler` enrols and looks, past whatever happens to the daemon's database."""

    def __init__(self, scheduler: TimeoutScheduler, contacts: int) -> None:
        self._scheduler = scheduler
        self._contacts = contacts

    def enroll(self) -> None:
        """All at once; the first timeout of each is due already."""
        self._scheduler.campaigns.enroll_many(
            {
                "tenant_id": "acme",
                "campaign_id": f"c-{n}",
                "contact_id": f"k-{n}",
                "plan": _PLAN,
                "start_at": LONG_AGO,
            }
            for n in range(self._contacts)
        )

    def visits_left(self) -> int:
        """How many timeouts have had their effect."""
        ((left,),) = query(self._scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0")
        return int(left)

    def wait_for_some(self) -> None:
        """Return in the middle of it."""
        eventually(lambda: self.visits_left() > 0, timeout=30)
        assert self.visits_left() < 2 * self._contacts, "it was too fast to show anything"

    def wait_for_all(self) -> None:
        """Return when every contact has walked to the end."""
        eventually(lambda: self.visits_left() >= 2 * self._contacts, timeout=30)

    def check(self) -> None:
        """Every history is complete, exactly once, and every action ended once, at its first attempt."""
        histories: dict[str, list[Any]] = {}
        for campaign_id, *step in query(
            self._scheduler,
            "SELECT campaign_id, node_visit, from_node_id, to_node_id, trigger FROM campaign_transitions"
            " ORDER BY campaign_id, node_visit",
        ):
            histories.setdefault(campaign_id, []).append(tuple(step))
        assert self._contacts == len(histories)
        assert [history for history in histories.values() if history != _HISTORY] == []
        rows = query(
            self._scheduler, "SELECT status, outcome, attempts, count(*) FROM scheduled_actions GROUP BY 1, 2, 3"
        )
        ended = Counter({(status, outcome, attempts): number for status, outcome, attempts, number in rows})
        expected = {
            ("completed", "transitioned", 0): 2 * self._contacts,
            ("canceled", "visit left", 0): self._contacts,
        }
        assert expected == ended
