"""Who takes part in the demo, what they do, and what the plan demands of each.

What is demanded is read from the plan's document by a short walk of its own, not by the state machine that is shown:
the two are compared at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

_EXITS: Final = ("unsubscribed", "spamreport", "bounced")
_SOON: Final = timedelta(milliseconds=400)


@dataclass(frozen=True, slots=True)
class Role:
    """How some contacts behave: what they do at which node, `hesitation` after the mail, or the entry of a wait."""

    name: str
    contacts: int
    answers: Mapping[str, str] = field(default_factory=dict)
    hesitation: timedelta = _SOON


@dataclass(frozen=True, slots=True)
class Walk:
    """One contact's way to the end of a plan, in numbers."""

    end_node: str
    status: str
    transitions: int
    mails: int
    fired: int
    canceled: int


CAST: Final = (
    Role("never opens", 6),
    Role("opens, clicks", 5, {"email_intro": "opened", "wait_click": "clicked"}),
    Role("opens, never clicks", 4, {"email_intro": "opened"}, timedelta(seconds=1)),
    Role("opens the second mail", 4, {"email_bump_1": "opened"}, timedelta(milliseconds=700)),
    Role("opens both mails", 3, {"email_intro": "opened", "email_bump_1": "opened"}),
    Role("unsubscribes", 2, {"email_intro": "unsubscribed"}, timedelta(seconds=1.2)),
)


def members(cast: tuple[Role, ...] = CAST) -> Iterator[tuple[str, Role]]:
    """Every contact by name, with its role."""
    number = 0
    for role in cast:
        for _ in range(role.contacts):
            number += 1
            yield f"contact-{number:02}", role


def demanded(plan: Mapping[str, Any], answers: Mapping[str, str]) -> Walk:
    """What becomes of a contact that answers so, in time, and is otherwise silent."""
    nodes = {node["id"]: node for node in plan["nodes"]}
    here, transitions, mails, fired, canceled = plan["startNodeId"], 0, 0, 0, 0
    status = "completed"
    while nodes.get(here, {}).get("action", "stop") != "stop":
        node = nodes[here]
        timeouts = [one for one in node["transitions"] if one["on"].startswith("no_")]
        answer = answers.get(here)
        mails += node["action"] == "send"
        transitions += 1
        if answer is None:
            fired, canceled, here = fired + 1, canceled + len(timeouts) - 1, timeouts[0]["to"]
            continue
        canceled += len(timeouts)
        wanted = [one["to"] for one in node["transitions"] if one["on"] == answer]
        if not wanted and answer in _EXITS:
            return Walk("stop", "stopped", transitions, mails, fired, canceled)
        here = wanted[0]
    return Walk(here, status, transitions, mails, fired, canceled)
