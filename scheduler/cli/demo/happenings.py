"""What happened between two looks at the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from scheduler.cli.demo.stage import Glimpse, is_sent
from scheduler.domain.action import ActionStatus
from scheduler.domain.event import is_synthetic

SENT: Final = "sent"
FIRED: Final = "fired"
CANCELED: Final = "canceled"
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to one contact: `sent`, `fired`, `canceled`, or the event that led it on."""

    kind: str
    what: str
    contact: str


def between(before: Glimpse, after: Glimpse) -> list[Happening]:
    """All that is new in `after`: mails, transitions and why they were made, cancellations."""
    changed = [action for key, action in after.actions.items() if _status(before, key) != action.status]
    sent = [Happening(SENT, f"the mail of {one.node_id}", one.campaign_id) for one in changed if is_sent(one)]
    canceled = [
        Happening(CANCELED, f"timeout {one.event_type} of {one.node_id}", one.campaign_id)
        for one in changed
        if one.status == ActionStatus.CANCELED
    ]
    return [*sent, *_moves(before, after), *canceled]


def as_lines(happenings: Iterable[Happening]) -> list[tuple[str, str]]:
    """Kind and text, one line for all contacts to whom the same happened."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in happenings:
        groups.setdefault((one.kind, one.what), []).append(one.contact)
    return [(kind, f"{what}: {_who(contacts)}") for (kind, what), contacts in groups.items()]


def _status(glimpse: Glimpse, key: str) -> str | None:
    action = glimpse.actions.get(key)
    return None if action is None else action.status


def _moves(before: Glimpse, after: Glimpse) -> Iterator[Happening]:
    for contact, transitions in after.transitions.items():
        for one in transitions[len(before.transitions[contact]) :]:
            way = f"{one.from_node_id} → {one.to_node_id}"
            if is_synthetic(one.trigger):
                yield Happening(FIRED, f"timeout {one.trigger}, {way}", contact)
            else:
                yield Happening(one.trigger, way, contact)


def _who(contacts: Sequence[str]) -> str:
    return ", ".join(contacts) if len(contacts) <= _NAMED else f"{len(contacts)} contacts"
