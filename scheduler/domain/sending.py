"""What a send handler is given and what it answers; subject and body with the contact's variables filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from scheduler.domain.errors import PermanentSendError

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """One mail to send. `dedupe_key` is the idempotency key: the same mail may be asked for more than once."""

    dedupe_key: str
    tenant_id: str
    campaign_id: str
    contact_id: str
    node_id: str
    node_visit: int
    channel: str
    address: str | None
    subject: str | None
    body: str | None
    variables: Mapping[str, Any] = field(default_factory=dict)
    planned_at: datetime
    attempt: int = 1

    @property
    def personal_texts(self) -> tuple[str, ...]:
        """What it says of the contact, for whoever has to keep that out of a text: address and variables."""
        return tuple(_texts([self.address, *self.variables.values()]))


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _texts(value)
        elif value is not None and not isinstance(value, bool):
            yield str(value)


@dataclass(frozen=True, slots=True)
class SendResult:
    """What came of it: the provider's message id where there is one, and when it went out (None: just now)."""

    message_id: str | None = None
    sent_at: datetime | None = None


class SendHandler(Protocol):
    """Sends one mail, outside of any transaction, in one of several threads.

    May raise `RetryLater(after)` or `PermanentSendError`; anything else it raises is retried with backoff.
    """

    def __call__(self, request: SendRequest, /) -> SendResult | None:
        """Send, and say what came of it."""


def fill_in(text: str | None, variables: Mapping[str, Any]) -> str | None:
    """`{{name}}` replaced by the variable's value; a missing one raises PermanentSendError."""

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if variables.get(name) is None:
            raise PermanentSendError(f"the contact has no variable {name!r}, which the text needs")
        return str(variables[name])

    return None if text is None else _VARIABLE.sub(value_of, text)
