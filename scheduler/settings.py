"""Settings: from arguments, the environment (`SCHEDULER_*`), systemd credentials and, for the daemon, `.env`.

Frozen, read once, checked before anything starts; the error names the setting, the value and what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.node import TimerDefaults
from scheduler.domain.timing import Duration, parse_duration

PREFIX: Final = "SCHEDULER_"
_NEVER_SHOWN: Final = ("url", "dsn", "token", "secret", "password")


def _to_timedelta(value: object) -> timedelta:
    duration = parse_duration("duration", value)
    if duration.months:
        raise InvalidInputError("duration", value, "use weeks, days, hours, minutes and seconds")
    return duration.exact


def _to_duration(value: object) -> Duration:
    return value if isinstance(value, Duration) else parse_duration("duration", value)


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise InvalidInputError("duration", value, "give more than nothing")
    return value


Span = Annotated[timedelta, BeforeValidator(_to_timedelta)]
PositiveSpan = Annotated[timedelta, BeforeValidator(lambda value: _positive(_to_timedelta(value)))]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PlanDuration = Annotated[Duration, BeforeValidator(_to_duration)]


class Settings(BaseSettings):
    """Every setting, with its default. Durations are ISO-8601 text in the environment, `timedelta` here."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,  # no field is JSON: a `Duration` would be taken for it
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        arbitrary_types_allowed=True,
    )

    database_url: SecretStr | None = Field(None, description="where everything is kept; default: an SQLite file")
    database_timeout: PositiveSpan = Field(
        timedelta(minutes=1),
        description="longest wait for an answer of the database, after which the connection is given up",
    )
    schema_name: str | None = Field(
        None, validation_alias=f"{PREFIX}SCHEMA", description="the PostgreSQL schema of the tables"
    )
    batch_size: int = Field(500, ge=1, le=10_000, description="most actions claimed and fired in one transaction")
    max_rate: Rate | None = Field(None, description="most actions fired per second, timeouts and sends each")
    max_rate_per_tenant: Rate | None = Field(None, description="the same for each tenant")
    workers: int = Field(2, ge=1, le=64, description="threads that fire timeouts, not counting one for what goes first")
    send_workers: int = Field(4, ge=1, le=256, description="threads that send")
    poll_interval: PositiveSpan = Field(timedelta(seconds=1), description="longest sleep of the scheduling loop")
    lease: PositiveSpan = Field(timedelta(minutes=1), description="how long a claim holds without a sign of life")
    max_attempts: int = Field(5, ge=1, le=1000, description="failed attempts before an action is parked as error")
    retry_base: PositiveSpan = Field(timedelta(seconds=2), description="delay after the first failed attempt")
    retry_max: PositiveSpan = Field(timedelta(minutes=10), description="longest delay between attempts")
    no_open_after: PlanDuration = Field(
        Duration(exact=timedelta(hours=72)), description="no_open where the plan names no delay"
    )
    no_click_after: PlanDuration = Field(
        Duration(exact=timedelta(hours=24)), description="no_click where the plan names no delay"
    )
    timeout_grace: Span = Field(timedelta(0), description="waited after a deadline for webhooks that come late")
    shutdown_timeout: Span = Field(timedelta(seconds=30), description="how long a stop waits for what is being fired")
    retention: PositiveSpan = Field(timedelta(days=30), description="how long finished campaigns and actions are kept")
    state_manager: str | None = Field(None, description="module:attribute of your own state manager")
    send_handler: str = Field("log", description="log, external, smtp, webhook, or module:callable")
    webhook_url: SecretStr | None = Field(None, description="where the webhook handler posts each send")
    webhook_secret: SecretStr | None = Field(None, description="what its requests are signed with")
    webhook_timeout: PositiveSpan = Field(timedelta(seconds=10), description="longest time for one request")
    smtp_host: str | None = Field(None, description="the mail server of the smtp handler")
    smtp_port: int = Field(587, ge=1, le=65535, description="the port of the mail server")
    smtp_tls: Literal["starttls", "tls", "none"] = Field("starttls", description="how the connection is encrypted")
    smtp_username: str | None = Field(None, description="who logs in at the mail server; nobody without it")
    smtp_password: SecretStr | None = Field(None, description="the password for it")
    smtp_from: str | None = Field(None, description="the sender of every mail")
    smtp_timeout: PositiveSpan = Field(timedelta(seconds=10), description="longest time for one mail")
    instance_name: str | None = Field(None, description="how this daemon is called in logs; default: the host's name")
    sentry_dsn: SecretStr | None = Field(None, description="where errors are reported; nothing is without it")
    sentry_environment: str | None = Field(None, description="production, staging, ...")
    http_host: str = Field("127.0.0.1", description="where health and metrics listen")
    http_port: int = Field(8790, ge=0, le=65535, description="the port of health and metrics; 0: any free one")
    http_token: SecretStr | None = Field(None, description="needed for any other host than loopback")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="the least that is logged")
    log_format: Literal["console", "json"] = Field("console", description="for people, or for machines")
    alert_consecutive_failures: int = Field(5, ge=1, description="failed attempts in a row that raise an alert")
    alert_backlog: int = Field(1000, ge=1, description="due actions that raise an alert when not shrinking")
    alert_oldest_due: PositiveSpan = Field(timedelta(minutes=5), description="age of the oldest due that does")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _first_fault(error) from None

    @property
    def timer_defaults(self) -> TimerDefaults:
        """What a plan's timers fall back to."""
        return TimerDefaults(no_open=self.no_open_after, no_click=self.no_click_after)

    @classmethod
    def from_environment(cls, env_file: Path | None = None, **overrides: Any) -> Self:
        """Settings of the environment, of systemd credentials and of `env_file`; the earlier wins.

        An unknown `SCHEDULER_*` is an error, anything else in the file is ignored.
        """
        found: dict[str, str] = {}
        if env_file is not None and env_file.is_file():
            found.update({name: value or "" for name, value in dotenv_values(env_file).items()})
        found.update(_credentials())
        found.update(os.environ)
        return cls(**{**_known(found, cls), **overrides})


