"""Structured log lines, through one function.

In a host application they go to the standard logger `timeout_scheduler` as logfmt text, and nothing is configured.
Only the daemon and the command call `configure_logging`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import structlog

from scheduler.telemetry.vocabulary import EVENTS

LOGGER_NAME: Final = "timeout_scheduler"

Renderer = Callable[[Any, str, MutableMapping[str, Any]], Any]

_logger = logging.getLogger(LOGGER_NAME)
_logger.addHandler(logging.NullHandler())
_logfmt: Renderer = structlog.processors.LogfmtRenderer(key_order=["event"], drop_missing=True, bool_as_flag=False)


class _Rendering:
    """How lines look; logfmt until the daemon says otherwise."""

    renderer: Renderer = _logfmt
    stamp: Renderer | None = None


def emit(event: str, **fields: Any) -> None:
    """Log one event of the vocabulary. Fields that are None are left out; none may hold contact data or a secret."""
    level = EVENTS[event].level
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", _render(event, level, fields))


def is_logged(event: str) -> bool:
    """Whether anybody reads lines of this event: ask before building many of them."""
    return _logger.isEnabledFor(EVENTS[event].level)


def _render(event: str, level: int, fields: dict[str, Any]) -> str:
    line: MutableMapping[str, Any] = {"event": event}
    if _Rendering.stamp is not None:
        line["level"] = logging.getLevelName(level).lower()
        _Rendering.stamp(None, "", line)
    line.update((name, value) for name, value in fields.items() if value is not None)
    return str(_Rendering.renderer(None, "", line))


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every line of the process to `stream` (standard error): for people, or as JSON for machines."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    if log_format == "json":
        _Rendering.renderer = structlog.processors.JSONRenderer(sort_keys=False)
    else:
        _Rendering.renderer = structlog.dev.ConsoleRenderer(colors=target.isatty(), pad_event_to=24)
    _Rendering.stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    handler.setFormatter(_OneFormat())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # APScheduler's own lines, one per job added and removed, say nothing that ours don't.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its lines show the webhook's path and query, which may hold a token.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class _OneFormat(logging.Formatter):
    """Our lines are rendered already; those of libraries get the same form."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == LOGGER_NAME:
            return record.getMessage()
        line: MutableMapping[str, Any] = {"event": record.getMessage(), "level": record.levelname.lower()}
        if _Rendering.stamp is not None:
            _Rendering.stamp(None, "", line)
        line["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return str(_Rendering.renderer(None, "", line))
