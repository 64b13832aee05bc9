"""What a running daemon does with settings that were changed: few hold at once, of the others it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from scheduler.domain.errors import SchedulerError
from scheduler.settings import Settings, variable_of
from scheduler.telemetry.log import emit

Reread = Callable[[], Settings]

# What nothing but the next line of the log depends on. Of everything else somebody has a copy, or a thread or a
# connection was made with it.
_AT_ONCE: Final = frozenset({"log_level", "log_format"})


class Reloading:
    """Reads the settings anew when told to. A process's environment is what it was at the start: only files change."""

    def __init__(self, settings: Settings, reread: Reread, apply: Callable[[Settings], None]) -> None:
        self._settings = settings
        self._reread = reread
        self._apply = apply

    def reload(self) -> None:
        """Apply what can be applied, and log what can't; settings that are unusable change nothing. Never raises."""
        try:
            new = self._reread()
        except SchedulerError as error:
            emit("daemon.reload_failed", error=str(error))
            return
        changed = [name for name in type(new).model_fields if getattr(new, name) != getattr(self._settings, name)]
        at_once = [name for name in changed if name in _AT_ONCE]
        self._settings = self._settings.model_copy(update={name: getattr(new, name) for name in at_once})
        self._apply(self._settings)
        emit("daemon.reloaded", changed=", ".join(map(variable_of, at_once)) or None)
        waiting = [variable_of(name) for name in changed if name not in _AT_ONCE]
        if waiting:
            emit("daemon.restart_needed", changed=", ".join(waiting))
