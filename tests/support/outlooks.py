"""What a look at the table may tell."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from scheduler.store.outlook import Outlook


def outlook(now: datetime, timeouts: Sequence[datetime], sends: Sequence[datetime] = (), **more: Any) -> Outlook:
    """These are due next; nothing is claimed, and nobody has counted yet."""
    known = {"later_timeout": None, "later_send": None, "is_anything_claimed": False, "counted_at": None, "real": now}
    return Outlook(now, timeouts, sends, **{**known, **more})
