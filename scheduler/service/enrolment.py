"""Contacts are enrolled: campaign, history and first actions in one transaction, however many there are."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final

from scheduler.domain import machine
from scheduler.domain.action import require_id
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import Decision
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.node import TimerDefaults
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.storable import json_text, require_storable
from scheduler.domain.timing import parse_instant, parse_zone
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.service.results import EnrolSummary
from scheduler.store.contacts import Contact
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit, is_logged

_CHUNK: Final = 1000
_LONGEST_ADDRESS: Final = 1024
_LONGEST_VARIABLES: Final = 65_536
_REMEMBERED_PLANS: Final = 256
# The last format in which equal values have equal bytes, whoever else refers to them.
_MARSHAL_WITHOUT_REFERENCES: Final = 2
_CONTACT_FIELDS: Final = ("address", "timezone", "variables")

Key = tuple[str, str]
PlanLike = CampaignPlan | Mapping[str, Any] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One contact to enrol. `plan` is a `CampaignPlan`, a mapping, JSON text, or the hash of a plan stored before.

    `restart`: a campaign that is finished begins again, on this plan.
    """

    tenant_id: str
    campaign_id: str
    contact_id: str
    plan: PlanLike
    start_at: datetime | None = None
    contact: Mapping[str, Any] | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        for name in ("tenant_id", "campaign_id", "contact_id"):
            require_id(name, getattr(self, name))
        if self.start_at is not None:
            object.__setattr__(self, "start_at", parse_instant("start_at", self.start_at))
        if not isinstance(self.restart, bool):
            raise InvalidInputError("restart", self.restart, "give true or false")

    @property
    def key(self) -> Key:
        """The campaign's key."""
        return (self.tenant_id, self.campaign_id)

    @property
    def contact_key(self) -> Key:
        """The contact's key."""
        return (self.tenant_id, self.contact_id)

    @classmethod
    def of(cls, value: Enrolment | Mapping[str, Any]) -> Enrolment:
        """From a mapping with the same names; raises InvalidInputError for unknown or missing ones."""
        if isinstance(value, Enrolment):
            return value
        if not isinstance(value, Mapping):
            raise InvalidInputError("enrolment", value, "give a mapping with tenant_id, campaign_id, contact_id, plan")
        known = set(cls.__slots__)
        for name in value:
            if name not in known:
                raise InvalidInputError(str(name), value[name], f"use only {', '.join(sorted(known))}")
        for name in ("tenant_id", "campaign_id", "contact_id", "plan"):
            if value.get(name) is None:
                raise InvalidInputError(name, None, "is missing")
        return cls(**value)


def parse_contact(tenant_id: str, contact_id: str, data: Mapping[str, Any] | None) -> Contact:
    """Contact data as given to `enroll`; raises InvalidInputError for what can't be kept."""
    if data is None:
        return Contact(tenant_id, contact_id)
    if not isinstance(data, Mapping):
        raise InvalidInputError("contact", data, "give a mapping with address, timezone, variables")
    for name in data:
        if name not in _CONTACT_FIELDS:
            raise InvalidInputError(f"contact.{name}", data[name], f"use only {', '.join(_CONTACT_FIELDS)}")
    address, zone, variables = (data.get(name) for name in _CONTACT_FIELDS)
    if address is not None and (not isinstance(address, str) or not address or len(address) > _LONGEST_ADDRESS):
        raise InvalidInputError("contact.address", address, f"give a text of 1 to {_LONGEST_ADDRESS} characters")
    if address is not None:
        require_storable("contact.address", address)
    if variables is not None:
        json_text("contact.variables", variables, _LONGEST_VARIABLES)
    if zone is not None:
        parse_zone("contact.timezone", zone)
    return Contact(tenant_id, contact_id, address, zone, variables)


@dataclass(frozen=True, slots=True)
class _Entered:
    """How many of a chunk began, and how many contacts are suppressed."""

    enrolled: int
    suppressed: int


class _PlanMemory:
    """Plans of one bulk call, by their content, so that each is parsed once.

    Rows read from a file each have a mapping of their own, though most of them say the same.
    """

    def __init__(self) -> None:
        self._by_content: dict[Hashable, CampaignPlan] = {}

    def find(self, tenant_id: str, source: PlanLike, load: Callable[[], CampaignPlan]) -> CampaignPlan:
        """The plan of this source, for which `load` is asked once."""
        content = _content_of(tenant_id, source)
        plan = self._by_content.get(content)
        if plan is None:
            plan = load()
            if content is not None:
                if len(self._by_content) == _REMEMBERED_PLANS:
                    self._by_content.clear()
                self._by_content[content] = plan
        return plan


