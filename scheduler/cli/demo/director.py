"""Lets contacts act: each answers a mail it got, or a node it reached, a moment after that was seen in the database."""

from __future__ import annotations

import time
from collections.abc import Mapping

from scheduler.cli.demo.script import Role
from scheduler.cli.demo.stage import TENANT, Glimpse, is_sent
from scheduler.domain.campaign import Campaign
from scheduler.runtime.timeout_scheduler import TimeoutScheduler

Cue = tuple[str, str]


class Director:
    """Knows every contact's role. What a contact does depends on what was seen, never on a guess of when it is."""

    def __init__(self, timeout_scheduler: TimeoutScheduler, cast: Mapping[str, Role]) -> None:
        self._campaigns = timeout_scheduler.campaigns
        self._cast = cast
        self._due: dict[Cue, float] = {}
        self._done: set[Cue] = set()

    def notice(self, glimpse: Glimpse) -> None:
        """Plan the answers of those whose turn has come."""
        sent = {(action.campaign_id, action.node_visit) for action in glimpse.actions.values() if is_sent(action)}
        for contact, campaign in glimpse.campaigns.items():
            role, cue = self._cast[contact], (contact, campaign.current_node_id)
            if campaign.current_node_id in role.answers and cue not in self._done and self._is_reached(campaign, sent):
                self._due.setdefault(cue, time.monotonic() + role.hesitation.total_seconds())

    def act(self) -> None:
        """Send the events that are due, in one transaction."""
        now = time.monotonic()
        due = [cue for cue, instant in self._due.items() if instant <= now]
        for cue in due:
            del self._due[cue]
        self._done.update(due)
        if due:
            self._campaigns.process_events(
                {
                    "tenant_id": TENANT,
                    "campaign_id": contact,
                    "event_type": self._cast[contact].answers[node],
                    "event_id": f"{contact}:{node}",
                }
                for contact, node in due
            )

    def seconds_to_next(self, longest: float) -> float:
        """How long to wait for the next answer, at most `longest`."""
        waits = [instant - time.monotonic() for instant in self._due.values()]
        return max(min([longest, *waits]), 0.0)

    @staticmethod
    def _is_reached(campaign: Campaign, sent: set[tuple[str, int]]) -> bool:
        """At a send node, once its mail is out; at a wait node, at once."""
        is_mail = campaign.mail_visit == campaign.node_visit
        return not is_mail or (campaign.campaign_id, campaign.node_visit) in sent
