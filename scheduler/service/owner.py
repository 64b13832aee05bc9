"""Who claims: one identity per process start, never reused, so that a claim can't be mistaken for another's."""

from __future__ import annotations

import os
import socket
from uuid import uuid4

from scheduler.service.process_mark import mark_of


class Owner:
    """The identity claims are made with. A forked child gets its own through `renew`.

    `process_mark` tells this start of this process from every other one; None where the system doesn't say.
    """

    def __init__(self, instance_name: str | None = None) -> None:
        self.instance_name = instance_name or socket.gethostname()
        self.renew()

    def renew(self) -> None:
        """Become somebody else: what was claimed before isn't ours any more."""
        self.process_id = os.getpid()
        self.process_mark = mark_of(self.process_id)
        self.id = f"{self.instance_name}:{self.process_id}:{uuid4().hex[:12]}"
