"""Whose turn it is, when more is due than one claim takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scheduler.store.due import Walked

# A probe costs about as much as claiming two actions, so a fifth of the batch keeps it cheap.
_ACTIONS_PER_PROBE: Final = 5
_FEWEST_PROBES: Final = 20


class Rotation:
    """Goes round the tenants, some of them with every claim, from where it stopped.

    A walk that began at the first tenant and met the last one knows everybody. Where there are more tenants than that,
    those of what fell due last get half of the places: it is how a tenant that has only now something due is found.
    """

    def __init__(self) -> None:
        self.after = ""
        self._is_odd = False

    @staticmethod
    def probes(most: int) -> int:
        """How many tenants are looked at for a claim of `most`."""
        return max(most // _ACTIONS_PER_PROBE, _FEWEST_PROBES)

    def knows_all(self, walked: Walked, probes: int) -> bool:
        """Whether everybody who has something pending was met, so that nobody else need be looked for."""
        return not self.after and len(walked) < probes

    def take(self, walked: Walked, newest: Sequence[str], probes: int, places: int) -> list[str]:
        """The tenants whose turn it is, `places` at most; the next walk goes on behind them."""
        due = [tenant_id for tenant_id, is_due in walked if is_due]
        late_comers = self._late_comers(newest, due, places)
        chosen = due[: places - len(late_comers)]
        if len(chosen) < len(due):
            self.after = chosen[-1] if chosen else self.after
        else:
            self.after = walked[-1][0] if len(walked) == probes else ""
        return chosen + late_comers

    def _late_comers(self, newest: Sequence[str], due: Sequence[str], places: int) -> list[str]:
        """Of an odd number of places each side gets one more by turns."""
        self._is_odd = not self._is_odd
        known = set(due)
        return [tenant_id for tenant_id in newest if tenant_id not in known][: (places + self._is_odd) // 2]


def share_out(quotas: Mapping[str, int], most: int) -> dict[str, int]:
    """Equal portions of `most`, none above its quota, what one leaves going to the others; nobody with nothing."""
    portions: dict[str, int] = {}
    in_order = sorted(quotas, key=lambda tenant_id: quotas[tenant_id])
    for place, tenant_id in enumerate(in_order):
        portion = min(quotas[tenant_id], -(-most // (len(in_order) - place)))
        most -= portion
        if portion:
            portions[tenant_id] = portion
    return portions
