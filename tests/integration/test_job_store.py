"""APScheduler's own calls, on the table: in every state of the scheduler, and meaning what its documentation says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.events import (
    EVENT_ALL,
    EVENT_JOB_ADDED,
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
    JobEvent,
)
from apscheduler.job import Job
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers.base import SchedulerAlreadyRunningError, SchedulerNotRunningError
from apscheduler.triggers.date import DateTrigger

import scheduler as package
from scheduler import (
    InvalidInputError,
    Outcome,
    ScheduledAction,
    SchedulerError,
    Settings,
    TimeoutJob,
    TimeoutScheduler,
)
from scheduler.domain.action import ActionType
from scheduler.runtime.campaign_scheduler import ALIAS, SEND_ALIAS, CampaignScheduler
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import (
    DONE,
    FAR_AHEAD,
    LONG_AGO,
    NOON,
    WAIT_PLAN,
    Gate,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
    statuses,
)

HOUR = timedelta(hours=1)
STATES = ("before start", "running", "after shutdown")

# What a textual reference to a job function names: see test_add_job_takes_a_textual_reference.
reachable: TimeoutScheduler


@pytest.fixture(params=STATES)
def scheduler(request: pytest.FixtureRequest, database_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    """A scheduler in each of its states."""
    made = open_scheduler(database_url, state_manager=Recorder())
    if request.param != "before start":
        made.start()
    if request.param == "after shutdown":
        made.shutdown()
    return made


@pytest.fixture
def idle(database_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    """A scheduler that wasn't started."""
    return open_scheduler(database_url, state_manager=Recorder())


def later(**overrides: Any) -> TimeoutJob:
    return make_job(scheduled_at=FAR_AHEAD, **overrides)


def fields_of(job: TimeoutJob) -> dict[str, Any]:
    return {
        "tenant_id": job.tenant_id,
        "campaign_id": job.campaign_id,
        "contact_id": job.contact_id,
        "node_id": job.node_id,
        "event_type": job.event_type,
        "scheduled_at": job.scheduled_at,
        "node_visit": job.node_visit,
    }


def add(scheduler: TimeoutScheduler, job: TimeoutJob, **overrides: Any) -> Any:
    options = {"trigger": "date", "run_date": job.scheduled_at, "id": job.dedupe_key, "kwargs": fields_of(job)}
    options |= overrides
    return scheduler.apscheduler.add_job(options.pop("func", scheduler.fire), **options)


def stored(scheduler: TimeoutScheduler, job: TimeoutJob) -> Job:
    of_job = scheduler.apscheduler.get_job(job.dedupe_key)
    assert of_job is not None
    return of_job


def found(scheduler: TimeoutScheduler, job: TimeoutJob) -> ScheduledAction:
    action = scheduler.find(job.dedupe_key)
    assert action is not None
    return action


def test_get_job_tells_an_action_as_a_date_job(scheduler: TimeoutScheduler) -> None:
    job = later(node_visit=3)
    scheduler.schedule(job)

    as_job = stored(scheduler, job)

    assert (as_job.id, as_job.next_run_time) == (job.dedupe_key, FAR_AHEAD)
    assert isinstance(as_job.trigger, DateTrigger)
    assert as_job.trigger.run_date == FAR_AHEAD
    assert as_job.kwargs == fields_of(job)
    assert (as_job.executor, as_job.misfire_grace_time, as_job.pending) == (ALIAS, None, False)
    assert as_job.func == scheduler.fire


@pytest.mark.parametrize("job_id", ["acme:c-9:intro:1:timeout:no_open", "no key", "", ":::::", "a:b:c:1:timeout"])
def test_there_is_no_job_of_an_unknown_id(idle: TimeoutScheduler, job_id: str) -> None:
    assert idle.apscheduler.get_job(job_id) is None
    for call in ("remove_job", "pause_job", "resume_job"):
        with pytest.raises(JobLookupError):
            getattr(idle.apscheduler, call)(job_id)
    with pytest.raises(JobLookupError):
        idle.apscheduler.reschedule_job(job_id, trigger="date", run_date=NOON)


