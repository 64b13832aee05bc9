"""How a due action ended: the closed list of outcomes, and the value a state manager answers with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

TRANSITIONED: Final = "transitioned"
STALE: Final = "stale"
EVENT_HAPPENED: Final = "event_happened"
CAMPAIGN_INACTIVE: Final = "campaign_inactive"
NO_TRANSITION: Final = "no_transition"
UNKNOWN_CAMPAIGN: Final = "unknown_campaign"
SENT: Final = "sent"
FAILED: Final = "failed"
# Of a canceled action for which nobody gave a reason.
CANCELED_BY_HAND: Final = "canceled by hand"
GIVEN_UP_BY_HAND: Final = "given up by hand"

PAUSED: Final = "paused"
DEFERRED: Final = "deferred"
BUSY: Final = "busy"
GONE: Final = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one due action.

    `name` is one of

    * a final outcome (`transitioned`, `stale`, `event_happened`, `campaign_inactive`, `no_transition`,
      `unknown_campaign`, or a short word of a custom state manager): the action is `completed`;
    * `paused`: it becomes `paused`, unfinished, keeping its `run_at`;
    * `deferred`: it goes back to `pending` and is due again at `run_at`; no attempt is counted;
    * `busy`: its campaign is locked by somebody else, or has just been moved by another timeout of the batch; it goes
      back to `pending`, due at `run_at`, else after a short delay; no attempt is counted.
    """

    name: str
    run_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether the action is finished with this outcome."""
        return self.name not in (PAUSED, DEFERRED, BUSY)
