"""Who is who, against what all doors know: the database decides between doors, `resolve` between records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.scoring.identity import KNOWN, PROVISIONAL, Identity
from services.scoring.resolve import Claim, Known, Resolution, resolve
from services.scoring.store import door as store
from shared.clock import uuid7
from shared.db import Session


async def recognise(
    session: Session, claims: Sequence[Claim], lookups: Sequence[Claim], received_at: datetime
) -> Resolution:
    """Who is who: the lead of each claim, new identities stored; those of `lookups` are looked up and change nothing.

    New identities are stored under the leads they would get if nobody else knew them; then what all doors know is read,
    and decides. Only what exists and would change is locked, and then read again: two doors that teach one lead a user
    id each must not both find that it had none.
    """
    first = resolve(claims, Known(), _mint)
    stored = {identity for claim in claims for identity in claim.stored}
    inserted = await store.put_identities(
        session, {identity: first.pointers[identity] for identity in stored}, created_at=received_at
    )
    candidates = {identity: first.pointers[identity] for identity in inserted}
    everything = [identity for claim in (*claims, *lookups) for identity in claim.all]
    people: set[str] = set()
    pointers: set[Identity] = set()
    while True:
        known = await store.mapping(session, everything)
        resolution = resolve(claims, _before(known, inserted), _mint, candidates)
        if resolution.people_at_stake <= people and resolution.pointers_at_stake <= pointers:
            break
        people |= resolution.people_at_stake
        pointers |= resolution.pointers_at_stake
        await store.lock(session, people, pointers)
    changed = {identity for identity in inserted if resolution.pointers[identity] != candidates[identity]}
    changed |= resolution.pointers_at_stake
    await store.point(session, {identity: resolution.pointers[identity] for identity in changed})
    await store.join_people(session, resolution.people)
    return resolution


def _before(known: Known, inserted: set[Identity]) -> Known:
    """What was known before this group stored its own identities."""
    return Known(
        leads={identity: lead for identity, lead in known.leads.items() if identity not in inserted},
        people=known.people,
        holdings={person: held - inserted for person, held in known.holdings.items()},
    )


def _mint(provisional: bool) -> str:
    return f"{PROVISIONAL if provisional else KNOWN}{uuid7()}"