@pytest.mark.parametrize("status", ["completed", "canceled", "error"])
def test_a_finished_action_is_no_job(scheduler: TimeoutScheduler, status: str) -> None:
    job = later()
    scheduler.schedule(job)
    execute(scheduler, "UPDATE scheduled_actions SET status = :status, finished_at = run_at", status=status)

    assert scheduler.apscheduler.get_job(job.dedupe_key) is None
    assert scheduler.apscheduler.get_jobs() == []
    with pytest.raises(JobLookupError):
        scheduler.apscheduler.remove_job(job.dedupe_key)
    with pytest.raises(JobLookupError):
        scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=NOON)
    assert found(scheduler, job).status == status


def test_get_jobs_lists_what_is_unfinished_the_earliest_first_and_paused_last(scheduler: TimeoutScheduler) -> None:
    jobs = make_jobs(4, scheduled_at=FAR_AHEAD)
    scheduler.schedule_many(reversed(jobs))
    scheduler.apscheduler.pause_job(jobs[1].dedupe_key)
    scheduler.cancel(jobs[2].dedupe_key)

    listed = scheduler.apscheduler.get_jobs()

    assert [job.id for job in listed] == [jobs[number].dedupe_key for number in (0, 3, 1)]
    assert [job.next_run_time for job in listed] == [jobs[0].scheduled_at, jobs[3].scheduled_at, None]
    assert [job.id for job in scheduler.apscheduler.get_jobs(ALIAS)] == [job.id for job in listed]


def test_get_jobs_refuses_to_list_more_than_ten_thousand(idle: TimeoutScheduler) -> None:
    idle.schedule_many(make_jobs(10_000))
    assert len(idle.apscheduler.get_jobs()) == 10_000

    idle.schedule(make_job(campaign_id="one more"))

    with pytest.raises(SchedulerError, match=r"more than 10000 .*pending\(\)"):
        idle.apscheduler.get_jobs()


def test_sends_are_jobs_of_their_own_executor(idle: TimeoutScheduler) -> None:
    idle.schedule(make_job())
    execute(idle, "UPDATE scheduled_actions SET action_type = 'send', event_type = 'sent'")

    (job,) = idle.apscheduler.get_jobs()

    assert job.executor == SEND_ALIAS
    with pytest.raises(InvalidInputError, match="event_type"):
        job.func(**job.kwargs)


def test_remove_job_cancels(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)

    scheduler.apscheduler.remove_job(job.dedupe_key)

    assert (found(scheduler, job).status, found(scheduler, job).outcome) == ("canceled", "removed through APScheduler")
    with pytest.raises(JobLookupError):
        scheduler.apscheduler.remove_job(job.dedupe_key)


def test_a_job_can_remove_itself(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)

    stored(scheduler, job).remove()

    assert statuses(scheduler, [job]) == ["canceled"]


def test_remove_all_jobs_is_refused(scheduler: TimeoutScheduler) -> None:
    jobs = make_jobs(2, scheduled_at=FAR_AHEAD)
    scheduler.schedule_many(jobs)

    for alias in (None, ALIAS):
        with pytest.raises(SchedulerError, match="every tenant's timeouts"):
            scheduler.apscheduler.remove_all_jobs(alias)

    assert statuses(scheduler, jobs) == ["pending", "pending"]


def test_reschedule_job_moves_the_deadline_too(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)

    moved = scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=FAR_AHEAD + HOUR)

    assert moved.next_run_time == FAR_AHEAD + HOUR
    assert (found(scheduler, job).run_at, found(scheduler, job).deadline) == (FAR_AHEAD + HOUR, FAR_AHEAD + HOUR)


def test_reschedule_job_takes_local_time(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)
    local = datetime(2200, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))

    scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=local)

    assert found(scheduler, job).run_at == local


def test_a_job_rescheduled_to_the_past_fires_at_once(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, job = open_scheduler(database_url, state_manager=Recorder(), settings=patient()), later()
    scheduler.schedule(job)
    scheduler.start()

    scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=LONG_AGO)

    eventually(are_completed(scheduler, [job]))


