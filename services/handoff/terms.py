"""What the agreement says about one handoff: the version its MQL names, read once, for its facts."""

from __future__ import annotations

from dataclasses import dataclass

from services.handoff.clock import Limit, Milestone, Policy
from shared.agreement import Agreement, Route, handoff_facts
from shared.agreement.conditions import Facts
from shared.events import MqlQualified, Scalar


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one handoff. `last_resort`: who gets it when nobody else can, a rep's id or an e-mail."""

    agreement: Agreement
    route: Route
    policy: Policy
    last_resort: str

    @property
    def touch_kinds(self) -> tuple[str, ...]:
        return self.agreement.definitions.touch.kinds

    def performer(self, name: str) -> str:
        """Whom a sender means: a rep's id or a party's e-mail; the name itself, if the agreement does not know it."""
        return self.agreement.owner(name) or name

    def manager_of(self, owner: str | None) -> str:
        """Who is told of a breach; of a handoff that nobody owns, the head of sales."""
        return self.agreement.manager_of(owner) if owner else self.agreement.parties.sales.head

    def stage_of_deal(self, source: str, stage: str) -> str | None:
        """What a CRM's own word means here (sql, opportunity, won, lost); None: it is not mapped, and not guessed."""
        return self.agreement.definitions.crm_stages.get(source, {}).get(stage)


def terms_of(agreement: Agreement, facts: Facts) -> Terms:
    """The terms of a handoff with these facts."""
    route = agreement.route_for(facts)
    return Terms(agreement, route, _policy(agreement, facts), agreement.last_resort_of(route))


def facts_of(mql: MqlQualified) -> dict[str, Scalar]:
    """What its routing and policy are chosen by; kept with the handoff."""
    return handoff_facts(
        product=mql.product,
        motion=mql.motion,
        bucket=mql.bucket,
        raised_hand=mql.raised_hand,
        attributes=mql.attributes,
    )


def _policy(agreement: Agreement, facts: Facts) -> Policy:
    policy = agreement.policy_for(facts)
    assert policy.id is not None, "a policy without an id is known by its place"
    return Policy(
        name=policy.id,
        calendar_name=policy.calendar,
        calendar=agreement.calendar(policy.calendar),
        limits=tuple(
            Limit(Milestone(milestone.id), agreement.allowed_seconds(policy, milestone), milestone.since)
            for milestone in policy.milestones
        ),
        warn_at=policy.warn_at,
        notifies_manager="notify_manager" in policy.on_breach,
        reassigns="reassign" in policy.on_breach,
        max_reassigns=policy.max_reassigns,
    )
