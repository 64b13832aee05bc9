"""The primary dies and a synchronous standby takes over: a daemon with both in its URL goes on, and nothing is lost."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from scheduler import DatabaseUnavailableError, TimeoutScheduler, UnknownCampaignError
from tests.support.cluster import Cluster, ask, why_no_cluster
from tests.support.cohort import Cohort
from tests.support.daemon import environment, running
from tests.support.daemon_log import Pages, said
from tests.support.eventually import eventually
from tests.support.scheduling import WAIT_PLAN, make_job, make_settings

CONTACTS: Final = 200
DATABASE: Final = "failover"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    missing = why_no_cluster()
    if missing:
        pytest.skip(missing)
    with Cluster() as cluster:
        with closing(TimeoutScheduler(cluster.primary.create_database(DATABASE))) as scheduler:
            scheduler.migrate()
        yield cluster


def test_a_daemon_goes_on_with_the_standby_that_takes_over(cluster: Cluster, tmp_path: Path) -> None:
    """Its URL names both; what was acknowledged before, the standby has."""
    hosts = ",".join(f"127.0.0.1:{member.port}" for member in cluster.members)
    url = f"postgresql://postgres@{hosts}/{DATABASE}"
    with closing(TimeoutScheduler(url, settings=make_settings())) as scheduler:
        cohort = Cohort(scheduler, CONTACTS)
        cohort.enroll()
        with running(tmp_path, environment(url, SCHEDULER_DATABASE_TIMEOUT="PT2S")) as daemon:
            pages = Pages(daemon.log)
            cohort.wait_for_some()
            cluster.primary.kill9()
            eventually(lambda: pages.readiness() == 503)
            eventually(lambda: said(daemon.log, "database.unavailable") > 0)
            eventually(lambda: pages.database_up() == 0)

            cluster.fail_over()
            eventually(lambda: said(daemon.log, "database.recovered") > 0)
            eventually(lambda: pages.readiness() == 200)
            eventually(lambda: pages.database_up() == 1)
            cohort.wait_for_all()
            assert daemon.terminate() == 0
        cohort.check()


def test_a_promoted_server_waits_for_its_standby_also_after_a_restart(cluster: Cluster) -> None:
    """Else the soak would blame the scheduler for what its own cluster lost."""
    cluster.primary.kill9()
    cluster.fail_over()
    cluster.replace_standby()
    cluster.primary.kill9()
    cluster.primary.start()

    assert ask(cluster.primary, "SHOW synchronous_standby_names") == [("*",)]


def test_what_is_told_as_known_survives_a_failover(cluster: Cluster) -> None:
    """A first call is committed on the primary alone; a repeat finds it, and is answered once the standby has it.

    PostgreSQL itself would answer at once: a transaction that wrote nothing waits for no standby.
    """
    url = cluster.primary.url(DATABASE)
    with closing(TimeoutScheduler(url, settings=make_settings(database_timeout="PT1S"))) as scheduler:
        manager = scheduler.campaigns
        calls: list[Callable[[], object]] = [
            lambda: scheduler.schedule(make_job()),
            lambda: manager.enroll("acme", "c-2", "k-2", WAIT_PLAN),
            lambda: manager.process_event("acme", "opened", message_id="m-1", event_id="e-1"),
            lambda: manager.process_contact_event("acme", "k-3", "opened", event_id="e-2"),
        ]
        with pytest.raises(UnknownCampaignError):
            manager.pause("acme", "unknown")  # the connection is there before commits begin to wait
        cluster.members[1].stop()
        for call in calls:
            with pytest.raises(DatabaseUnavailableError):
                call()
            # The server gives up waiting for the standby, and everybody sees what it has.
            ask(
                cluster.primary,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
            )
            with pytest.raises(DatabaseUnavailableError):
                call()

        cluster.replace_standby()
        for call in calls:
            call()
        assert len(scheduler.list_actions()) == 2