def patient() -> Settings:
    """Whoever sleeps for an hour wakes only when he is woken."""
    return make_settings(poll_interval=HOUR)


@pytest.mark.parametrize("trigger", [{"trigger": "interval", "hours": 1}, {"trigger": "cron", "hour": 1}])
def test_reschedule_job_refuses_what_happens_more_than_once(idle: TimeoutScheduler, trigger: Mapping[str, Any]) -> None:
    job = later()
    idle.schedule(job)

    with pytest.raises(InvalidInputError, match="a timeout happens once"):
        idle.apscheduler.reschedule_job(job.dedupe_key, **trigger)

    assert found(idle, job).run_at == FAR_AHEAD


def test_a_job_that_is_being_fired_can_not_be_moved(database_url: str, open_scheduler: OpenScheduler) -> None:
    gate, job = Gate(), make_job()
    scheduler = open_scheduler(database_url, state_manager=gate)
    scheduler.schedule(job)
    with scheduler.database.transaction() as transaction:
        scheduler.stores.claims.claim(transaction, ActionType.TIMEOUT, 1, "somebody", HOUR)

    with pytest.raises(SchedulerError, match="being fired"):
        scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=FAR_AHEAD)


def test_modify_job_changes_the_instant(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)

    scheduler.apscheduler.modify_job(job.dedupe_key, next_run_time=FAR_AHEAD + HOUR)
    assert found(scheduler, job).run_at == FAR_AHEAD + HOUR

    stored(scheduler, job).modify(next_run_time=FAR_AHEAD)
    assert found(scheduler, job).run_at == FAR_AHEAD


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"max_instances": 3},
        {"misfire_grace_time": 1},
        {"coalesce": False},
        {"executor": "default"},
        {"kwargs": {**fields_of(make_job()), "contact_id": "somebody else"}},
        {"kwargs": {**fields_of(make_job()), "campaign_id": "c-2"}},
    ],
)
def test_modify_job_refuses_to_change_anything_else(idle: TimeoutScheduler, changes: Mapping[str, Any]) -> None:
    job = later()
    idle.schedule(job)
    before = found(idle, job)

    with pytest.raises(InvalidInputError):
        idle.apscheduler.modify_job(job.dedupe_key, **changes)

    assert found(idle, job) == before


def test_pause_job_holds_and_resume_job_lets_go_on_at_its_own_instant(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)

    held = scheduler.apscheduler.pause_job(job.dedupe_key)
    while_held = found(scheduler, job)
    scheduler.apscheduler.pause_job(job.dedupe_key)
    resumed = scheduler.apscheduler.resume_job(job.dedupe_key)

    assert held.next_run_time is None
    assert (while_held.status, while_held.run_at) == ("paused", FAR_AHEAD)
    assert stored(scheduler, job).next_run_time == resumed.next_run_time == FAR_AHEAD
    assert (found(scheduler, job).status, found(scheduler, job).run_at) == ("pending", FAR_AHEAD)


