"""The scorer: activities become scores, and scores, at the crossing, MQLs.

Each handler locks its leads, loads them, folds in memory (`batch`), writes arrays, and tells what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, cast

from services.scoring import store
from services.scoring.batch import Batch, Cards, take_activity, take_end_of_cycle, take_merge
from services.scoring.publish import publish
from services.scoring.scorecard import cards_of
from services.scoring.store import Locked
from shared.agreement_copies import keep_agreements, versions
from shared.db import Session
from shared.envelope import Received
from shared.events import ActivityRecorded, Event, HandoffEvent, HandoffMerged, IdentityMerged
from shared.outcomes import RetryLater

REFOLD = "refold"  # the signal that a version of the agreement may have come into force


async def score_activities(records: Sequence[Received[Event]], *, session: Session, now: datetime) -> None:
    """Count each activity once, join leads that are one person, and qualify those that cross."""
    merges = [received.event for received in records if isinstance(received.event, IdentityMerged)]
    activities = [received.event for received in records if isinstance(received.event, ActivityRecorded)]
    merging = {lead_id for merge in merges for lead_id in (merge.absorbed_id, merge.survivor_id)}
    locked = await store.lock(session, {activity.lead_id for activity in activities} | merging, merging=merging)
    cards = await _cards(session, locked, records)
    new = await store.insert_activities(session, activities, locked.roots)
    leads = await store.load(session, locked, cards, _to_fold_anew(locked, activities, merging))
    _without(leads.values(), new)
    batch = Batch(leads, locked.roots, cards)
    for received in records:
        if isinstance(received.event, IdentityMerged):
            take_merge(batch, cast("Received[IdentityMerged]", received))
        elif isinstance(received.event, ActivityRecorded) and received.event.activity_id in new:
            new.remove(received.event.activity_id)
            take_activity(batch, cast("Received[ActivityRecorded]", received))
    await publish(session, batch, now)


async def end_cycles(records: Sequence[Received[Event]], *, session: Session, now: datetime) -> None:
    """Sales is done with an MQL: its lead's next cycle begins, and it is judged over what was received since."""
    closing: dict[str, Received[Event]] = {}
    for received in records:
        if (event := _closes(received)) is not None:
            closing.setdefault(event.mql_id, received)
    made_for = await store.leads_of_mqls(session, closing) if closing else {}
    if not made_for:
        return
    locked = await store.lock(session, made_for.values())
    cards = await _cards(session, locked, ())
    closed = await store.close_mqls(session, [_closing(closing[mql_id].event) for mql_id in made_for])
    causes = {locked.roots[lead_id]: closing[mql_id] for mql_id, lead_id in made_for.items()}
    batch = Batch(await store.load(session, locked, cards, closed), locked.roots, cards)
    for lead_id in sorted(closed):
        take_end_of_cycle(batch, lead_id, causes[lead_id])
    await publish(session, batch, now)


async def take_agreements(records: Sequence[Received[Event]], *, session: Session, now: datetime) -> None:
    """Keep the published versions; what an older one scored is folded anew in the background."""
    await keep_agreements(records, session=session, now=now)
    session.wake(REFOLD)


async def _cards(session: Session, locked: Locked, records: Sequence[Received[Event]]) -> Cards:
    """The scorecards of each version that leads or records name. `RetryLater`: it is not here yet."""
    named = {row.agreement_version for row in locked.rows.values()}
    named |= {_version(received.event) for received in records}
    agreements = await versions(session, named - {0})
    for received in records:
        if (version := _version(received.event)) and version not in agreements:
            raise RetryLater(received, f"version {version} of the agreement is not here yet")
    return {version: cards_of(agreement) for version, agreement in agreements.items()}


def _version(event: Event) -> int:
    return (event.agreement_version or 0) if isinstance(event, ActivityRecorded) else 0


def _to_fold_anew(locked: Locked, activities: Iterable[ActivityRecorded], merging: Iterable[str]) -> set[str]:
    """The roots whose history a merge, or a newer version, may ask for."""
    roots = {locked.roots[lead_id] for lead_id in merging}
    for activity in activities:
        row = locked.rows[locked.roots[activity.lead_id]]
        if _version(activity) > row.agreement_version and row.last_received_at is not None:
            roots.add(row.lead_id)
    return roots


def _without(leads: Iterable[Any], new: set[str]) -> None:
    """Histories as they were before this batch: what is new comes in lane order."""
    for lead in leads:
        if lead.history:
            lead.history = [activity for activity in lead.history if activity.activity_id not in new]


def _closes(received: Received[Event]) -> HandoffEvent | None:
    event = received.event
    return event if isinstance(event, HandoffEvent) and (event.ends_cycle or isinstance(event, HandoffMerged)) else None


def _closing(event: Event) -> tuple[str, datetime | None, datetime | None]:
    if not isinstance(event, HandoffEvent):
        raise TypeError(f"{event.type} closes no MQL")
    if event.ends_cycle:
        return event.mql_id, event.ended_at or event.at, None
    return event.mql_id, None, event.at


HANDLERS = {
    "baton.agreements.v1": take_agreements,
    "baton.handoffs.v1": end_cycles,
    "baton.activities.v1": score_activities,
}
