"""Every event this package logs: its name, its level, what it means. docs/reference/events.md lists them.

ERROR means that a person must look, and only ERROR reaches Sentry.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of event."""

    level: int
    meaning: str


EVENTS: Final = {
    "action.completed": LogEvent(logging.INFO, "a due action is done; `outcome` says with what effect"),
    "action.paused": LogEvent(logging.INFO, "a due action of a paused campaign waits, unfinished"),
    "action.deferred": LogEvent(logging.DEBUG, "a due action waits for its mail, or for its new instant"),
    "action.released": LogEvent(logging.DEBUG, "a claimed action was handed back; its campaign is busy"),
    "action.retry_scheduled": LogEvent(logging.WARNING, "an attempt failed; another one follows"),
    "action.failed": LogEvent(logging.ERROR, "no attempt is left; the action is kept as error"),
    "action.scheduled": LogEvent(logging.DEBUG, "a timeout was scheduled by hand"),
    "action.schedule_ignored": LogEvent(
        logging.WARNING, "the key exists with another instant, or is finished; nothing changed"
    ),
    "action.canceled": LogEvent(logging.INFO, "actions were canceled by hand"),
    "action.rescheduled": LogEvent(logging.INFO, "an action was given another instant by hand"),
    "action.retried": LogEvent(logging.INFO, "an action in error was reopened by hand"),
    "action.given_up": LogEvent(logging.INFO, "actions in error were given up by hand: they are canceled"),
    "campaign.enrolled": LogEvent(logging.DEBUG, "a contact was enrolled in a plan"),
    "campaign.enrol_ignored": LogEvent(logging.WARNING, "the campaign exists with another plan or contact; unchanged"),
    "campaign.transitioned": LogEvent(logging.DEBUG, "a campaign left a visit"),
    "campaign.finished": LogEvent(logging.DEBUG, "a campaign ended; everything pending for it was canceled"),
    "campaign.reopened": LogEvent(
        logging.INFO, "a campaign that ended in error goes on: its failed send is tried again"
    ),
    "campaign.paused": LogEvent(logging.INFO, "a campaign was paused"),
    "campaign.resumed": LogEvent(logging.INFO, "a campaign goes on"),
    "tenant.paused": LogEvent(logging.INFO, "a tenant was paused"),
    "tenant.resumed": LogEvent(logging.INFO, "a tenant goes on"),
    "all.paused": LogEvent(logging.INFO, "everything was paused"),
    "all.resumed": LogEvent(logging.INFO, "everything goes on"),
    "sends.paused": LogEvent(logging.INFO, "no mail goes out any more, of a tenant or of any"),
    "sends.resumed": LogEvent(logging.INFO, "mails go out again"),
    "contact.suppressed": LogEvent(logging.INFO, "a contact is approached no more; its campaigns stopped"),
    "contact.unsuppressed": LogEvent(logging.INFO, "a contact may be approached again"),
    "contact.erased": LogEvent(logging.INFO, "a contact's personal data was removed; its campaigns stopped"),
    "event.processed": LogEvent(logging.INFO, "a real event was recorded; `outcome` says with what effect"),
    "plan.migrated": LogEvent(logging.INFO, "running campaigns of a plan go on, on another one"),
    "send.logged": LogEvent(logging.INFO, "the log send handler stands in for a mail"),
    "send.answer_ignored": LogEvent(logging.WARNING, "a webhook took a send, and `member` of its answer is unusable"),
    "batch.split": LogEvent(logging.WARNING, "a batch failed and is fired in halves"),
    "claims.recovered": LogEvent(logging.WARNING, "claims of a dead process, or past their lease, are due again"),
    "claims.handed_back": LogEvent(logging.INFO, "claims not yet fired were handed back"),
    "action.slow": LogEvent(logging.WARNING, "an action is worked on for longer than LEASE; its lease is extended"),
    "maintenance.error": LogEvent(logging.ERROR, "what goes on beside the loop met an unexpected error"),
    "retention.removed": LogEvent(logging.INFO, "rows older than RETENTION were removed"),
    "wakeup.listening": LogEvent(logging.INFO, "this process is woken by NOTIFY for what is due soon"),
    "wakeup.polling": LogEvent(
        logging.WARNING, "no NOTIFY reaches this process (a pooler, or another driver); it looks every POLL_INTERVAL"
    ),
    "clock.skewed": LogEvent(logging.WARNING, "the database's clock is more than a second off this machine's"),
    "clock.agrees": LogEvent(logging.INFO, "the database's clock and this machine's agree again"),
    "alert.raised": LogEvent(logging.ERROR, "an incident begins: `alert` says which; one line per incident"),
    "alert.recovered": LogEvent(logging.INFO, "an incident is over"),
    "database.outage": LogEvent(logging.ERROR, "the database has been away for more than a minute"),
    "database.unavailable": LogEvent(logging.WARNING, "the database can't be reached; trying again"),
    "database.recovered": LogEvent(logging.INFO, "the database answers again"),
    "loop.error": LogEvent(logging.ERROR, "the scheduling loop met an unexpected error and goes on"),
    "scheduler.started": LogEvent(logging.INFO, "this process fires from now on"),
    "scheduler.stopped": LogEvent(logging.INFO, "this process fires no more"),
    "daemon.starting": LogEvent(logging.INFO, "the daemon starts, with these settings"),
    "daemon.reloaded": LogEvent(logging.INFO, "the settings were read anew; `changed` names those that hold at once"),
    "daemon.reload_failed": LogEvent(logging.WARNING, "settings that were read anew are unusable; nothing changed"),
    "daemon.restart_needed": LogEvent(logging.WARNING, "of the settings read anew these wait for a restart"),
    "http.listening": LogEvent(logging.INFO, "health and metrics are served here"),
    "http.unavailable": LogEvent(logging.WARNING, "health and metrics are not served: the address is taken"),
    "daemon.default_database": LogEvent(logging.WARNING, "no database is configured; an SQLite file is used"),
    "daemon.log_handler": LogEvent(logging.WARNING, "plans have send nodes, but no send handler was chosen"),
    "daemon.draining": LogEvent(logging.INFO, "the daemon was told to stop and finishes what it is firing"),
    "daemon.drain_timeout": LogEvent(logging.WARNING, "what was being fired took longer than SHUTDOWN_TIMEOUT"),
    "daemon.stopped": LogEvent(logging.INFO, "the daemon is gone"),
}