def test_a_paused_job_does_not_fire_and_a_resumed_one_does(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder, jobs = Recorder(), make_jobs(2)
    scheduler = open_scheduler(database_url, state_manager=recorder, settings=patient())
    scheduler.schedule_many(jobs)
    scheduler.apscheduler.pause_job(jobs[0].dedupe_key)
    scheduler.start()
    eventually(are_completed(scheduler, jobs[1:]))
    while_paused = list(recorder.keys)

    scheduler.apscheduler.resume_job(jobs[0].dedupe_key)

    assert while_paused == [jobs[1].dedupe_key]
    eventually(are_completed(scheduler, jobs))


def test_rescheduling_a_paused_job_lets_it_go_on_at_the_new_instant_and_deadline(scheduler: TimeoutScheduler) -> None:
    job = later()
    scheduler.schedule(job)
    scheduler.apscheduler.pause_job(job.dedupe_key)

    scheduler.apscheduler.reschedule_job(job.dedupe_key, trigger="date", run_date=FAR_AHEAD + HOUR)

    action = found(scheduler, job)
    assert (action.status, action.run_at, action.deadline) == ("pending", FAR_AHEAD + HOUR, FAR_AHEAD + HOUR)


def test_a_resumed_job_stays_paused_with_its_campaign(database_url: str, open_scheduler: OpenScheduler) -> None:
    clock = SettableClock(NOON)
    scheduler = open_scheduler(database_url, clock=clock)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    (timeout,) = scheduler.pending("acme", "c-1")
    scheduler.apscheduler.pause_job(timeout.dedupe_key)
    scheduler.campaigns.pause("acme", "c-1")

    scheduler.apscheduler.resume_job(timeout.dedupe_key)
    held = scheduler.find(timeout.dedupe_key)
    scheduler.campaigns.resume("acme", "c-1")

    assert held is not None
    assert held.status == "paused"
    assert [action.dedupe_key for action in scheduler.pending("acme", "c-1")] == [timeout.dedupe_key]


def test_add_job_schedules_a_timeout(scheduler: TimeoutScheduler) -> None:
    job = later()

    added = add(scheduler, job)

    assert added.id == job.dedupe_key
    action = found(scheduler, job)
    assert (action.status, action.run_at, action.deadline) == ("pending", FAR_AHEAD, FAR_AHEAD)
    assert (action.campaign_id, action.contact_id, action.node_id, action.node_visit) == ("c-1", "k-1", "intro", 1)
    assert scheduler.apscheduler.get_job(job.dedupe_key) is not None


def test_an_added_job_that_is_due_fires(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder, job = Recorder(), make_job()
    scheduler = open_scheduler(database_url, state_manager=recorder, settings=patient())
    scheduler.start()

    add(scheduler, job)

    eventually(are_completed(scheduler, [job]))
    assert recorder.keys == [job.dedupe_key]


def test_add_job_refuses_a_key_that_is_there(scheduler: TimeoutScheduler) -> None:
    job = later()
    add(scheduler, job)

    with pytest.raises(ConflictingIdError):
        add(scheduler, job)


def test_add_job_replaces_the_instant_of_an_existing_job_when_told_to(scheduler: TimeoutScheduler) -> None:
    add(scheduler, later())
    moved = make_job(scheduled_at=FAR_AHEAD + HOUR)

    add(scheduler, moved, replace_existing=True)

    assert found(scheduler, moved).run_at == FAR_AHEAD + HOUR


def test_add_job_replaces_nothing_but_the_instant(scheduler: TimeoutScheduler) -> None:
    add(scheduler, later())

    with pytest.raises(InvalidInputError, match="contact_id"):
        add(scheduler, later(contact_id="somebody else"), replace_existing=True)

    assert found(scheduler, later()).contact_id == "k-1"


@pytest.mark.parametrize("replace_existing", [False, True])
@pytest.mark.parametrize("status", ["completed", "canceled", "error"])
def test_a_finished_key_is_never_reopened(
    scheduler: TimeoutScheduler,
    status: str,
    replace_existing: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    job = later()
    scheduler.schedule(job)
    execute(scheduler, "UPDATE scheduled_actions SET status = :status, finished_at = run_at", status=status)
    before = found(scheduler, job)

    with pytest.raises(ConflictingIdError):
        add(scheduler, job, replace_existing=replace_existing)
    scheduler.schedule(job)

    assert found(scheduler, job) == before


def test_add_job_without_a_next_run_time_is_paused_from_the_first_moment(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder, paused, marker = Recorder(), make_job(), make_job(campaign_id="c-2", scheduled_at=NOON)
    scheduler = open_scheduler(database_url, state_manager=recorder)
    scheduler.start()

    add(scheduler, paused, next_run_time=None)
    add(scheduler, marker)

    eventually(are_completed(scheduler, [marker]))
    assert recorder.keys == [marker.dedupe_key]
    assert statuses(scheduler, [paused]) == ["paused"]
    scheduler.apscheduler.resume_job(paused.dedupe_key)
    eventually(are_completed(scheduler, [paused]))


def test_add_job_runs_first_when_it_is_told_to(scheduler: TimeoutScheduler) -> None:
    add(scheduler, later(), next_run_time=FAR_AHEAD + HOUR)

    assert found(scheduler, later()).run_at == FAR_AHEAD + HOUR


def test_add_job_takes_a_textual_reference(scheduler: TimeoutScheduler) -> None:
    globals()["reachable"] = scheduler

    add(scheduler, later(), func=f"{__name__}:reachable.fire")

    assert statuses(scheduler, [later()]) == ["pending"]


@pytest.mark.parametrize("func", [lambda: None, print, "os:getcwd", f"{__name__}:patient"])
def test_add_job_refuses_any_other_callable_and_says_why(idle: TimeoutScheduler, func: Any) -> None:
    with pytest.raises(InvalidInputError, match="campaign timeouts only") as refused:
        idle.apscheduler.add_job(func, "date", run_date=FAR_AHEAD)

    assert refused.value.field == "func"
    assert idle.apscheduler.get_jobs() == []


def test_add_job_refuses_the_job_function_of_another_scheduler(
    scheduler: TimeoutScheduler, database_url: str, open_scheduler: OpenScheduler
) -> None:
    other = open_scheduler(database_url)

    with pytest.raises(InvalidInputError, match="campaign timeouts only"):
        add(scheduler, later(), func=other.fire)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"trigger": "interval", "run_date": None, "hours": 1}, "trigger"),
        ({"trigger": "cron", "run_date": None, "hour": 1}, "trigger"),
        ({"id": "another"}, "id"),
        ({"id": None}, "id"),
        ({"id": make_job(campaign_id="c-2").dedupe_key}, "id"),
        ({"run_date": FAR_AHEAD + HOUR}, "scheduled_at"),
        ({"run_date": None}, "scheduled_at"),
        ({"kwargs": {**fields_of(later()), "event_type": "opened"}}, "event_type"),
        ({"kwargs": {**fields_of(later()), "tenant_id": ""}}, "tenant_id"),
        ({"kwargs": {**fields_of(later()), "scheduled_at": datetime(2200, 1, 1)}}, "scheduled_at"),  # noqa: DTZ001
        ({"args": list(fields_of(later()).values()), "kwargs": {}}, "args"),
    ],
)
def test_add_job_refuses_what_is_no_timeout(idle: TimeoutScheduler, overrides: Mapping[str, Any], field: str) -> None:
    given = {name: value for name, value in overrides.items() if value is not None or name in {"id", "run_date"}}
    if overrides.get("trigger") in {"interval", "cron"}:
        given.pop("run_date")
        with pytest.raises(InvalidInputError) as refused:
            idle.apscheduler.add_job(idle.fire, id=later().dedupe_key, kwargs=fields_of(later()), **given)
    else:
        with pytest.raises(InvalidInputError) as refused:
            add(idle, later(), **given)

    assert refused.value.field == field
    assert idle.apscheduler.get_jobs() == []


