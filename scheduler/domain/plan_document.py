"""A plan's document as plain JSON: read strictly, written in one canonical form, and hashed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from scheduler.domain.errors import InvalidPlanError, PlanFault

LARGEST_DOCUMENT: Final = 1024 * 1024  # bytes
DEEPEST_NESTING: Final = 32
LARGEST_INTEGER: Final = 2**63 - 1

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read_document(source: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """A copy of the document in plain dicts, lists, text, numbers, booleans and None.

    Raises `InvalidPlanError` with every value that JSON or PostgreSQL can't hold, and every repeated key.
    """
    loaded = _load(source) if isinstance(source, str | bytes) else source
    if not isinstance(loaded, Mapping):
        _refuse(loaded, "a plan is a JSON object with version, startNodeId and nodes")
    copier = _Copier()
    document = copier.copy(loaded, "$", 0)
    if copier.faults or not isinstance(document, dict):
        raise InvalidPlanError(copier.faults)
    if len(canonical_json(document).encode()) > LARGEST_DOCUMENT:
        _refuse_size()
    return document


def canonical_json(document: Mapping[str, Any]) -> str:
    """The document with sorted keys and without white space: equal text for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_of(canonical: str) -> str:
    """A plan's address: the SHA-256 of its canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def child_path(path: str, key: str) -> str:
    """The JSON path of a member: `$.nodes`, or `$["a.b"]` where the key is no plain word."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"


class _Object(dict[str, Any]):
    """A JSON object as read, with the keys that stood in it more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated: list[str] = []
        for key, _ in pairs:
            (self.repeated.append if key in seen else seen.add)(key)


def _load(source: str | bytes) -> object:
    if len(source) > LARGEST_DOCUMENT:
        _refuse_size()
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source.removeprefix("\ufeff")
        return json.loads(text, object_pairs_hook=_Object)
    except UnicodeDecodeError as error:
        _refuse(source[error.start : error.start + 20], "the document must be UTF-8 text")
    except json.JSONDecodeError as error:
        excerpt = error.doc[max(error.pos - 20, 0) : error.pos + 20]
        _refuse(excerpt, f"it isn't JSON: {error.msg}, at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse(source[:40], f"it is nested more than {DEEPEST_NESTING} levels deep")
    except ValueError:  # a number of more digits than Python reads
        _refuse(source[:40], f"it has a number beyond {LARGEST_INTEGER}; write it as text")


def _refuse(value: object, remedy: str) -> NoReturn:
    raise InvalidPlanError([PlanFault("$", value, remedy)])


def _refuse_size() -> NoReturn:
    _refuse("(the document)", f"it is larger than {LARGEST_DOCUMENT} bytes")


class _Copier:
    """Copies a JSON value, collecting what is wrong with it; gives up beyond the largest document."""

    def __init__(self) -> None:
        self.faults: list[PlanFault] = []
        self._characters = -1  # no value takes fewer than two: itself and a comma, the last one excepted

    def copy(self, value: object, path: str, depth: int) -> object:
        self._characters += 2
        if self._characters > LARGEST_DOCUMENT:
            _refuse_size()
        if depth > DEEPEST_NESTING:
            return self._fault(path, value, f"it is nested more than {DEEPEST_NESTING} levels deep")
        if isinstance(value, Mapping):
            return self._copy_object(value, path, depth)
        if isinstance(value, list | tuple):
            return [self.copy(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        return self._copy_scalar(value, path)

    def _copy_object(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, object]:
        for key in getattr(value, "repeated", ()):
            self._fault(child_path(path, key), key, "this key stands more than once in its object; keep one")
        copied: dict[str, object] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                self._fault(path, key, "the keys of an object must be text")
                continue
            plain_key = self._copy_text(key, path)
            copied[plain_key] = self.copy(item, child_path(path, plain_key), depth + 1)
        return copied

    def _copy_scalar(self, value: object, path: str) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._copy_text(value, path)
        if isinstance(value, int):
            too_large = abs(value) > LARGEST_INTEGER
            remedy = f"the number is beyond {LARGEST_INTEGER}; write it as text"
            return self._fault(path, "(a large number)", remedy) if too_large else int(value)
        if isinstance(value, float):
            finite = math.isfinite(value)
            return float(value) if finite else self._fault(path, value, "JSON has no NaN and no infinity")
        return self._fault(path, value, "it must be JSON: text, a number, true, false, null, a list or an object")

    def _copy_text(self, value: str, path: str) -> str:
        self._characters += len(value)
        if _UNSTORABLE.search(value):
            self._fault(path, value, "the text holds a NUL character or half a surrogate pair; remove it")
        return str.__str__(value)

    def _fault(self, path: str, value: object, remedy: str) -> object:
        self.faults.append(PlanFault(path, value, remedy))
        return None
