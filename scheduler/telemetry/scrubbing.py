"""What nobody should read is taken out of what goes to Sentry, and of errors in the log: secrets, mail addresses.

Done to every text of a report, however deep: an exception's words come from drivers and from the application's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REMOVED: Final = "[removed]"
_DEEPEST: Final = 12
_LONGEST_TEXT: Final = 10_000
# Shorter ones would be found within words.
_SHORTEST_SECRET: Final = 4

_SECRET: Final = r"passw(?:or)?d|pwd|secret|token|api_?key|access_?key|credential|authorization|signature|dsn"  # noqa: S105 - names, no secret
# `address` and `variables` are a contact's; `to`, `email` and the like are how others call it.
_PERSONAL: Final = r"address|e?_?mail|recipient|phone|variables|first_?name|last_?name|contact"
_PRIVATE_NAME: Final = re.compile(rf"(?i)(?:{_SECRET}|{_PERSONAL})s?$")
# Fields of our own that are ids, or the report's own structure.
_PUBLIC_NAMES: Final = frozenset({"contact_id", "dedupe_key"})

_PATTERNS: Final = (
    # scheme://user:password@host, whatever scheme.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@'\"]+@"), rf"\1{REMOVED}@"),
    # The query and the fragment of a URL.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?#'\"]*)[?#][^\s'\"]+"), rf"\1?{REMOVED}"),
    # password=..., "token": "...", Authorization: Bearer ...
    (
        re.compile(
            rf"(?i)\b([\w.-]*(?:{_SECRET})[\"']?\s*[=:]\s*)(?:bearer\s+|basic\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&)}}]+)"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), rf"\1 {REMOVED}"),
    # A mail address.
    (re.compile(r"[^\s<>\"'(),:;@\[\]]+@[^\s<>\"'(),:;@\[\]]+\.[^\W\d_][\w-]+"), REMOVED),
)


class Scrubber:
    """Removes these secrets wherever they stand, and what looks like one. Thread-safe."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        # The longest first: one may be part of another.
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without them; a very long one is cut."""
        text = text[:_LONGEST_TEXT]
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same of whatever can be written as JSON; what stands under a private name goes as a whole."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth >= _DEEPEST:
            return REMOVED
        if isinstance(value, Mapping):
            members = value.items()
            return {self.text(str(name)): self._member(name, member, depth) for name, member in members}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(member, depth + 1) for member in value]
        return self.text(str(value))

    def _member(self, name: Any, member: Any, depth: int) -> Any:
        is_private = isinstance(name, str) and name not in _PUBLIC_NAMES and _PRIVATE_NAME.search(name)
        if is_private and not isinstance(member, (bool, int, float, type(None))):
            return REMOVED
        return self.value(member, depth + 1)
