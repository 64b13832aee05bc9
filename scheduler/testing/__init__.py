"""For your tests: a clock you set, and campaigns rehearsed on it.

pytest fixtures are in `scheduler.testing.fixtures`.
"""

from scheduler.testing.clock import SettableClock
from scheduler.testing.rehearsal import CampaignRehearsal

__all__ = ["CampaignRehearsal", "SettableClock"]