def test_add_job_refuses_fields_that_are_missing(scheduler: TimeoutScheduler) -> None:
    with pytest.raises(ValueError, match="contact_id"):
        add(scheduler, later(), kwargs={"tenant_id": "acme"})


def test_add_job_refuses_a_job_store_that_is_not_there(scheduler: TimeoutScheduler) -> None:
    with pytest.raises(KeyError, match="elsewhere"):
        add(scheduler, later(), jobstore="elsewhere")

    add(scheduler, later(), jobstore=ALIAS)
    assert statuses(scheduler, [later()]) == ["pending"]


def test_a_refused_job_is_not_remembered_for_later(idle: TimeoutScheduler) -> None:
    with pytest.raises(InvalidInputError):
        add(idle, later(), id="another")

    idle.start()
    idle.shutdown()

    assert idle.apscheduler.get_jobs() == []


def test_a_job_fires_by_itself_through_the_state_manager(idle: TimeoutScheduler) -> None:
    jobs = make_jobs(2)
    idle.schedule_many(jobs)
    job = stored(idle, jobs[1])

    assert job.func(**job.kwargs) == "done"

    assert statuses(idle, jobs) == ["pending", "completed"]


def test_a_job_of_a_campaign_fires_by_itself(database_url: str, open_scheduler: OpenScheduler) -> None:
    clock = SettableClock(NOON)
    scheduler = open_scheduler(database_url, clock=clock)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    (job,) = scheduler.apscheduler.get_jobs()
    clock.advance("PT72H")

    assert job.func(**job.kwargs) == "transitioned"

    campaign = scheduler.campaigns.find("acme", "c-1")
    assert campaign is not None
    assert campaign.status == "completed"


