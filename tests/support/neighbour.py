"""An application beside a daemon: takes in events, schedules, cancels, and says in a line of JSON what came of it.

It says that it is ready first, and begins with a line on its standard input.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from scheduler import TimeoutScheduler
from tests.support.scheduling import FAR_AHEAD, make_job, make_settings


def main(url: str, campaigns: str, seed: str) -> None:
    """One event for each campaign, in an order of its own, and a timeout scheduled and canceled beside each."""
    names = [f"c-{number}" for number in range(int(campaigns))]
    random.Random(seed).shuffle(names)  # noqa: S311 - an order, not a secret
    outcomes: Counter[str] = Counter()
    with closing(TimeoutScheduler(url, settings=make_settings())) as scheduler:
        scheduler.pending()
        say({"ready": seed})
        sys.stdin.readline()
        for name in names:
            result = scheduler.campaigns.process_event("acme", "opened", campaign_id=name)
            outcomes[result.outcome] += 1
            key = scheduler.schedule(make_job(campaign_id=f"{seed}-{name}", scheduled_at=FAR_AHEAD))
            outcomes[f"canceled: {scheduler.cancel(key)}"] += 1
    say(outcomes)


def say(facts: Mapping[str, Any]) -> None:
    """A line that is there at once."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
