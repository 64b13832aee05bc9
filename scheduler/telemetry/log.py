"""Structured log lines, through one function.

In a host application they go to the standard logger `timeout_scheduler` as logfmt text, and nothing is configured.
Only the daemon and the command call `configure_logging`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TextIO

import structlog

from scheduler.telemetry.journal import priorities_of
from scheduler.telemetry.line_handler import LineHandler
from scheduler.telemetry.scrubbing import Scrubber
from scheduler.telemetry.vocabulary import EVENTS

LOGGER_NAME: Final = "timeout_scheduler"

# Quotes within a JSON text are escaped, so that this is no part of a field that is text.
_NEXT_LINE: Final = '}, {"event": '

_Line = dict[str, Any]
Renderer = Callable[[Any, str, MutableMapping[str, Any]], Any]

# The words of drivers, of mail servers and of the application's code.
_SCRUBBER: Final = Scrubber()

_logger = logging.getLogger(LOGGER_NAME)
_logger.addHandler(logging.NullHandler())
_logfmt: Renderer = structlog.processors.LogfmtRenderer(key_order=["event"], drop_missing=True, bool_as_flag=False)


class _Rendering:
    """How lines look; logfmt until the daemon says otherwise."""

    renderer: Renderer = _logfmt
    stamp: Renderer | None = None
    # What lines of a level begin with, by its name.
    prefixes: Mapping[str, str] = MappingProxyType({})


def emit(event: str, **fields: Any) -> None:
    """Log one event of the vocabulary. Fields that are None are left out; none may hold contact data or a secret.

    What looks like one is taken out of `error`.
    """
    emit_all(((event, fields),))


def emit_all(told: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Log many events with their fields, as `emit` would one after the other; one instant stands on all of them.

    Where nobody but the daemon's own handler reads, the lines are rendered and written together, and no records made.
    """
    lines = _lines(told)
    if not lines:
        return
    handler = _only_handler()
    if handler is not None:
        handler.write_together(_render_together([line for _, line in lines]))
        return
    for level, line in lines:
        _logger.log(level, "%s", _render(line))


def is_logged(event: str) -> bool:
    """Whether anybody reads lines of this event: ask before building many of them."""
    return _logger.isEnabledFor(EVENTS[event].level)


def _lines(told: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[int, _Line]]:
    """What anybody reads of it, with its level."""
    instant: _Line = {}
    beginnings: dict[str, tuple[int, _Line] | None] = {}
    lines = []
    for event, fields in told:
        if event not in beginnings:
            beginnings[event] = _beginning(event, instant)
        beginning = beginnings[event]
        if beginning is None:
            continue
        level, line = beginning[0], {**beginning[1], **fields}
        if None in fields.values():
            line = {name: value for name, value in line.items() if value is not None}
        if "error" in line:
            line["error"] = _SCRUBBER.text(str(line["error"]))
        lines.append((level, line))
    return lines


def _beginning(event: str, instant: _Line) -> tuple[int, _Line] | None:
    """Level and first fields of every line of this event, None where nobody reads it; fills in `instant` once."""
    level = EVENTS[event].level
    if not _logger.isEnabledFor(level):
        return None
    if _Rendering.stamp is None:
        return level, {"event": event}
    if not instant:
        _Rendering.stamp(None, "", instant)
    return level, {"event": event, "level": logging.getLevelName(level).lower(), **instant}


def _render(line: MutableMapping[str, Any]) -> str:
    return _prefix(line) + str(_Rendering.renderer(None, "", line))


def _prefix(line: Mapping[str, Any]) -> str:
    return _Rendering.prefixes.get(line.get("level", ""), "")


def _render_together(lines: Sequence[_Line]) -> str:
    """The text of all lines, each with its end."""
    if isinstance(_Rendering.renderer, structlog.processors.JSONRenderer):
        # One call for one JSON array, cut where a line follows a line; that text may also stand within a line.
        array = str(_Rendering.renderer(None, "", lines))  # type: ignore[arg-type]
        prefixes = {_prefix(line) for line in lines}
        if array.count(_NEXT_LINE) == len(lines) - 1 and len(prefixes) == 1:
            (prefix,) = prefixes
            return prefix + array[1:-1].replace(_NEXT_LINE, f'}}\n{prefix}{{"event": ') + "\n"
    return "".join([_render(line) + "\n" for line in lines])


def _only_handler() -> LineHandler | None:
    """The daemon's handler, if what it writes is all that becomes of a line: nobody else listens, nothing filters."""
    handlers = [
        one for one in (*_logger.handlers, *logging.getLogger().handlers) if type(one) is not logging.NullHandler
    ]
    if len(handlers) != 1 or not _logger.propagate or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    handler = handlers[0]
    if not isinstance(handler, LineHandler) or not isinstance(handler.formatter, _OneFormat):
        return None
    is_plain = not _logger.filters and not handler.filters and handler.level == logging.NOTSET
    return handler if is_plain else None


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every line of the process to `stream` (standard error): for people, or as JSON for machines.

    Where that leads to systemd's journal each line has its priority.
    """
    target = stream or sys.stderr
    handler = LineHandler(target)
    if log_format == "json":
        _Rendering.renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    else:
        # The width has another name in older versions of structlog.
        _Rendering.renderer = structlog.dev.ConsoleRenderer(24, colors=target.isatty())
    _Rendering.stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    _Rendering.prefixes = priorities_of(target)
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
            line["error"] = _SCRUBBER.text(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
        return _render(line)


def _to_json(value: Any, *, default: Callable[[Any], Any]) -> str:
    """As json.dumps, which makes an encoder each time."""
    return _encoder(default).encode(value)


@cache
def _encoder(default: Callable[[Any], Any]) -> json.JSONEncoder:
    return json.JSONEncoder(default=default, check_circular=False)
