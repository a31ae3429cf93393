"""What handoff does with the records it reads: MQLs and merges from scoring, touches and deals from the CRM.

Each handler locks in the order of law 11, loads once, folds record by record (`desk.py`), writes once and emits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from services.handoff import desk as desks
from services.handoff.case import Case, Touch
from services.handoff.desk import Desk
from services.handoff.route import members_of
from services.handoff.store import handoffs, leads, shares, touches
from services.handoff.store.leads import Lead, Mention
from services.handoff.terms import facts_of, terms_of
from services.handoff.transitions import wake
from shared.agreement import Agreement
from shared.agreement_copies import versions
from shared.db import Session
from shared.envelope import Received
from shared.events import (
    Event,
    LeadErased,
    LeadEvent,
    LeadMerged,
    MqlQualified,
    MqlRetractionRequested,
    OpportunityChanged,
    TouchRecorded,
)
from shared.outbox import emit
from shared.outcomes import Reject, RetryLater
from shared.settle import Handler

E = TypeVar("E", bound=Event)
Records = Sequence[Received[Event]]


async def route_leads(records: Records, *, session: Session, now: datetime) -> None:
    """Open a handoff for each new MQL; merge, retract and forget as scoring says."""
    agreements = await _agreements_of_mqls(session, records)
    members = {member for event in _of(records, MqlQualified) for member in _members(agreements, event)}
    held = await shares.lock(session, members)
    mentioned = _mentions(records)
    locked = await leads.lock(session, mentioned)
    desk = await _desk(session, locked, mentioned, agreements, now)
    desk.shares = held
    told = leads.told(locked)
    desk.touches = await touches.of_leads(session, told)
    desk.deals = await touches.deals_of_leads(session, told)
    asked = [desks.handoff_id_of(event.mql_id) for event in _of(records, MqlRetractionRequested)]
    answered = await handoffs.refused(session, asked) if asked else set()
    for received in records:
        _follow(desk, received, answered)
        _say(session, desk, received)
    await _write(session, desk)
    await _forget(session, desk, list(_of(records, LeadErased)))


async def record_sales(records: Records, *, session: Session, now: datetime) -> None:
    """Store what sales did, for leads known or not yet, and move the handoffs it concerns."""
    deals = {(event.system, event.opportunity_id) for event in _of(records, OpportunityChanged)}
    places = await touches.places(session, deals)
    mentioned = _told(records, {lead_id for place in places.values() for lead_id in place.leads})
    locked = await leads.lock(session, mentioned)
    desk = await _desk(session, locked, mentioned, {}, now)
    desk.deals = await touches.deals(session, deals, places)
    told = {event.touch_id: _touch(event, desk.roots) for event in _of(records, TouchRecorded)}
    new = await touches.keep(session, told.values())
    for received in records:
        event = received.event
        if isinstance(event, TouchRecorded) and event.touch_id in new:
            new.discard(event.touch_id)
            desks.apply_touch(desk, told[event.touch_id])
        elif isinstance(event, OpportunityChanged):
            desks.tell_deal(desk, event)
        _say(session, desk, received)
    await _write(session, desk)


def _follow(desk: Desk, received: Received[Event], answered: set[str]) -> None:
    match received.event:
        case MqlQualified() as mql:
            desks.open_handoff(desk, mql, received.traceparent)
        case LeadMerged() as merged:
            desks.merge(desk, merged, received.id)
        case MqlRetractionRequested() as asked if received.id not in answered:
            answered.add(received.id)
            desks.decide_retraction(desk, asked, received.id)


def _say(session: Session, desk: Desk, received: Received[Event]) -> None:
    for event in desk.taken():
        emit(session, event, cause=received)


async def _write(session: Session, desk: Desk) -> None:
    """Everything that changed, each table once."""
    cases = desk.changed_cases()
    await handoffs.save(session, [case.handoff for case in cases], [line for case in cases for line in case.lines])
    await shares.save(session, {member: desk.shares[member] for member in desk.dirty_shares})
    await touches.save_deals(session, [desk.deals[key] for key in desk.dirty_deals], desk.new_deals)
    if aliases := desk.aliases():
        await leads.merge(session, aliases)
        await touches.move(session, aliases)
    wake(session, cases)


async def _desk(
    session: Session,
    locked: Mapping[str, Lead],
    mentioned: Mapping[str, Mention],
    agreements: Mapping[int, Agreement],
    now: datetime,
) -> Desk:
    """The desk with every handoff of the locked leads, and the versions that these live under."""
    wanted = locked.keys() - leads.without_handoffs(locked, mentioned)
    found = await handoffs.lock_of_leads(session, wanted)
    missing = {handoff.agreement_version for handoff in found} - agreements.keys()
    all_agreements = {**agreements, **(await versions(session, missing) if missing else {})}
    return Desk(
        now=now,
        roots=leads.roots_of(locked),
        agreements=all_agreements,
        cases={handoff.handoff_id: Case(handoff) for handoff in found},
    )


async def _agreements_of_mqls(session: Session, records: Records) -> dict[int, Agreement]:
    """The versions that these MQLs name. One that is not published here yet makes its record wait."""
    wanted = {event.agreement_version for event in _of(records, MqlQualified)}
    agreements = await versions(session, wanted) if wanted else {}
    for received in records:
        event = received.event
        if isinstance(event, MqlQualified) and event.agreement_version not in agreements:
            raise RetryLater(received, f"version {event.agreement_version} of the agreement is not here yet")
    return agreements


async def _forget(session: Session, desk: Desk, erased: Sequence[LeadErased]) -> None:
    """What people wrote about erased leads; ids and instants stay, they are the books."""
    if not erased:
        return
    roots = sorted({desk.roots[event.lead_id] for event in erased})
    await leads.erase(session, [(desk.roots[event.lead_id], event.erased_at) for event in erased])
    await handoffs.forget_notes(session, roots)
    await touches.forget(session, roots)


def _members(agreements: Mapping[int, Agreement], mql: MqlQualified) -> list[tuple[str, str]]:
    return members_of(terms_of(agreements[mql.agreement_version], facts_of(mql)))


def _mentions(records: Records) -> dict[str, Mention]:
    mqls = Counter(event.lead_id for event in _of(records, MqlQualified))
    absorbed = {event.absorbed_id for event in _of(records, LeadMerged)}
    named = {lead_id for received in records for lead_id in _named(received)}
    return {lead_id: Mention(mqls=mqls[lead_id], is_absorbed=lead_id in absorbed) for lead_id in named}


def _named(received: Received[Event]) -> tuple[str, ...]:
    event = received.event
    if isinstance(event, LeadMerged):
        return event.absorbed_id, event.survivor_id
    if isinstance(event, LeadEvent):
        return (event.lead_id,)
    raise Reject(received, f"{event.type} names no lead")


def _told(records: Records, others: Collection[str]) -> dict[str, Mention]:
    """The leads for which sales did something, and those that what was told before belongs to."""
    mentioned = {lead_id: Mention() for lead_id in others}
    for received in records:
        said = _sales(received)
        before = mentioned.get(said.lead_id, Mention()).told_at
        mentioned[said.lead_id] = Mention(max(said.occurred_at, before or said.occurred_at))
    return mentioned


def _sales(received: Received[Event]) -> TouchRecorded | OpportunityChanged:
    if isinstance(received.event, TouchRecorded | OpportunityChanged):
        return received.event
    raise Reject(received, f"{received.event.type} is nothing that sales did")


def _touch(event: TouchRecorded, roots: Mapping[str, str]) -> Touch:
    return Touch(
        touch_id=event.touch_id,
        lead_id=roots[event.lead_id],
        came_in_under=event.lead_id,
        kind=event.kind,
        performer=event.by,
        source=event.source,
        source_id=event.source_id,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
        outcome=event.outcome,
    )


def _of(records: Records, kind: type[E]) -> Iterable[E]:
    return (received.event for received in records if isinstance(received.event, kind))


HANDLERS: Mapping[str, Handler] = {
    "baton.leads.v1": route_leads,
    "baton.crm.v1": record_sales,
}
