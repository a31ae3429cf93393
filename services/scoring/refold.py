"""A new version of the agreement: leads that an older one scored are folded anew, in the background, a few at a time.

Whoever meets such a lead first does it: this role, or the batch with its next activity. Leads that somebody else holds
are left to him (SKIP LOCKED).

One lead that cannot be folded stops nobody: after an error the next batch is half as large, down to the lead itself,
which is put off; a batch that succeeds lets the next one grow. Trouble of the database is nobody's, and waited for,
but for a statement that took too long: that is a batch too large.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from services.scoring import store
from services.scoring.batch import Batch, take_version
from services.scoring.handlers import REFOLD
from services.scoring.publish import publish
from services.scoring.scorecard import cards_of
from shared.agreement_copies import in_force, versions
from shared.clock import Clock, system_clock
from shared.db import Database, DatabaseError, Session, StatementTimeout
from shared.heartbeat import beat
from shared.telemetry import metrics

LEADS_A_BATCH = 100  # their whole histories are in memory, and their rows locked, at once
POLL_SECONDS = 5.0  # a version may come into force long after it was published
PUT_OFF = timedelta(hours=1)  # a bug waits for a deployment, which forgets who was put off anyway

log = structlog.get_logger()


@dataclass(slots=True)
class Pace:
    """How many leads are taken at once, which were taken last, and which are put off until when."""

    size: int = LEADS_A_BATCH
    taken: tuple[str, ...] = ()
    put_off: dict[str, datetime] = field(default_factory=dict)

    def forget(self, now: datetime) -> None:
        """Let those try again whose time has come."""
        self.put_off = {lead_id: until for lead_id, until in self.put_off.items() if until > now}


async def refold(database: Database, stop: asyncio.Event) -> None:
    """Fold anew what is outdated, until told to stop."""
    pace = Pace()
    while not stop.is_set():
        beat()
        if not await refold_step(database, pace):
            await _wait(database.signal(REFOLD), stop)


async def refold_step(database: Database, pace: Pace, clock: Clock = system_clock) -> bool:
    """One batch, and how the next one is to be; whether there may be more to do at once."""
    pace.forget(clock())
    pace.taken = ()

    async def work(session: Session) -> int:
        return await refold_some(session, pace)

    try:
        done = await database.run(work)
    except DatabaseError as error:
        if isinstance(error, StatementTimeout):
            _slow_down(pace, error, clock())
            return bool(pace.taken)
        log.warning("refold.waits", cause=type(error).__name__, detail=str(error))
        return False
    except Exception as error:
        if not pace.taken:
            raise  # it is not about any lead
        _slow_down(pace, error, clock())
        return True
    pace.size = min(2 * pace.size, LEADS_A_BATCH)
    return done > 0


async def refold_some(session: Session, pace: Pace) -> int:
    """Fold some leads under the version now in force; how many there were."""
    now = await session.now()
    copy = await in_force(session, now)
    if copy is None:
        return 0
    locked = await store.lock_outdated(session, copy.version, pace.size, pace.put_off)
    pace.taken = tuple(locked.rows)
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


def _slow_down(pace: Pace, error: Exception, now: datetime) -> None:
    """Half as many; a lead that is at fault alone waits, and others go on."""
    pace.size = max(1, (len(pace.taken) or pace.size) // 2)
    if len(pace.taken) != 1:
        log.warning("refold.halves", cause=type(error).__name__, leads=len(pace.taken))
        return
    (lead_id,) = pace.taken
    pace.put_off[lead_id] = now + PUT_OFF
    metrics.leads_put_off.inc()
    log.error("refold.puts_off", lead_id=lead_id, until=pace.put_off[lead_id], exc_info=error)


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
