"""A new version of the agreement: leads that an older one scored are folded anew, in the background, a few at a time.

Whoever meets such a lead first does it: this role, or the batch with its next activity. Leads that somebody else holds
are left to him (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from services.scoring import store
from services.scoring.batch import Batch, take_version
from services.scoring.handlers import REFOLD
from services.scoring.publish import publish
from services.scoring.scorecard import cards_of
from shared.agreement_copies import in_force, versions
from shared.db import Database, DatabaseError, Session
from shared.heartbeat import beat

LEADS_A_BATCH = 100  # their whole histories are in memory, and their rows locked, at once
POLL_SECONDS = 5.0  # a version may come into force long after it was published

log = structlog.get_logger()


async def refold(database: Database, stop: asyncio.Event) -> None:
    """Fold anew what is outdated, until told to stop."""
    while not stop.is_set():
        try:
            done = await database.run(refold_some)
        except DatabaseError as error:
            log.warning("refold.waits", cause=type(error).__name__, detail=str(error))
            done = 0
        beat()
        if not done:
            await _wait(database.signal(REFOLD), stop)


async def refold_some(session: Session) -> int:
    """Fold some leads under the version now in force; how many there were."""
    now = await session.now()
    copy = await in_force(session, now)
    if copy is None:
        return 0
    locked = await store.lock_outdated(session, copy.version, LEADS_A_BATCH)
    if not locked.rows:
        return 0
    older = {row.agreement_version for row in locked.rows.values()} - {0}
    agreements = await versions(session, {copy.version, *older})
    cards = {version: cards_of(agreement) for version, agreement in agreements.items()}
    batch = Batch(await store.load(session, locked, cards, locked.rows), locked.roots, cards)
    for lead_id in sorted(locked.rows):
        take_version(batch, lead_id, copy.version, now)
    await publish(session, batch, now)
    return len(locked.rows)


async def _wait(signal: asyncio.Event, stop: asyncio.Event) -> None:
    """Until the signal, the stop, or the next poll."""
    waiting = {asyncio.ensure_future(event.wait()) for event in (signal, stop)}
    try:
        await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    signal.clear()
