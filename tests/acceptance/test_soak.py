"""A short soak: every fault there is at least once, on two daemons and a cluster, and nothing is lost or doubled."""

from datetime import timedelta
from typing import Final

import pytest

from tests.soak.soak import Options, soak
from tests.support.cluster import why_no_cluster

SHORT: Final = Options(seconds=5, seed=7, daemons=2, lease=timedelta(seconds=2), rate=15, pace=0.1)


def test_a_short_soak_with_every_fault_loses_and_doubles_nothing() -> None:
    """Without libfaketime the clocks aren't stepped, and the report says so."""
    missing = why_no_cluster()
    if missing:
        pytest.skip(missing)
    news: list[str] = []

    report = soak(SHORT, news.append)

    assert report.is_good, report.text()
    assert all(report.faults.values()), report.text()
    assert report.audit.counts["timeouts fired"] > 0, report.text()
