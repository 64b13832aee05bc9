"""Rows of a file as enrolments: defaults filled in, every field checked, no campaign twice with different contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

from scheduler.cli.plan_references import PlanReferences
from scheduler.cli.row_files import Row
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.plan import CampaignPlan
from scheduler.service.enrolment import Enrolment, parse_contact

_CONTACT: Final = ("address", "timezone")
_FIELDS: Final = ("tenant_id", "campaign_id", "contact_id", "start_at")
_REQUIRED: Final = {
    "tenant_id": "it is missing: give it in the row, or --tenant for all rows",
    "plan": "it is missing: give it in the row (JSON Lines), or --plan for all rows",
    "campaign_id": "it is missing",
    "contact_id": "it is missing",
}


class EnrolmentRows:
    """Makes enrolments of rows, and remembers what each campaign was enrolled with: some 200 bytes a row."""

    def __init__(self, plans: PlanReferences, defaults: Mapping[str, Any], *, is_csv: bool) -> None:
        self._plans = plans
        self._defaults = {name: value for name, value in defaults.items() if value is not None}
        self._is_csv = is_csv
        self._first: dict[bytes, tuple[int, bytes]] = {}

    def parse(self, row: Row) -> Enrolment:
        """The enrolment of a row; raises InvalidInputError naming the field."""
        given = _from_csv(row.values) if self._is_csv else row.values
        values = {**self._defaults, **{name: value for name, value in given.items() if value is not None}}
        for name, remedy in _REQUIRED.items():
            if values.get(name) is None:
                raise InvalidInputError(name, None, remedy)
        _require_instant_text(values.get("start_at"))
        enrolment = Enrolment.of(values)
        parse_contact(enrolment.tenant_id, enrolment.contact_id, enrolment.contact)
        plan = self._plans.resolve(enrolment.tenant_id, enrolment.plan)
        self._require_same(row.line, enrolment, plan)
        return replace(enrolment, plan=plan)

    def _require_same(self, line: int, enrolment: Enrolment, plan: CampaignPlan) -> None:
        """A campaign that stands twice in a file must be the same both times: neither is the right one."""
        contents = _digest(enrolment.contact_id, plan.hash)
        first_line, first = self._first.setdefault(_digest(*enrolment.key), (line, contents))
        if first != contents:
            raise InvalidInputError(
                "campaign_id",
                enrolment.campaign_id,
                f"line {first_line} has it with another contact or plan; give each campaign an id of its own",
            )


def _from_csv(values: Mapping[str, str]) -> dict[str, Any]:
    """Columns as the fields of an enrolment: those that are none are variables."""
    contact: dict[str, Any] = {name: values[name] for name in _CONTACT if name in values}
    variables = {name: value for name, value in values.items() if name not in (*_FIELDS, *_CONTACT)}
    if variables:
        contact["variables"] = variables
    return {**{name: values[name] for name in _FIELDS if name in values}, "contact": contact or None}


def _require_instant_text(value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidInputError("start_at", value, "write an instant such as 2026-03-02T12:00:00Z")


def _digest(*parts: str) -> bytes:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
