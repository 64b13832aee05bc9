"""Plans as operators name them: a stored plan's hash, the first digits of it, or a file."""

from __future__ import annotations

import re
from typing import Final

from scheduler.domain.errors import InvalidInputError, InvalidPlanError
from scheduler.domain.plan import CampaignPlan
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

_DIGITS: Final = re.compile("[0-9a-f]{8,64}")
_FEWEST: Final = "of a hash give 8 digits or more"


class StoredPlans:
    """Looks plans up in the database, those of one tenant or of all, and in files."""

    def __init__(self, timeout_scheduler: TimeoutScheduler, tenant_id: str | None) -> None:
        self._timeout_scheduler = timeout_scheduler
        self._tenant_id = tenant_id

    def tenants_with(self, argument: str, reference: str) -> tuple[str, list[str]]:
        """The hash of a plan, and the tenants that have it stored. Raises InvalidInputError where nobody has."""
        found = self._find(argument, reference)
        if not found:
            plan = self._read(argument, reference)
            found = self._like(plan.hash)
            if not found:
                whose = "no tenant has" if self._tenant_id is None else f"tenant {self._tenant_id!r} hasn't"
                raise InvalidInputError(argument, reference, f"{whose} stored this plan (hash {plan.hash})")
        return found[0][1], [tenant for tenant, _ in found]

    def plan(self, argument: str, reference: str) -> CampaignPlan:
        """A plan that is stored, or that of a file."""
        found = self._find(argument, reference)
        if not found:
            return self._read(argument, reference)
        with self._timeout_scheduler.database.reading() as transaction:
            return self._timeout_scheduler.stores.plans.load(transaction, found[:1])[found[0]]

    def _find(self, argument: str, reference: str) -> list[tuple[str, str]]:
        """The stored plans of that hash, by tenant; none where it is no hash. Raises where it means several plans."""
        if not _DIGITS.fullmatch(reference):
            return []
        found = self._like(reference)
        hashes = sorted({plan_hash for _, plan_hash in found})
        if len(hashes) > 1:
            raise InvalidInputError(argument, reference, f"it is the beginning of several: {', '.join(hashes)}")
        return found

    def _like(self, digits: str) -> list[tuple[str, str]]:
        with self._timeout_scheduler.database.reading() as transaction:
            return self._timeout_scheduler.stores.migrating.plans_like(transaction, digits, self._tenant_id)

    def _read(self, argument: str, reference: str) -> CampaignPlan:
        try:
            return CampaignPlan.from_file(reference, self._timeout_scheduler.settings.timer_defaults)
        except InvalidPlanError:
            raise
        except InvalidInputError as error:
            raise InvalidInputError(argument, reference, self._remedy(reference, error.remedy)) from None

    def _remedy(self, reference: str, reason: str) -> str:
        if not _DIGITS.fullmatch(reference):
            return f"as a file {reason}; {_FEWEST}"
        whose = "" if self._tenant_id is None else f" for tenant {self._tenant_id!r}"
        return f"no plan whose hash begins so is stored{whose}, and as a file {reason}"
