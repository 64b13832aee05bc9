"""Campaign timeouts that never get lost, never fire twice, and go away when they should."""

from scheduler.domain.action import ScheduledAction, TimeoutJob
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.errors import (
    AlreadyRunningError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPlanError,
    MissingRightError,
    PermanentSendError,
    RetryLater,
    SchedulerError,
    SchemaOutdatedError,
    UnknownCampaignError,
)
from scheduler.domain.explaining.explanation import Awaited, Explanation, ExplanationEntry, Standing, StuckCampaign
from scheduler.domain.migration import NodeMigration, PlanMigration
from scheduler.domain.outcome import Outcome
from scheduler.domain.pausing import Pause, ResumePreview, ResumeSummary
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.sending import SendHandler, SendRequest, SendResult
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.campaigns import CampaignStateManager
from scheduler.service.results import EnrolSummary, EventResult, ScheduleSummary
from scheduler.service.state_manager import StateManager
from scheduler.settings import Settings

__all__ = [
    "AlreadyRunningError",
    "Awaited",
    "Campaign",
    "CampaignPlan",
    "CampaignStateManager",
    "DatabaseUnavailableError",
    "EnrolSummary",
    "EventResult",
    "Explanation",
    "ExplanationEntry",
    "InvalidInputError",
    "InvalidPlanError",
    "MissingRightError",
    "NodeMigration",
    "Outcome",
    "Pause",
    "PermanentSendError",
    "PlanMigration",
    "ResumePreview",
    "ResumeSummary",
    "RetryLater",
    "ScheduleSummary",
    "ScheduledAction",
    "SchedulerError",
    "SchemaOutdatedError",
    "SendHandler",
    "SendRequest",
    "SendResult",
    "Settings",
    "Standing",
    "StateManager",
    "StuckCampaign",
    "TimeoutJob",
    "TimeoutScheduler",
    "Transition",
    "UnknownCampaignError",
]