def _content_of(tenant_id: str, source: Any) -> Hashable:
    """The same for two that say the same, with values of the same types; None for what isn't JSON's own types."""
    if isinstance(source, CampaignPlan):
        return source.hash
    if isinstance(source, str):  # which may be the hash of a plan of that tenant
        return (tenant_id, source)
    try:
        return marshal.dumps(source, _MARSHAL_WITHOUT_REFERENCES)
    except ValueError:
        return None


class Enroller:
    """Enrols contacts. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, timer_defaults: TimerDefaults) -> None:
        self._stores = stores
        self._writer = writer
        self._timer_defaults = timer_defaults
        # A plan parsed elsewhere gets the timer defaults that every later decision reads it with.
        self._with_own_defaults = lru_cache(_REMEMBERED_PLANS)(self._parse_again)

    def enroll(self, transaction: Transaction, enrolment: Enrolment) -> Campaign:
        """Enrol one; returns the campaign as it is now, new or not.

        Raises InvalidInputError for a suppressed contact, unless the campaign exists and stays as it is.
        """
        campaign = None
        while campaign is None:  # again, where retention has removed the finished one that was in the way
            entered = self._enroll_chunk(transaction, [enrolment], _PlanMemory())
            if entered.suppressed:
                why = self._why_suppressed(transaction, enrolment)
                raise InvalidInputError("contact_id", enrolment.contact_id, why)
            if not entered.enrolled:
                transaction.vouch()
            campaign = self._stores.campaigns.read(transaction, [enrolment.key]).get(enrolment.key)
        return campaign

    def _why_suppressed(self, transaction: Transaction, enrolment: Enrolment) -> str:
        contact = self._stores.contacts.read(transaction, [enrolment.contact_key])[enrolment.contact_key]
        since = "" if contact.suppressed_at is None else f" since {contact.suppressed_at.isoformat()}"
        return f"it is suppressed{since} ({contact.suppressed_reason}) and must not be approached; unsuppress it first"

    def enroll_many(
        self, transaction: Transaction, enrolments: Iterable[Enrolment | Mapping[str, Any]]
    ) -> EnrolSummary:
        """Enrol many, in chunks of one transaction. Suppressed contacts are left out, and counted."""
        parsed = _PlanMemory()
        enrolled = suppressed = total = 0
        remaining = iter(enrolments)
        while chunk := [Enrolment.of(value) for value in islice(remaining, _CHUNK)]:
            total += len(chunk)
            entered = self._enroll_chunk(transaction, chunk, parsed)
            enrolled += entered.enrolled
            suppressed += entered.suppressed
        if enrolled < total:
            transaction.vouch()
        return EnrolSummary(enrolled=enrolled, existing=total - enrolled - suppressed, suppressed=suppressed)

    def _enroll_chunk(self, transaction: Transaction, enrolments: Sequence[Enrolment], parsed: _PlanMemory) -> _Entered:
        """Lock: campaigns that begin again, then contacts, both in key order; new campaigns come after them."""
        first = {enrolment.key: enrolment for enrolment in reversed(enrolments)}
        plans = self._plans(transaction, first.values(), parsed)
        contacts = {one.key: parse_contact(one.tenant_id, one.contact_id, one.contact) for one in first.values()}
        known = self._stores.campaigns.read(transaction, first)
        finished = self._finished(transaction, first, known)
        self._tell_ignored({key: one for key, one in known.items() if key not in finished}, first, plans)
        entering = [one for key, one in sorted(first.items()) if key in finished or key not in known]
        zones = self._stores.contacts.upsert(transaction, [contacts[one.key] for one in entering])
        allowed = [one for one in entering if one.contact_key in zones]
        self._stores.plans.insert(transaction, ((one.tenant_id, plans[one.key]) for one in allowed))
        begun = {one.key: self._begin(transaction, one, plans, zones, finished.get(one.key)) for one in allowed}
        kept = self._write(transaction, begun, finished)
        if is_logged("campaign.enrolled"):  # else a bulk call would keep every decision until it commits
            transaction.on_commit(lambda: self._tell(kept))
        return _Entered(len(kept), len(entering) - len(allowed))

    def _finished(
        self, transaction: Transaction, enrolments: Mapping[Key, Enrolment], known: dict[Key, Campaign]
    ) -> dict[Key, Campaign]:
        """The campaigns that are to begin again, locked. Raises InvalidInputError for one of another contact.

        One that retention has removed since it was read is no longer `known`: it begins as a new one.
        """
        wanted = [key for key, one in known.items() if enrolments[key].restart and one.is_finished]
        locked = self._stores.campaigns.lock(transaction, wanted)
        for key in wanted:
            if key not in locked:
                del known[key]
        finished = {key: one for key, one in locked.items() if one.is_finished}
        for key, campaign in finished.items():
            if campaign.contact_id != enrolments[key].contact_id:
                remedy = f"campaign {campaign.campaign_id!r} belongs to contact {campaign.contact_id!r}"
                raise InvalidInputError("contact_id", enrolments[key].contact_id, remedy)
        return finished

    @staticmethod
    def _begin(
        transaction: Transaction,
        enrolment: Enrolment,
        plans: Mapping[Key, CampaignPlan],
        zones: Mapping[Key, str | None],
        finished: Campaign | None,
    ) -> Decision:
        plan, zone = plans[enrolment.key], zones[enrolment.contact_key]
        if finished is None:
            return _start(enrolment, plan, zone, transaction.now)
        entered_at = enrolment.start_at or transaction.now
        return machine.restart(plan, replace(finished, timezone=zone), entered_at, transaction.now)

    def _write(
        self, transaction: Transaction, begun: Mapping[Key, Decision], finished: Mapping[Key, Campaign]
    ) -> list[Decision]:
        """New campaigns are inserted, unless a twin was faster; those that begin again are changed. Returns both."""
        new = {key: decision for key, decision in begun.items() if key not in finished}
        inserted = self._stores.campaigns.insert(transaction, [one.campaign for one in new.values()])
        kept = [decision for key, decision in new.items() if key in inserted]
        self._writer.write_enrolled(transaction, kept)
        restarted = [Decided(finished[key], decision) for key, decision in begun.items() if key in finished]
        self._writer.write(transaction, restarted)
        return kept + [one.decision for one in restarted]

    def _plans(
        self, transaction: Transaction, enrolments: Iterable[Enrolment], parsed: _PlanMemory
    ) -> dict[tuple[str, str], CampaignPlan]:
        """The plan of each enrolment; each distinct one is parsed or loaded once."""
        found: dict[tuple[str, str], CampaignPlan] = {}
        for one in enrolments:
            load = partial(self.plan_of, transaction, one.tenant_id, one.plan)
            found[one.key] = parsed.find(one.tenant_id, one.plan, load)
        return found

    def plan_of(self, transaction: Transaction, tenant_id: str, source: PlanLike) -> CampaignPlan:
        """The plan, with our own timer defaults. Raises InvalidInputError for a hash that isn't stored."""
        if isinstance(source, CampaignPlan):
            return self._with_own_defaults(source)
        if isinstance(source, str) and not source.lstrip().startswith("{"):
            require_id("plan", source)
            stored = self._stores.plans.load(transaction, [(tenant_id, source)])
            if (tenant_id, source) not in stored:
                raise InvalidInputError("plan", source, "give a plan, or the hash of one stored for this tenant")
            return stored[(tenant_id, source)]
        return CampaignPlan.parse(source, self._timer_defaults)

    def _parse_again(self, plan: CampaignPlan) -> CampaignPlan:
        return CampaignPlan.parse(plan.document, self._timer_defaults)

    @staticmethod
    def _tell_ignored(
        known: Mapping[tuple[str, str], Campaign],
        enrolments: Mapping[tuple[str, str], Enrolment],
        plans: Mapping[tuple[str, str], CampaignPlan],
    ) -> None:
        for key, campaign in known.items():
            if campaign.plan_hash != plans[key].hash or campaign.contact_id != enrolments[key].contact_id:
                emit(
                    "campaign.enrol_ignored",
                    tenant_id=campaign.tenant_id,
                    campaign_id=campaign.campaign_id,
                    plan_hash=campaign.plan_hash,
                    given_plan_hash=plans[key].hash,
                )

    @staticmethod
    def _tell(decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            campaign = decision.campaign
            emit(
                "campaign.enrolled",
                tenant_id=campaign.tenant_id,
                campaign_id=campaign.campaign_id,
                plan_hash=campaign.plan_hash,
                node_id=campaign.current_node_id,
            )


def _start(enrolment: Enrolment, plan: CampaignPlan, zone: str | None, now: datetime) -> Decision:
    entered_at = enrolment.start_at or now
    unborn = machine.unborn(plan, enrolment.key, enrolment.contact_id, entered_at, now, zone)
    return machine.start(plan, unborn, entered_at, now)
