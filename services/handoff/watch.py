"""The clock workers: rows that are due by the database's clock, any number of workers, no leader.

A round claims handoffs whose clocks are due and that no other worker holds, and records reminders and breaches. Nobody
needs to save a record for a breach to happen. Then the router looks at what waits for it.
"""

from __future__ import annotations

import asyncio

import structlog

from services.handoff.case import Case
from services.handoff.change import rung
from services.handoff.router import route_waiting
from services.handoff.store import handoffs
from services.handoff.transitions import WAKE, load_agreements, save, terms_in
from shared.db import Database, DatabaseError, Session
from shared.failpoints import failpoint
from shared.heartbeat import beat

ROUND = 500  # handoffs: a transaction of about a second
POLL_SECONDS = 0.5  # what is due is seen at most this late
BACK_OFF_SECONDS = 1.0  # while the database is away

log = structlog.get_logger()


async def watch(
    database: Database, stop: asyncio.Event, *, poll_seconds: float = POLL_SECONDS, batch: int = ROUND
) -> None:
    """Run rounds of up to `batch` handoffs until stopped; an empty one waits for a hint, or `poll_seconds`."""
    signal = database.signal(WAKE)
    while not stop.is_set():
        beat()
        signal.clear()
        try:
            is_more = await one_round(database, batch)
        except DatabaseError as error:
            log.warning("clocks wait for the database", error=str(error))
            await _pause(stop, BACK_OFF_SECONDS)
            continue
        if not is_more:
            await _first_of(stop, signal, poll_seconds)


async def one_round(database: Database, batch: int = ROUND) -> bool:
    """Ring what is due and route what waits; whether there may be more."""
    rung_count = await database.run(lambda session: ring_due(session, batch))
    failpoint("watch.after_ring")
    routed_count = await database.run(lambda session: route_due(session, batch))
    return max(rung_count, routed_count) >= batch or rung_count > 0


async def ring_due(session: Session, limit: int = ROUND) -> int:
    """Reminders and breaches of up to `limit` handoffs, the longest due first; how many were claimed."""
    claimed = await handoffs.claim_due(session, limit)
    if not claimed:
        return 0
    agreements = await load_agreements(session, claimed)
    now = await session.now()
    await save(session, [rung(Case(handoff), terms_in(agreements, handoff), now) for handoff in claimed])
    return len(claimed)


async def route_due(session: Session, limit: int = ROUND) -> int:
    return await route_waiting(session, limit)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _first_of(stop: asyncio.Event, signal: asyncio.Event, poll_seconds: float) -> None:
    """Until one of them is set, or it is time to look again."""
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(signal.wait())]
    try:
        await asyncio.wait(waits, timeout=poll_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
