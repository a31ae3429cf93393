"""A group of arrivals, in one transaction: kept as they came, given to leads, told to the rest of Baton.

Every door takes its locks in one order: inbox, identities, contact details; the rows of each by their key.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from services.scoring.announce import Moment, events, merged, record_id
from services.scoring.arrivals import Arrival, Entry, Unusable, Verdict, content_id
from services.scoring.identity import LEAD_ID
from services.scoring.recognise import recognise
from services.scoring.resolve import Claim, Resolution
from services.scoring.sources.reading import clean
from services.scoring.store import door as store
from services.scoring.store import inbox
from shared.agreement_copies import in_force
from shared.db import Session
from shared.outbox import emit
from shared.telemetry import tracing

RETRIED = timedelta(hours=1)  # so long after midnight, what came before it may be meant again
DIFFERENT_BODY = "different body under a known id: the first one counts"


async def admit(session: Session, entries: Sequence[Entry]) -> list[Verdict]:
    """A verdict for each entry, in order; true once the transaction is committed."""
    received_at = await session.now()
    await _keep_bodies(session, entries, received_at)
    entries = await _refuse_unknown_leads(session, entries)
    entries = await name_by_day(session, entries, received_at)
    new, differing = await _keep_new(session, entries, received_at)
    repeated = [entry for place, entry in enumerate(entries) if place not in new]
    resolution = await recognise(session, _claims(new.values()), _claims(repeated), received_at)
    leads = dict(zip(new, resolution.leads, strict=True))
    agreement = await in_force(session, received_at)
    moment = Moment(received_at, agreement.version if agreement else None)
    _tell(session, list(new.values()), resolution, moment)
    await _keep_facts(session, [(new[place], lead_id) for place, lead_id in leads.items()], received_at)
    await _keep_conflicts(session, list(new.values()), resolution, received_at)
    flagged = [entries[place].refused(DIFFERENT_BODY) for place in sorted(differing)]
    shortened = [entry.refused(note) for entry in new.values() if (note := _note(entry.item))]
    await _keep_refused(session, [*entries, *flagged, *shortened], received_at)
    return [
        _verdict(entry, leads.get(place), resolution, is_different=place in differing)
        for place, entry in enumerate(entries)
    ]


async def _keep_bodies(session: Session, entries: Iterable[Entry], received_at: datetime) -> None:
    bodies = {entry.delivery_id: (entry.delivery_id, entry.source, entry.body) for entry in entries}
    await store.put_deliveries(session, list(bodies.values()), received_at=received_at)


async def _refuse_unknown_leads(session: Session, entries: Sequence[Entry]) -> list[Entry]:
    """Records that name a lead which does not exist cannot be used; before the inbox remembers them."""
    named = {place: lead_id for place, entry in enumerate(entries) if (lead_id := _named_lead(entry.item))}
    if not named:
        return list(entries)
    found = await store.existing(session, named.values())
    return [
        entry if named.get(place, "") in found or place not in named else entry.refused("lead_id: no such lead")
        for place, entry in enumerate(entries)
    ]


async def name_by_day(session: Session, entries: Sequence[Entry], received_at: datetime) -> list[Entry]:
    """Items with neither an id nor a time are repetitions on the day of their receipt only: people call twice.

    A sender that got no answer before midnight and repeats soon after it means the same one.
    """
    timeless = [
        place for place, entry in enumerate(entries) if isinstance(entry.item, Arrival) and entry.item.is_timeless
    ]
    named = list(entries)
    for place in timeless:
        named[place] = entries[place].of_day(received_at)
    since = received_at - RETRIED
    if not timeless or since.date() == received_at.date():
        return named
    before = {place: entries[place].of_day(since) for place in timeless}
    repeated = await inbox.received_since(session, {entry.key for entry in before.values()}, since)
    for place, entry in before.items():
        if entry.key in repeated:
            named[place] = entry
    return named


def _named_lead(item: Arrival | Unusable) -> str | None:
    claim = item.claim if isinstance(item, Arrival) else Claim()
    return next((identity.value for identity in claim.all if identity.kind == LEAD_ID), None)


async def _keep_new(
    session: Session, entries: Sequence[Entry], received_at: datetime
) -> tuple[dict[int, Entry], set[int]]:
    """The entries that are new, by place; and the places of those with another body than the first under their id."""
    first: dict[inbox.Key, int] = {}
    for place, entry in enumerate(entries):
        if isinstance(entry.item, Arrival):
            first.setdefault(entry.key, place)
    rows = {key: (_digest(entries[place]), entries[place].delivery_id) for key, place in first.items()}
    new, kept = await inbox.put_inbox(session, rows, received_at=received_at) if rows else (set(), {})
    differing = {
        place
        for place, entry in enumerate(entries)
        if isinstance(entry.item, Arrival) and _digest(entry) != kept.get(entry.key, rows[entry.key][0])
    }
    return {place: entries[place] for key, place in first.items() if key in new}, differing


def _note(item: Arrival | Unusable) -> str:
    return item.note if isinstance(item, Arrival) else ""


def _digest(entry: Entry) -> str:
    return content_id(entry.item.item)


def _claims(entries: Iterable[Entry]) -> list[Claim]:
    return [entry.item.claim for entry in entries if isinstance(entry.item, Arrival)]


def _tell(session: Session, new: Sequence[Entry], resolution: Resolution, moment: Moment) -> None:
    """Put what happened into the outbox, each record under the trace it came with."""
    merges = defaultdict(list)
    for merge in resolution.merges:
        merges[merge.place].append(merge)
    for place, (entry, lead_id) in enumerate(zip(new, resolution.leads, strict=True)):
        with tracing(entry.traceparent):
            for merge in merges[place]:
                emit(session, merged(entry, merge, moment))
            for event_id, event in events(entry, lead_id, moment):
                emit(session, event, event_id=event_id)


async def _keep_facts(session: Session, found: Iterable[tuple[Entry, str]], received_at: datetime) -> None:
    rows = [
        (lead_id, name, value, entry.item.when.occurred(received_at)[0], record_id("act", entry))
        for entry, lead_id in found
        if isinstance(entry.item, Arrival)
        for name, value in entry.item.contact.items()
    ]
    await store.put_contact_facts(session, rows)


async def _keep_conflicts(
    session: Session, new: Sequence[Entry], resolution: Resolution, received_at: datetime
) -> None:
    rows = []
    for conflict in resolution.conflicts:
        entry, kind = new[conflict.place], conflict.identity.kind
        conflict_id = _id_of(*entry.key, kind)
        rows.append((conflict_id, *entry.key, conflict.lead_id, conflict.other, kind))
    await store.put_conflicts(session, rows, received_at=received_at)


async def _keep_refused(session: Session, refused: Iterable[Entry], received_at: datetime) -> None:
    rows = [
        (
            _id_of(*entry.key, entry.item.reason, content_id(entry.item.item)),
            entry.source,
            clean(entry.item.source_id),
            clean(entry.item.reason),
            entry.item.item,
            entry.delivery_id,
        )
        for entry in refused
        if isinstance(entry.item, Unusable)
    ]
    await store.put_quarantine(session, rows, received_at=received_at)


def _verdict(entry: Entry, lead_id: str | None, resolution: Resolution, *, is_different: bool) -> Verdict:
    if isinstance(entry.item, Unusable):
        return Verdict("rejected", entry.item.source_id, reason=entry.item.reason)
    if lead_id is not None:
        return Verdict("accepted", entry.item.source_id, lead_id, _note(entry.item) or None)
    found = [resolution.pointers[identity] for identity in entry.item.claim.all if identity in resolution.pointers]
    reason = DIFFERENT_BODY if is_different else None
    return Verdict("duplicate", entry.item.source_id, found[0] if found else None, reason)


def _id_of(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]
