"""The pages of a daemon that was told to stop and is still firing."""

import signal
from contextlib import closing
from pathlib import Path

from scheduler import TimeoutScheduler
from tests.support.daemon import environment, running
from tests.support.daemon_log import Pages
from tests.support.eventually import eventually
from tests.support.gated import Gate, create_effects
from tests.support.scheduling import are_completed, make_job


def test_a_daemon_that_drains_lives_and_is_not_ready(sqlite_url: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    given = {"SCHEDULER_STATE_MANAGER": "tests.support.gated:Gated", "SCHEDULER_SEND_HANDLER": "external"}
    with closing(TimeoutScheduler(sqlite_url)) as scheduler:
        create_effects(scheduler)
        scheduler.schedule(make_job())
        with running(tmp_path, environment(sqlite_url, **given, **gate.environment)) as daemon:
            pages = Pages(daemon.log)
            gate.wait_for("timeouts")
            assert pages.readiness() == 200
            daemon.process.send_signal(signal.SIGTERM)
            eventually(lambda: pages.readiness() == 503)
            assert pages.liveness() == 200
            gate.open()
            assert daemon.process.wait(30) == 0
        assert are_completed(scheduler, [make_job()])()
