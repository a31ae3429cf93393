"""The router: it alone assigns. What waits for it: breaches, logistics reasons, and what was unrouted too long.

A breach only asks for a new routing, because the worker that sees it holds the handoff's lock, and a pool is locked
before any handoff (law 11). So the router comes after, in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.handoff.case import Case, Handoff, Touch
from services.handoff.change import all_touched
from services.handoff.lifecycle import Action
from services.handoff.route import Member, Share, members_of, routed
from services.handoff.store import handoffs, leads, shares, touches
from services.handoff.store.leads import Mention, told
from services.handoff.terms import Terms
from services.handoff.transitions import load_agreements, save, terms_in
from shared.db import Session


async def route(session: Session, handoff_ids: Sequence[str]) -> None:
    """Assign those of these handoffs that still wait for it."""
    seen = await handoffs.read(session, handoff_ids)
    agreements = await load_agreements(session, seen)
    terms = {handoff.handoff_id: terms_in(agreements, handoff) for handoff in seen}
    held = await shares.lock(session, {member for each in terms.values() for member in members_of(each)})
    locked = await leads.lock(session, {handoff.lead_id: Mention() for handoff in seen})
    now = await session.now()
    waiting = [
        handoff
        for handoff in await handoffs.lock(session, handoff_ids)
        if handoff.route_at is not None and handoff.route_at <= now and handoff.lead_id in locked
    ]
    decisions = await _to_give_back(session, waiting)
    done = await touches.of_leads(session, told(locked))
    cases, changes = [], dict[Member, Share]()
    for handoff in waiting:
        its = terms[handoff.handoff_id]
        case, moved = routed(Case(handoff), its, {**held, **changes}, now, decisions.get(handoff.handoff_id))
        changes |= moved
        cases.append(_caught_up(case, done.get(handoff.lead_id, []), its, now))
    await save(session, cases)
    await shares.save(session, changes)


async def _to_give_back(session: Session, waiting: Sequence[Handoff]) -> dict[str, str]:
    """The decisions that gave a handoff to somebody whose business it was not."""
    rerouted = [handoff.handoff_id for handoff in waiting if handoff.route_cause == Action.REROUTE]
    return await handoffs.decisions(session, rerouted) if rerouted else {}


def _caught_up(case: Case, done: Sequence[Touch], terms: Terms, now: datetime) -> Case:
    """The case with what its new owner did before he had it; what a former owner did was applied at the time."""
    owner = case.handoff.owner
    if owner is None or any(past.owner == owner for past in case.handoff.past_owners):
        return case
    return all_touched(case, [touch for touch in done if terms.performer(touch.performer) == owner], terms, now)
