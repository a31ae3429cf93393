"""The agreement as a whole, and what the services ask it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, ClassVar, assert_never
from zoneinfo import ZoneInfo

from pydantic import PlainValidator, ValidationInfo, field_validator

from shared import worktime
from shared.agreement.conditions import Facts
from shared.agreement.durations import ExactDuration, Rhythm, duration
from shared.agreement.parts import Choices, Listed, Part, Slug, ZoneName
from shared.agreement.routing import Pool, Rep, Route
from shared.agreement.scorecards import Scorecard
from shared.agreement.sla import Milestone, Policy, Sla
from shared.agreement.source import Scalar
from shared.agreement.terms import Definitions, Goals, Parties, Reason, ReasonKind, Reasons


def _instant(raw: object) -> datetime:
    try:
        instant = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError("expected an instant with its zone, such as 2026-01-01T00:00:00Z")
    return instant


Instant = Annotated[datetime, PlainValidator(_instant)]


class Agreement(Part):
    """One version of the contract between marketing and sales. `parse` makes it; nothing changes it."""

    later: ClassVar = frozenset(
        {"accounts", "breaker", "cadence", "conversion_points", "disqualification", "experiments", "explore", "grades"}
        | {"identity", "journey", "lead_statuses", "leaves", "nurture_lock", "obligations", "on_publish", "sources"}
        | {"stages", "traffic_sources"}
    )
    agreement: Slug
    review_every: Rhythm | None = None
    effective_from: Instant | None = None
    effective_to: Instant | None = None
    timezone: ZoneName
    lookback: ExactDuration = duration("P365D")
    parties: Parties
    definitions: Definitions
    reps: Listed[Rep]
    pools: Listed[Pool]
    scorecards: Listed[Scorecard]
    routing: Choices[Route]
    sla: Sla
    reasons: Reasons
    goals: Goals = Goals()

    @field_validator("*")
    @classmethod
    def _remember_valid_section(cls, value: object, info: ValidationInfo) -> object:
        """Leaves each valid section in the context, so that it is checked against others beside an invalid one."""
        if isinstance(info.context, dict) and info.field_name is not None:
            info.context[info.field_name] = value
        return value

    def __hash__(self) -> int:
        return self._hash

    @property
    def zone(self) -> ZoneInfo:
        """The zone of limits and windows."""
        return ZoneInfo(self.timezone)

    @cached_property
    def fields(self) -> frozenset[str]:
        """The attributes of a lead that any condition asks about."""
        choices = [part.when for part in (*self.routing, *self.sla.policies) if part.when is not None]
        personas = [persona.when for persona in self.definitions.personas]
        rules = (
            rule
            for card in self.scorecards
            for dimension in card.dimensions
            for group in dimension.groups
            for rule in group.rules
        )
        conditions = [*choices, *personas, *(rule.when for rule in rules if not rule.when.activities)]
        return frozenset(test.field for condition in conditions for test in condition.tests())

    def scorecard(self, id: str) -> Scorecard | None:
        return next((scorecard for scorecard in self.scorecards if scorecard.id == id), None)

    def route_for(self, facts: Facts) -> Route:
        """The first route whose condition holds. `facts`: see `handoff_facts`."""
        return next(route for route in self.routing if route.applies(facts))

    def policy_for(self, facts: Facts) -> Policy:
        """The first policy whose condition holds. `facts`: see `handoff_facts`."""
        return next(policy for policy in self.sla.policies if policy.applies(facts))

    def policy(self, id: str) -> Policy | None:
        return next((policy for policy in self.sla.policies if policy.id == id), None)

    def calendar(self, id: str) -> worktime.Calendar:
        """The calendar of that id. Raises `KeyError`."""
        return self._calendars[id]

    def allowed_seconds(self, policy: Policy, milestone: Milestone) -> float:
        """The working time that a milestone allows: days are working days of the policy's calendar."""
        return milestone.within.working_seconds(self.calendar(policy.calendar))

    def last_resort_of(self, route: Route) -> str:
        """Who gets a lead of this route at last: a rep's id, or the e-mail of somebody the parties name."""
        name = route.last_resort or self.routing[-1].last_resort
        assert name is not None, "the last route names one: a check holds it"
        return self.owner(name) or name

    def reason(self, kind: ReasonKind, id: str) -> Reason | None:
        return next((reason for reason in self.reason_list(kind) if reason.id == id), None)

    def reason_list(self, kind: ReasonKind) -> tuple[Reason, ...]:
        """The legal reasons of a kind, in the order of the text."""
        match kind:
            case "reject":
                return self.reasons.reject
            case "recycle":
                return self.reasons.recycle
            case "lost":
                return self.reasons.lost
        assert_never(kind)

    def rep(self, id: str) -> Rep | None:
        return next((rep for rep in self.reps if rep.id == id), None)

    def rep_by_performer(self, name: str) -> Rep | None:
        """The rep whom a sender means: by id, e-mail or any CRM id; case does not matter."""
        return self._reps_by_name.get(name.casefold())

    def owner(self, name: str) -> str | None:
        """Who may own a lead under that name: a rep's id, or the e-mail of a party's head or champion."""
        rep = self.rep_by_performer(name)
        if rep is not None:
            return rep.id
        return next((email for email in self.party_emails if email.casefold() == name.casefold()), None)

    def email_of(self, owner: str) -> str | None:
        """Where an owner (see `owner`) is written to."""
        rep = self.rep(owner)
        return rep.email if rep else self.owner(owner)

    def manager_of(self, owner: str) -> str:
        """The e-mail of an owner's manager: the rep's own, else the head of sales."""
        rep = self.rep(owner)
        return (rep.manager if rep else None) or self.parties.sales.head

    def pool(self, id: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.id == id), None)

    @property
    def party_emails(self) -> tuple[str, ...]:
        """The heads and champions."""
        both = (self.parties.sales, self.parties.marketing)
        return tuple(email for party in both for email in (party.head, party.champion) if email)

    @cached_property
    def _hash(self) -> int:
        """Computed once: an agreement is the key of what is compiled from it."""
        return hash(tuple(getattr(self, name) for name in type(self).model_fields))

    @cached_property
    def _calendars(self) -> Mapping[str, worktime.Calendar]:
        return {calendar.id: calendar.working for calendar in self.sla.calendars}

    @cached_property
    def _reps_by_name(self) -> Mapping[str, Rep]:
        return {name: rep for rep in self.reps for name in rep.names}


def handoff_facts(*, product: str, motion: str, bucket: str, raised_hand: bool, attributes: Facts) -> dict[str, Scalar]:
    """What routes and policies are chosen by: the lead's attributes, and on top of them what it qualified for."""
    return {**attributes, "product": product, "motion": motion, "bucket": bucket, "raised_hand": raised_hand}
