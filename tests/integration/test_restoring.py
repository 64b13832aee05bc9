"""A restored database: what fires, what goes out again, and how the how-to keeps it from doing so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from scheduler import SendRequest
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.stage import Stage
from tests.support.walk import NOON, on, send, wait

MAIL = send("mail", on("opened", "stop"), on("no_open", "again", after="PT1H"))
AGAIN = send("again", on("opened", "stop"), on("no_open", "stop", after="PT1H"))
WAIT = wait("a", on("opened", "stop"), on("no_open", "mail", after="PT1H"))


def back_up(url: str, folder: Path) -> str:
    """As the how-to does it, while the file is in use."""
    file = folder / "backup.db"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("VACUUM INTO ?", (str(file),))
    return f"sqlite:///{file}"


def test_what_happened_since_the_backup_happens_again_unless_it_is_told(
    sqlite_url: str, tmp_path: Path, open_scheduler: OpenScheduler
) -> None:
    stage = Stage(open_scheduler, sqlite_url)
    for campaign in ("c-1", "c-2", "c-3"):
        stage.enroll(MAIL, AGAIN, campaign=campaign)
    stage.enroll(WAIT, MAIL, AGAIN, campaign="c-4")
    restored_url = back_up(sqlite_url, tmp_path)
    assert stage.run() == 3, "three mails go out after the backup"
    stage.event("opened", campaign="c-2", event_id="e-2", message_id="m-c-2-1")
    sent = [(one.dedupe_key, one.campaign_id) for one in stage.mailed]
    stage.ts.close()

    mailed: list[SendRequest] = []
    clock = SettableClock(NOON)
    restored = open_scheduler(restored_url, clock=clock, send_handler=mailed.append)
    campaigns = restored.campaigns
    campaigns.pause_all(reason="restored")
    clock.advance("PT2H")
    assert restored.run_due() == 0, "paused before the first start"
    assert campaigns.preview_resume(policy="keep").due.at_once == 7
    for job_id, campaign in sent[1:]:
        assert campaigns.confirm_send(job_id, NOON, f"m-{campaign}-1"), "what the provider says went out"
    event = campaigns.process_event("acme", "opened", "m-c-2-1", campaign_id="c-2", event_id="e-2", occurred_at=NOON)
    assert event.outcome == "transitioned", "what the provider tells again"
    campaigns.resume_all(policy="keep")
    restored.run_due()

    again = [one.dedupe_key for one in mailed if one.node_id == "mail"]
    assert sorted(again) == [sent[0][0], "acme:c-4:mail:2:send:sent"], "one that nobody told of, with the same key"
    assert [one.campaign_id for one in mailed if one.node_id == "again"] == ["c-3"], "overdue, once"
    found = campaigns.find("acme", "c-2")
    assert found is not None
    assert found.status == "completed"
