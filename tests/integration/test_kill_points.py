"""Kill a process before each of its statements and commits, start another: what was due has happened exactly once.

Dying after a statement is dying before the next one, or before the commit: nothing else of ours reaches the database.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any, Final

from scheduler import SendRequest, SendResult, TimeoutScheduler
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import LONG_AGO, execute, query
from tests.support.victims import victims
from tests.support.walk import make_document, on, send, wait

# So long that nothing is renewed meanwhile: a renewal would be a step of its own.
VICTIM: Final = {"lease": "PT1H"}

TWO_WAITS: Final = make_document(
    wait("first", on("opened", "second"), on("no_open", "second", after="PT1H"), on("no_click", "stop", after="PT2H")),
    wait("second", on("clicked", "stop"), on("no_click", "stop", after="P36500D")),
)
ONE_MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="P36500D")))


def history(scheduler: TimeoutScheduler, campaign_id: str) -> list[tuple[int, str, str]]:
    return [
        (step.node_visit, step.trigger, step.to_node_id) for step in scheduler.campaigns.history("acme", campaign_id)
    ]


def actions(scheduler: TimeoutScheduler, campaign_id: str) -> dict[tuple[Any, ...], int]:
    rows = query(
        scheduler,
        "SELECT node_visit, event_type, status, outcome FROM scheduled_actions WHERE campaign_id = :campaign",
        campaign=campaign_id,
    )
    return Counter(tuple(row) for row in rows)


def is_settled(scheduler: TimeoutScheduler) -> bool:
    """Fire what is due; True once nothing is. A server may take a moment to see that somebody died.

    His lease has ended, so that nobody has to wait for it.
    """
    execute(
        scheduler,
        "UPDATE scheduled_actions SET claimed_until = :long_ago WHERE status = 'claimed'",
        long_ago=LONG_AGO if scheduler.database.is_postgresql else "2020-01-01 00:00:00.000000",
    )
    scheduler.run_due()
    open_ones = "SELECT 1 FROM scheduled_actions WHERE status = 'claimed' OR (status = 'pending' AND run_at < :soon)"
    return not query(scheduler, open_ones, soon="2100-01-01 00:00:00")


def test_a_timeout_takes_effect_once_wherever_its_process_dies(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url)
    with victims() as server:
        for point in count(1):
            name = f"c-{point}"
            scheduler.campaigns.enroll("acme", name, name, TWO_WAITS, start_at=LONG_AGO)
            died = server.order(point, {"url": database_url, **VICTIM})
            eventually(lambda: is_settled(scheduler))

            assert history(scheduler, name) == [(0, "enrolled", "first"), (1, "no_open", "second")], point
            assert actions(scheduler, name) == {
                (1, "no_open", "completed", "transitioned"): 1,
                (1, "no_click", "canceled", "visit left"): 1,
                (2, "no_click", "pending", None): 1,
            }, point
            if not died:
                break
    assert point > 10, "it was to die at many points"


def test_a_mail_is_sent_at_least_once_wherever_its_process_dies(
    database_url: str, open_scheduler: OpenScheduler, tmp_path: Path
) -> None:
    outbox = tmp_path / "outbox"
    outbox.touch()

    def hand_over(request: SendRequest) -> SendResult:
        with outbox.open("a", encoding="utf-8") as file:
            file.write(f"{request.dedupe_key}\n")
        return SendResult()

    scheduler = open_scheduler(database_url, send_handler=hand_over)
    times = []
    with victims() as server:
        for point in count(1):
            name = f"c-{point}"
            scheduler.campaigns.enroll("acme", name, name, ONE_MAIL)
            died = server.order(point, {"url": database_url, "outbox": str(outbox), **VICTIM})
            eventually(lambda: is_settled(scheduler))

            assert history(scheduler, name) == [(0, "enrolled", "intro")], point
            assert actions(scheduler, name) == {
                (1, "sent", "completed", "sent"): 1,
                (1, "no_open", "pending", None): 1,
            }, point
            times.append(outbox.read_text("utf-8").splitlines().count(f"acme:{name}:intro:1:send:sent"))
            if not died:
                break
    assert {1, 2} == set(times)
    assert times[-1] == 1
    twice = [point for point, sent in enumerate(times) if sent == 2]
    assert twice == list(range(twice[0], twice[-1] + 1)), "only between the mail and its confirmation"


def test_an_event_counts_once_wherever_its_process_dies(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    with victims() as server:
        for point in count(1):
            name = f"c-{point}"
            scheduler.campaigns.enroll("acme", name, name, TWO_WAITS)
            opened: dict[str, Any] = {
                "tenant_id": "acme",
                "event_type": "opened",
                "campaign_id": name,
                "event_id": f"e-{point}",
            }
            died = server.order(point, {"url": database_url, "event": opened, **VICTIM})
            scheduler.campaigns.process_event(**opened)

            assert history(scheduler, name) == [(0, "enrolled", "first"), (1, "opened", "second")], point
            assert actions(scheduler, name) == {
                (1, "no_open", "canceled", "visit left"): 1,
                (1, "no_click", "canceled", "visit left"): 1,
                (2, "no_click", "pending", None): 1,
            }, point
            if not died:
                break
    assert point > 5, "it was to die at many points"
