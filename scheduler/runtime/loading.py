"""Settings that name Python objects: `module:attribute`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Final

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.sending import SendHandler
from scheduler.service.handlers.log import LogSendHandler
from scheduler.service.handlers.smtp import SmtpSendHandler
from scheduler.service.state_manager import StateManager
from scheduler.settings import Settings

EXTERNAL: Final = "external"


def load_object(setting: str, reference: str) -> Any:
    """The object `module:attribute` names; raises InvalidInputError, saying what is missing."""
    module_name, separator, attribute = reference.partition(":")
    if not separator or not module_name or not attribute:
        raise InvalidInputError(setting, reference, "write module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise InvalidInputError(setting, reference, f"the module can't be imported: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidInputError(setting, reference, f"{module_name} has no {name!r}")
        found = getattr(found, name)
    return found


def load_state_manager(setting: str, given: object) -> StateManager:
    """A state manager from an object, a class without arguments, or `module:attribute`."""
    found = load_object(setting, given) if isinstance(given, str) else given
    if inspect.isclass(found):
        found = found()
    if not isinstance(found, StateManager):
        raise InvalidInputError(setting, given, "give an object with process(connection, jobs)")
    return found


def load_send_handler(setting: str, given: object, settings: Settings) -> SendHandler | None:
    """A send handler from `log`, `external` (None: the application sends), `smtp`, `webhook`, a callable, or its name.

    Raises InvalidInputError; for `smtp` and `webhook` it names the setting of theirs that is missing or unusable.
    """
    if given == EXTERNAL:
        return None
    if given == "log":
        return LogSendHandler()
    if given == "smtp":
        return SmtpSendHandler(settings)
    if given == "webhook":
        from scheduler.service.handlers.webhook import WebhookSendHandler  # noqa: PLC0415 - urllib3, for nobody else

        return WebhookSendHandler(settings)
    found = load_object(setting, given) if isinstance(given, str) else given
    if inspect.isclass(found):
        found = found()
    if not callable(found):
        raise InvalidInputError(
            setting, given, "give log, external, smtp, webhook, or a callable that takes a SendRequest"
        )
    return found  # type: ignore[no-any-return]
