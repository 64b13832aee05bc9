"""Who claims: one identity per process start, never reused, so that a claim can't be mistaken for another's."""

from __future__ import annotations

import os
import socket
from uuid import uuid4


class Owner:
    """The identity claims are made with. A forked child gets its own through `renew`."""

    def __init__(self, instance_name: str | None = None) -> None:
        self.instance_name = instance_name or socket.gethostname()
        self.renew()

    def renew(self) -> None:
        """Become somebody else: what was claimed before isn't ours any more."""
        self.process_id = os.getpid()
        self.id = f"{self.instance_name}:{self.process_id}:{uuid4().hex[:12]}"

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked since."""
        return self.process_id != os.getpid()