@pytest.mark.parametrize(
    "prepare",
    [
        lambda ts, key: ts.reschedule(key, FAR_AHEAD),
        lambda ts, key: ts.cancel(key),
        lambda ts, key: ts.apscheduler.pause_job(key),
        lambda ts, key: ts.run_due(),  # noqa: ARG005
    ],
    ids=["not due", "canceled", "paused", "fired"],
)
def test_a_job_refuses_to_fire_what_is_not_due(
    idle: TimeoutScheduler, prepare: Callable[[TimeoutScheduler, str], object]
) -> None:
    idle.schedule(make_job())
    job = stored(idle, make_job())
    prepare(idle, job.id)
    before = found(idle, make_job())

    with pytest.raises(SchedulerError, match="is not due"):
        job.func(**job.kwargs)

    assert found(idle, make_job()) == before


def test_a_job_whose_attempt_fails_raises_what_went_wrong(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url, state_manager=Moody())
    scheduler.schedule(make_job())
    job = stored(scheduler, make_job())

    with pytest.raises(ValueError, match="not today"):
        job.func(**job.kwargs)

    action = found(scheduler, make_job())
    assert (action.status, action.attempts, action.last_error) == ("pending", 1, "ValueError: not today")


class Moody(Recorder):
    """Fails the first time it sees an action, is done with it the second time."""

    def process(self, connection: Any, jobs: Any) -> list[Outcome | Exception]:
        """Fail, or be done."""
        seen = set(self.keys)
        super().process(connection, jobs)
        return [DONE if job.dedupe_key in seen else ValueError("not today") for job in jobs]


def listen(scheduler: TimeoutScheduler) -> list[JobEvent]:
    heard: list[JobEvent] = []

    def hear(event: Any) -> None:
        if isinstance(event, JobEvent):
            heard.append(event)

    scheduler.apscheduler.add_listener(hear, EVENT_ALL)
    return heard


def test_listeners_hear_of_what_is_done_by_hand(scheduler: TimeoutScheduler) -> None:
    heard, job = listen(scheduler), later()

    add(scheduler, job)
    scheduler.apscheduler.pause_job(job.dedupe_key)
    scheduler.apscheduler.remove_job(job.dedupe_key)

    assert [event.code for event in heard] == [EVENT_JOB_ADDED, EVENT_JOB_MODIFIED, EVENT_JOB_REMOVED]
    assert {(event.job_id, event.jobstore) for event in heard} == {(job.dedupe_key, ALIAS)}


