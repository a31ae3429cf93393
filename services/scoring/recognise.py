"""Who is who, against what all doors know: the database decides between doors, `resolve` between records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from services.scoring.identity import KNOWN, LEAD_ID, PROVISIONAL, Identity
from services.scoring.resolve import Claim, Known, Resolution, resolve
from services.scoring.store import door as store
from shared.clock import uuid7
from shared.db import DatabaseUnavailable, Session


class MappingMoved(DatabaseUnavailable):
    """Another door changed who is at stake between the look and the lock: the group runs again, whole.

    Locking the rest as well would take locks out of their order, and two doors would wait in a circle.
    """


async def recognise(
    session: Session, claims: Sequence[Claim], lookups: Sequence[Claim], received_at: datetime
) -> Resolution:
    """Who is who: the lead of each claim, new identities stored; those of `lookups` are looked up and change nothing.

    New identities are stored under the leads they would get if nobody else knew them; then what all doors know is read,
    and decides. Raises `MappingMoved`.
    """
    first = resolve(claims, Known(), _mint)
    stored = {identity: first.pointers[identity] for claim in claims for identity in claim.stored}
    inserted = await store.put_identities(session, stored, created_at=received_at)
    candidates = {identity: stored[identity] for identity in inserted}
    everything = [identity for claim in (*claims, *lookups) for identity in claim.all]

    async def look() -> Resolution:
        known = await store.mapping(session, everything)
        return resolve(claims, _before(known, inserted), _mint, candidates)

    resolution = await look()
    if resolution.people_at_stake or resolution.pointers_at_stake:
        resolution = await _look_again(session, claims, resolution, inserted, look)
    changed = {identity for identity in inserted if resolution.pointers[identity] != candidates[identity]}
    changed |= resolution.pointers_at_stake
    await store.point(session, {identity: resolution.pointers[identity] for identity in changed})
    await store.join_people(session, resolution.people)
    return resolution


async def _look_again(
    session: Session,
    claims: Sequence[Claim],
    seen: Resolution,
    inserted: set[Identity],
    look: Callable[[], Awaitable[Resolution]],
) -> Resolution:
    """Lock what existed and would change, and look again under the locks.

    Two doors that teach one lead a user id each must not both find that it had none. Anonymous ids of everybody who is
    identified are locked, not only those at stake: whom they point to is what other doors change most.
    """
    pointers = {
        identity
        for claim in claims
        if claim.strong
        for identity in (*claim.weak, *claim.if_known)
        if identity.kind != LEAD_ID and identity not in inserted
    }
    await store.lock(session, seen.people_at_stake, pointers)
    resolution = await look()
    if not resolution.people_at_stake <= seen.people_at_stake or not resolution.pointers_at_stake <= pointers:
        raise MappingMoved("who is who changed meanwhile")
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