def _credentials() -> dict[str, str]:
    """Files that systemd's LoadCredential put into `$CREDENTIALS_DIRECTORY`, named after settings.

    Others may be there, for whoever else runs in the unit; a name that means to be a setting and is none is an error.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return {}
    names = {variable_of(name) for name in Settings.model_fields}
    found: dict[str, Path] = {}
    for file in _files_of(Path(directory)):
        name = _as_variable(file.name)
        if name in found:
            raise InvalidInputError("credentials", f"{found[name].name} and {file.name}", f"give one of them: {name}")
        if name in names:
            found[name] = file
        elif file.name.upper().startswith(PREFIX):
            raise _unknown(name, "(not shown)")
    return {name: _read_credential(file) for name, file in found.items()}


def _files_of(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise InvalidInputError(
            "CREDENTIALS_DIRECTORY", str(directory), f"it can't be read: {error.strerror}"
        ) from None


def _read_credential(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise InvalidInputError("credential", str(file), f"it can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError("credential", str(file), "it isn't UTF-8 text") from None


def _as_variable(file_name: str) -> str:
    name = file_name.upper().replace("-", "_").replace(".", "_")
    return name if name.startswith(PREFIX) else PREFIX + name


def variable_of(field_name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + ("SCHEMA" if field_name == "schema_name" else field_name.upper())


def _known(found: Mapping[str, str], settings: type[Settings]) -> dict[str, str]:
    fields = {variable_of(name): name for name in settings.model_fields}
    given = {name.upper(): value for name, value in found.items() if name.upper().startswith(PREFIX)}
    for name, value in given.items():
        if name not in fields:
            raise _unknown(name, value)
    aliases = {"schema_name": f"{PREFIX}SCHEMA"}
    return {aliases.get(fields[name], fields[name]): value for name, value in given.items() if value != ""}


def _unknown(name: str, value: str) -> InvalidInputError:
    known = ", ".join(sorted(map(variable_of, Settings.model_fields)))
    return InvalidInputError(name, value, f"no such setting; there are {known}")


def _first_fault(error: ValidationError) -> InvalidInputError:
    fault = error.errors()[0]
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    cause = fault.get("ctx", {}).get("error")
    remedy = cause.remedy if isinstance(cause, InvalidInputError) else fault["msg"]
    shown = "(not shown)" if any(word in name.lower() for word in _NEVER_SHOWN) else fault.get("input")
    return InvalidInputError(name if name.startswith(PREFIX) else variable_of(name), shown, remedy)
