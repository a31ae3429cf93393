"""Changing a handoff in a transaction: its locks in the order of law 11, its terms, one change, everything written.

For what people do (`review.py`): `lock_handoff`, then `transition` or `record_touch`. Handlers, the router and the
watch work on many handoffs at once with the same steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime

from services.handoff.case import Case, Change, Handoff, Touch
from services.handoff.change import changed, touched
from services.handoff.notices import still_locked
from services.handoff.store import handoffs, leads, touches
from services.handoff.store.leads import Mention, RootChanged
from services.handoff.terms import Terms, terms_of
from shared.agreement import Agreement
from shared.agreement_copies import versions
from shared.db import Session
from shared.outbox import emit
from shared.telemetry import tracing

WAKE = "clock"  # the watch has something to do


class AgreementMissing(LookupError):
    """A handoff names a version of the agreement that this service does not have."""


async def lock_handoff(session: Session, handoff_id: str) -> Handoff | None:
    """The handoff with its clocks, its lead and itself under lock; None: there is none of that id.

    Raises `RootChanged`, upon which `Database.run` runs the transaction again.
    """
    lead_id = await handoffs.lead_of(session, handoff_id)
    if lead_id is None:
        return None
    await leads.lock(session, {lead_id: Mention()})
    (handoff,) = await handoffs.lock(session, [handoff_id])
    if handoff.lead_id != lead_id:
        raise RootChanged(f"{lead_id} was absorbed meanwhile")
    return handoff


async def transition(session: Session, handoff: Handoff, change: Change, *, now: datetime) -> Handoff:
    """Make one change to a locked handoff; as it is afterwards.

    Raises `IllegalTransition` and `ReasonRefused`, with nothing written. A rejection whose reason means another rep
    leaves it `unrouted`; the router follows within moments.
    """
    case = changed(Case(handoff), change, await terms_for(session, handoff), now)
    if case.handoff.ended_at and await handoffs.has_other_open(session, handoff):
        case = replace(case, events=still_locked(case.events))
    await save(session, [case])
    return case.handoff


async def record_touch(session: Session, handoff: Handoff, touch: Touch, *, now: datetime) -> Handoff:
    """Store a touch and apply it to every handoff of the lead; the given one as it is afterwards.

    `handoff` is locked. One that is known (by `touch_id`) changes nothing.
    """
    at = min(touch.occurred_at, touch.received_at)
    await leads.lock(session, {handoff.lead_id: Mention(at)})
    if not await touches.keep(session, [touch]):
        return handoff
    found = await handoffs.lock_of_leads(session, [handoff.lead_id])
    agreements = await load_agreements(session, found)
    cases = [touched(Case(each), touch, terms_in(agreements, each), now) for each in found]
    await save(session, [case for case in cases if case.lines or case.events])
    return next(case.handoff for case in cases if case.handoff.handoff_id == handoff.handoff_id)


async def load_agreements(session: Session, found: Iterable[Handoff]) -> dict[int, Agreement]:
    """The versions that these handoffs live under. Raises `AgreementMissing`."""
    numbers = {handoff.agreement_version for handoff in found}
    agreements = await versions(session, numbers) if numbers else {}
    if missing := numbers - agreements.keys():
        raise AgreementMissing(f"version {min(missing)} of the agreement is not here")
    return agreements


def terms_in(agreements: dict[int, Agreement], handoff: Handoff) -> Terms:
    """The terms of one handoff."""
    return terms_of(agreements[handoff.agreement_version], handoff.facts)


async def terms_for(session: Session, handoff: Handoff) -> Terms:
    return terms_in(await load_agreements(session, [handoff]), handoff)


async def save(session: Session, cases: Collection[Case]) -> None:
    """Write changed handoffs, their clocks and histories, and tell the others, each in its lead's trace."""
    await handoffs.save(session, [case.handoff for case in cases], [line for case in cases for line in case.lines])
    for case in cases:
        with tracing(case.handoff.traceparent):
            for event in case.events:
                emit(session, event)
    wake(session, cases)


def wake(session: Session, cases: Iterable[Case]) -> None:
    """Let the watch look at once where a handoff waits for the router; due clocks it finds by itself."""
    if any(case.handoff.route_at for case in cases):
        session.wake(WAKE)
