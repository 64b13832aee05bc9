"""Settings that name Python objects: `module:attribute`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Final

from scheduler.domain.errors import InvalidInputError
from scheduler.domain.sending import SendHandler
from scheduler.service.log_handler import LogSendHandler
from scheduler.service.state_manager import StateManager

EXTERNAL: Final = "external"
_LATER: Final = ("smtp", "webhook")


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


def load_send_handler(setting: str, given: object) -> SendHandler | None:
    """A send handler from `log`, `external` (None: the application sends), a callable, or `module:callable`."""
    if given == "log":
        return LogSendHandler()
    if given == EXTERNAL:
        return None
    if given in _LATER:
        raise InvalidInputError(setting, given, "not in this version yet: use log, external or module:callable")
    found = load_object(setting, given) if isinstance(given, str) else given
    if inspect.isclass(found):
        found = found()
    if not callable(found):
        raise InvalidInputError(setting, given, "give log, external, or a callable that takes a SendRequest")
    return found  # type: ignore[no-any-return]
