"""Plans as rows and options name them: a file, a document, or the hash of a plan that is stored."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scheduler.domain.errors import InvalidInputError, InvalidPlanError
from scheduler.domain.node import TimerDefaults
from scheduler.domain.plan import CampaignPlan

FindStored = Callable[[str, str], CampaignPlan | None]

_HASH: Final = re.compile("[0-9a-f]{64}")
_REMEMBERED: Final = 256


class PlanReferences:
    """Resolves plans, each distinct one once as long as it is remembered. `folders` are where a file is looked for."""

    def __init__(self, timer_defaults: TimerDefaults, find_stored: FindStored, folders: Sequence[Path]) -> None:
        self._timer_defaults = timer_defaults
        self._find_stored = find_stored
        self._folders = folders
        self._known: OrderedDict[tuple[str, str], CampaignPlan | InvalidInputError] = OrderedDict()

    def resolve_default(self, reference: str | None) -> CampaignPlan | str | None:
        """A plan for many rows: read now, unless it is a hash, which means something only for a row's tenant."""
        if reference is None or _HASH.fullmatch(reference):
            return reference
        return self.resolve("", reference)

    def resolve(self, tenant_id: str, reference: object) -> CampaignPlan:
        """The plan; raises InvalidInputError (InvalidPlanError for one with faults)."""
        if isinstance(reference, CampaignPlan):
            return reference
        if not isinstance(reference, (str, dict)) or not reference:
            raise InvalidInputError("plan", reference, "give a plan's file, the plan itself, or a stored plan's hash")
        text = reference if isinstance(reference, str) else json.dumps(reference, sort_keys=True)
        key = (tenant_id if _HASH.fullmatch(text) else "", text)
        if key not in self._known:
            self._known[key] = self._load(tenant_id, text)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        found = self._known[key]
        if isinstance(found, InvalidInputError):
            raise found
        return found

    def _load(self, tenant_id: str, text: str) -> CampaignPlan | InvalidInputError:
        try:
            if text.lstrip().startswith("{"):
                return CampaignPlan.parse(text, self._timer_defaults)
            return self._stored(tenant_id, text) or CampaignPlan.from_file(self._file(text), self._timer_defaults)
        except InvalidPlanError as error:
            return error
        except InvalidInputError as error:
            return InvalidInputError("plan", text, error.remedy)

    def _stored(self, tenant_id: str, text: str) -> CampaignPlan | None:
        if _HASH.fullmatch(text) is None:
            return None
        stored = self._find_stored(tenant_id, text)
        if stored is None and not self._file(text).exists():
            raise InvalidInputError("plan", text, f"tenant {tenant_id!r} has no stored plan of this hash")
        return stored

    def _file(self, text: str) -> Path:
        """The file of that name in the first folder that has it."""
        candidates = [folder / text for folder in self._folders]
        return next((one for one in candidates if _exists(one)), candidates[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False
