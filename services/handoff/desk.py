"""What a batch of records works on: leads, handoffs, what sales did and shares, loaded under lock, changed in memory.

Every step that follows from one record is here and pure; `handlers.py` loads and writes. Lead ids are read through
their alias throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.handoff.case import Case, Change, Deal, Handoff, Touch
from services.handoff.change import all_touched, changed, deal_moved
from services.handoff.lifecycle import TABLE, Action, State, advance
from services.handoff.notices import still_locked
from services.handoff.route import Member, Share, routed
from services.handoff.terms import Terms, facts_of, terms_of
from shared.agreement import Agreement
from shared.events import Event, LeadMerged, MqlQualified, MqlRetractionRequested, OpportunityChanged

DEAL_ACTIONS: Mapping[str, Action] = {
    "sql": Action.QUALIFY,
    "opportunity": Action.OPEN_DEAL,
    "won": Action.WIN,
    "lost": Action.LOSE,
}


@dataclass(slots=True)
class Desk:
    """The state of one transaction. `fresh`: changed since `taken` was last called; `dirty`: to be written."""

    now: datetime
    roots: dict[str, str]
    agreements: Mapping[int, Agreement]
    cases: dict[str, Case]
    shares: dict[Member, Share] = field(default_factory=dict)
    touches: dict[str, list[Touch]] = field(default_factory=dict)
    deals: dict[tuple[str, str], Deal] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    dirty: set[str] = field(default_factory=set)
    dirty_shares: set[Member] = field(default_factory=set)
    dirty_deals: set[tuple[str, str]] = field(default_factory=set)
    new_deals: set[tuple[str, str]] = field(default_factory=set)
    absorbed: set[str] = field(default_factory=set)

    def put(self, case: Case) -> None:
        """Keep a changed case; one in which nothing happened changes nothing."""
        known = self.cases.get(case.handoff.handoff_id)
        if known is None or known.handoff != case.handoff:
            self.cases[case.handoff.handoff_id] = case
            self.fresh.add(case.handoff.handoff_id)
            self.dirty.add(case.handoff.handoff_id)

    def taken(self) -> list[Event]:
        """The events caused since it was last asked."""
        events: list[Event] = []
        for handoff_id in sorted(self.fresh):
            case = self.cases[handoff_id]
            is_locked = not case.handoff.is_open and any(self.of_lead(case.handoff.lead_id))
            events += still_locked(case.events) if is_locked else case.events
            self.cases[handoff_id] = replace(case, events=())
        self.fresh.clear()
        return events

    def aliases(self) -> list[tuple[str, str]]:
        """Each absorbed lead with its root, as both are after the batch."""
        return [(lead_id, self.roots[lead_id]) for lead_id in sorted(self.absorbed)]

    def changed_cases(self) -> list[Case]:
        return [self.cases[handoff_id] for handoff_id in sorted(self.dirty)]

    def terms(self, handoff: Handoff) -> Terms:
        return terms_of(self.agreements[handoff.agreement_version], handoff.facts)

    def of_lead(self, lead_id: str, *, is_open: bool = True) -> Iterator[Case]:
        """Its open handoffs, or all of them, by id."""
        its = [case for case in self.cases.values() if case.handoff.lead_id == lead_id]
        yield from sorted(
            (case for case in its if case.handoff.is_open or not is_open), key=lambda case: case.handoff.handoff_id
        )


def handoff_id_of(mql_id: str) -> str:
    return f"handoff_{mql_id.removeprefix('mql_')}"


def open_handoff(desk: Desk, mql: MqlQualified, traceparent: str) -> None:
    """A new MQL: routed, its clocks running, what sales did since it qualified applied. A known one changes nothing."""
    handoff_id, root = handoff_id_of(mql.mql_id), desk.roots[mql.lead_id]
    if handoff_id in desk.cases:
        return
    handoff = Handoff(
        handoff_id=handoff_id,
        mql_id=mql.mql_id,
        lead_id=root,
        opened_for=mql.lead_id,
        product=mql.product,
        motion=mql.motion,
        cycle=mql.cycle,
        clause=mql.clause,
        facts=facts_of(mql),
        agreement_version=mql.agreement_version,
        traceparent=traceparent,
        qualified_at=mql.qualified_at,
        opened_at=desk.now,
    )
    terms = desk.terms(handoff)
    case, shares = routed(Case(handoff), terms, desk.shares, desk.now)
    desk.shares.update(shares)
    desk.dirty_shares.update(shares)
    desk.put(all_touched(case, desk.touches.get(root, ()), terms, desk.now))
    for deal in [deal for deal in desk.deals.values() if deal.lead_id == root and deal.handoff_id is None]:
        follow_deal(desk, deal)
    give_way(desk, root, mql.mql_id)


def merge(desk: Desk, merged: LeadMerged, cause: str) -> None:
    """The absorbed lead is the survivor from now on: its handoffs, touches and deals with it."""
    absorbed, survivor = merged.absorbed_id, desk.roots[merged.survivor_id]
    if desk.roots[absorbed] != absorbed or absorbed == survivor:
        return
    desk.absorbed.add(absorbed)
    desk.roots = {lead: survivor if root == absorbed else root for lead, root in desk.roots.items()}
    moved, stayed = list(desk.of_lead(absorbed, is_open=False)), list(desk.of_lead(survivor))
    for case in moved:
        desk.put(replace(case, handoff=replace(case.handoff, lead_id=survivor)))
    give_way(desk, survivor, cause)
    gained = {case.handoff.handoff_id: desk.touches.get(survivor, []) for case in moved}
    gained |= {case.handoff.handoff_id: desk.touches.get(absorbed, []) for case in stayed}
    for case in list(desk.of_lead(survivor)):
        new = gained.get(case.handoff.handoff_id, [])
        desk.put(all_touched(case, new, desk.terms(case.handoff), desk.now))
    desk.touches[survivor] = [*desk.touches.pop(absorbed, []), *desk.touches.get(survivor, [])]
    for key, deal in list(desk.deals.items()):
        if deal.lead_id == absorbed:
            desk.deals[key] = replace(deal, lead_id=survivor)
    for deal in [deal for deal in desk.deals.values() if deal.lead_id == survivor]:
        if _is_without_cycle(desk, deal):
            follow_deal(desk, deal)


def give_way(desk: Desk, lead_id: str, cause: str) -> None:
    """One handoff a product and motion: the less advanced, then the younger, ends as merged, its cycle does not."""
    kept: dict[tuple[str, str], Case] = {}
    for case in sorted(desk.of_lead(lead_id), key=_standing):
        place = (case.handoff.product, case.handoff.motion)
        if place in kept:
            change = Change(Action.MERGE, "baton", cause)
            desk.put(changed(case, change, desk.terms(case.handoff), desk.now))
        kept.setdefault(place, case)


def decide_retraction(desk: Desk, asked: MqlRetractionRequested, cause: str) -> None:
    """Granted while nobody of sales has done anything; an MQL not known, or retracted already, has no answer."""
    case = desk.cases.get(handoff_id_of(asked.mql_id))
    if case is None or case.handoff.state is State.RETRACTED:
        return
    is_untouched = case.handoff.attempts == 0 and case.handoff.state in TABLE[Action.RETRACT].sources
    action = Action.RETRACT if is_untouched else Action.REFUSE_RETRACTION
    change = Change(action, "scoring", cause, reason=asked.reason)
    desk.put(changed(case, change, desk.terms(case.handoff), desk.now))


def apply_touch(desk: Desk, touch: Touch) -> None:
    """A new touch, to each handoff of its lead; to an ended one it may still be a late report."""
    for case in list(desk.of_lead(touch.lead_id, is_open=False)):
        desk.put(all_touched(case, [touch], desk.terms(case.handoff), desk.now))


def tell_deal(desk: Desk, event: OpportunityChanged) -> None:
    """What the CRM says of a deal, unless it said something later already."""
    key = (event.system, event.opportunity_id)
    known = desk.deals.get(key)
    if known is not None and (event.occurred_at, event.received_at) <= (known.occurred_at, known.received_at):
        return
    deal = Deal(
        source=event.system,
        opportunity_id=event.opportunity_id,
        lead_id=desk.roots[event.lead_id],
        came_in_under=event.lead_id,
        stage=event.stage,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
        handoff_id=known.handoff_id if known else None,
        name=event.name,
        amount=str(event.amount) if event.amount is not None else None,
        currency=event.currency,
        owner=event.owner,
        product=event.product,
        motion=event.motion,
        reason=event.reason,
    )
    desk.deals[key] = deal
    desk.dirty_deals.add(key)
    if known is None:
        desk.new_deals.add(key)
    follow_deal(desk, deal)


def follow_deal(desk: Desk, deal: Deal) -> None:
    """Link a deal to the one cycle it belongs to, and move that handoff to the stage its agreement maps it to."""
    linked = None if _is_without_cycle(desk, deal) else desk.cases.get(deal.handoff_id or "")
    case = linked or _cycle_of(desk, deal)
    if case is None:
        return
    terms = desk.terms(case.handoff)
    stage = terms.stage_of_deal(deal.source, deal.stage)
    if stage is None:
        return
    desk.deals[deal.key] = replace(deal, handoff_id=case.handoff.handoff_id)
    desk.dirty_deals.add(deal.key)
    at = min(deal.occurred_at, deal.received_at)
    change = Change(DEAL_ACTIONS[stage], deal.source, deal.opportunity_id, at=at, reason=deal.reason)
    desk.put(deal_moved(case, change, terms, desk.now))


def _is_without_cycle(desk: Desk, deal: Deal) -> bool:
    """Linked to no handoff, or to one that gave way to another in a merge."""
    case = desk.cases.get(deal.handoff_id) if deal.handoff_id else None
    return deal.handoff_id is None or (case is not None and case.handoff.state is State.MERGED)


def _cycle_of(desk: Desk, deal: Deal) -> Case | None:
    """The open handoff a new deal belongs to: of its product and motion, where named; the furthest, then the oldest."""
    fitting = [
        case
        for case in desk.of_lead(deal.lead_id)
        if case.handoff.qualified_at <= deal.occurred_at
        and deal.product in (None, case.handoff.product)
        and deal.motion in (None, case.handoff.motion)
    ]
    return min(fitting, key=_standing, default=None)


def _standing(case: Case) -> tuple[int, datetime, str]:
    """The most advanced first, then the oldest."""
    handoff = case.handoff
    assert handoff.state is not None, "a handoff in the books has a state"
    return -advance(handoff.state), handoff.qualified_at, handoff.handoff_id