def test_listeners_hear_of_each_timeout_once_as_it_fires(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, jobs = open_scheduler(database_url, state_manager=Recorder()), make_jobs(20)
    heard = listen(scheduler)
    scheduler.schedule_many(jobs)

    scheduler.start()
    eventually(lambda: len(heard) >= 60)
    scheduler.shutdown()

    keys = sorted(job.dedupe_key for job in jobs)
    for code in (EVENT_JOB_SUBMITTED, EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED):
        assert sorted(event.job_id for event in heard if event.code == code) == keys
    assert len(heard) == 60
    executed = [event for event in heard if event.code == EVENT_JOB_EXECUTED]
    assert {event.retval for event in executed} == {"done"}
    assert {event.scheduled_run_time for event in executed} == {job.scheduled_at for job in jobs}
    for key in keys:
        of_job = [event.code for event in heard if event.job_id == key]
        assert of_job.index(EVENT_JOB_EXECUTED) < of_job.index(EVENT_JOB_REMOVED)


def test_listeners_hear_of_an_error_and_of_the_attempt_that_follows(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, job = open_scheduler(database_url, state_manager=Moody()), make_job()
    heard = listen(scheduler)
    scheduler.schedule(job)

    scheduler.start()
    eventually(lambda: [event for event in heard if event.code == EVENT_JOB_REMOVED])

    fired = [event for event in heard if event.code != EVENT_JOB_SUBMITTED]
    assert [event.code for event in fired] == [EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED]
    assert str(fired[0].exception) == "not today"


def test_a_failed_attempt_for_good_is_heard_as_error_and_removal(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, job = (
        open_scheduler(database_url, state_manager=Moody(), settings=make_settings(max_attempts=1)),
        make_job(),
    )
    heard = listen(scheduler)
    scheduler.schedule(job)

    scheduler.start()
    eventually(lambda: [event for event in heard if event.code == EVENT_JOB_REMOVED])

    fired = [event.code for event in heard if event.code != EVENT_JOB_SUBMITTED]
    assert fired == [EVENT_JOB_ERROR, EVENT_JOB_REMOVED]
    assert statuses(scheduler, [job]) == ["error"]


def test_what_only_waits_for_another_turn_is_not_heard_as_executed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    class Waiting(Recorder):
        """Waits for another turn, once."""

        def process(self, connection: Any, jobs: Any) -> list[Outcome | Exception]:
            """Busy, then done."""
            seen = set(self.keys)
            super().process(connection, jobs)
            return [DONE if job.dedupe_key in seen else Outcome("busy") for job in jobs]

    scheduler, job = open_scheduler(database_url, state_manager=Waiting()), make_job()
    heard = listen(scheduler)
    scheduler.schedule(job)

    scheduler.start()
    eventually(lambda: [event for event in heard if event.code == EVENT_JOB_REMOVED])

    fired = [event.code for event in heard if event.code != EVENT_JOB_SUBMITTED]
    assert fired == [EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED]
    assert found(scheduler, job).attempts == 0


def test_a_listener_that_raises_harms_nobody(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, jobs = open_scheduler(database_url, state_manager=Recorder()), make_jobs(3)

    def raise_it(_event: Any) -> None:
        raise RuntimeError("the listener's own")

    scheduler.apscheduler.add_listener(raise_it, EVENT_ALL)
    scheduler.schedule_many(jobs)
    scheduler.start()

    eventually(are_completed(scheduler, jobs))


def test_starting_the_apscheduler_is_starting_the_scheduler(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, job = open_scheduler(database_url, state_manager=Recorder()), make_job()
    scheduler.schedule(job)
    apscheduler: CampaignScheduler = scheduler.apscheduler

    apscheduler.start()
    scheduler.start()
    with pytest.raises(SchedulerAlreadyRunningError):
        apscheduler.start()

    eventually(are_completed(scheduler, [job]))
    apscheduler.shutdown()
    scheduler.shutdown()
    with pytest.raises(SchedulerNotRunningError):
        apscheduler.shutdown()


def test_a_second_start_takes_nothing_from_the_first(database_url: str, open_scheduler: OpenScheduler) -> None:
    gate, job = Gate(), make_job()
    scheduler = open_scheduler(database_url, state_manager=gate)
    scheduler.schedule(job)
    scheduler.start()
    gate.wait_entered()

    with pytest.raises(SchedulerAlreadyRunningError):
        scheduler.apscheduler.start()

    assert statuses(scheduler, [job]) == ["claimed"]
    gate.opened.set()
    eventually(are_completed(scheduler, [job]))
    assert gate.keys == [job.dedupe_key]


def test_a_paused_apscheduler_fires_nothing_until_it_is_resumed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, job = open_scheduler(database_url, state_manager=Recorder()), make_job()
    scheduler.apscheduler.start(paused=True)
    scheduler.schedule(job)

    assert statuses(scheduler, [job]) == ["pending"]
    scheduler.apscheduler.resume()
    eventually(are_completed(scheduler, [job]))


def test_there_is_no_pickle_anywhere() -> None:
    sources = Path(package.__file__).parent.rglob("*.py")

    offenders = [
        path.name for path in sources if re.search(r"^\s*(import|from)\s+\w*pickle", path.read_text(), re.MULTILINE)
    ]

    assert offenders == []
