"""What a command works with: the settings its global options choose, and the scheduler on their database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from scheduler.bootstrap import open_scheduler
from scheduler.cli.failures import naming_options
from scheduler.cli.output import write_message
from scheduler.domain.errors import InvalidInputError
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings
from scheduler.telemetry.log import LOGGER_NAME

DEFAULT_ENV_FILE: Final = Path(".env")
_MOST_WARNINGS: Final = 20


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stands before the command. They win over the environment, and that over the file."""

    database_url: str | None = None
    env_file: Path | None = None
    schema: str | None = None

    def settings(self) -> Settings:
        """The settings of this command line; raises InvalidInputError."""
        file = self._readable_env_file()
        chosen = {"database_url": self.database_url, "SCHEDULER_SCHEMA": self.schema}
        overrides = {name: value for name, value in chosen.items() if value is not None}
        return Settings.from_environment(file, **overrides)

    def _readable_env_file(self) -> Path:
        """The file to read, which may be missing only where nobody asked for it."""
        file = self.env_file or DEFAULT_ENV_FILE
        if self.env_file is None and not file.exists():
            return file
        try:
            file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
            raise InvalidInputError("--env-file", str(file), f"it can't be read: {reason}") from None
        return file


def settings_of(context: typer.Context) -> Settings:
    """The settings of this command line."""
    return global_options(context).settings()


def global_options(context: typer.Context) -> GlobalOptions:
    """What was given before the command."""
    options = context.obj
    return options if isinstance(options, GlobalOptions) else GlobalOptions()


def without_imports(settings: Settings) -> Settings:
    """The same without the application's own state manager and send handler: an operator's shell may lack them."""
    return settings.model_copy(update={"state_manager": None, "send_handler": "external"})


@contextmanager
def opened(context: typer.Context) -> Iterator[TimeoutScheduler]:
    """The scheduler on the configured database, for a command that fires nothing; faults are told by option."""
    settings = settings_of(context)
    with _warnings_shown(), naming_options(), closing(open_scheduler(without_imports(settings))) as timeout_scheduler:
        if settings.database_url is None:
            file = timeout_scheduler.database.engine.url.database
            write_message(f"warning: no database is configured (SCHEDULER_DATABASE_URL); using {file}")
        yield timeout_scheduler


class _Warnings(logging.Handler):
    """Shows the first warnings, and counts the rest: a file of a hundred thousand rows may cause as many."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        if self.count <= _MOST_WARNINGS:
            write_message(f"warning: {record.getMessage()}")


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """While this lasts, what the package logs as a warning or worse goes to standard error."""
    logger, handler = logging.getLogger(LOGGER_NAME), _Warnings()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if handler.count > _MOST_WARNINGS:
            write_message(f"warning: {handler.count - _MOST_WARNINGS} more warnings like these")
