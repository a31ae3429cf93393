"""The clock workers: rows that are due by the database's clock, any number of workers, no leader.

A round claims handoffs whose clocks are due and that no other worker holds, and records reminders and breaches. Nobody
needs to save a record for a breach to happen. Then the router looks at what waits for it.

A handoff that cannot be rung or routed (its agreement is not here, or newer than this code) must not stop the clocks of
all others: what fails is done again in halves, down to the one that fails alone. That one is put off, with an alarm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

import structlog

from services.handoff.case import Case
from services.handoff.change import rung
from services.handoff.router import route
from services.handoff.store import handoffs
from services.handoff.store.handoffs import Alarm
from services.handoff.transitions import WAKE, load_agreements, save, terms_in
from shared.db import Database, DatabaseError, Session, StatementTimeout
from shared.failpoints import failpoint
from shared.heartbeat import beat
from shared.telemetry import metrics, reason_of

ROUND = 500  # handoffs: a transaction of about a second
POLL_SECONDS = 0.5  # what is due is seen at most this late
BACK_OFF_SECONDS = 1.0  # while the database is away
PUT_OFF_FOR = timedelta(minutes=1)  # long enough to cost nothing, short enough to be seen mended

log = structlog.get_logger()


class Step(NamedTuple):
    """What is done in a transaction with the handoffs that it claims; `alarm`: the column that says when."""

    name: str
    claim: Callable[[Session, int], Awaitable[list[str]]]
    work: Callable[[Session, list[str]], Awaitable[None]]
    alarm: Alarm


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
            log.warning("clocks.waits", cause=type(error).__name__, detail=str(error))
            await _pause(stop, BACK_OFF_SECONDS)
            continue
        if not is_more:
            await _first_of(stop, signal, poll_seconds)


async def one_round(database: Database, batch: int = ROUND) -> bool:
    """Ring what is due and route what waits; whether there may be more."""
    rung_count = await carry_out(database, RING, batch)
    failpoint("watch.after_ring")
    routed_count = await carry_out(database, ROUTE, batch)
    return rung_count > 0 or routed_count >= batch


async def carry_out(database: Database, step: Step, limit: int = ROUND) -> int:
    """Do a step for up to `limit` handoffs, the longest due first; how many there were. Raises `DatabaseError`."""
    done, size = 0, limit
    claimed: list[str] = []

    async def work(session: Session) -> None:
        claimed[:] = ()
        claimed[:] = await step.claim(session, size)
        if claimed:
            await step.work(session, claimed)

    while done < limit:
        try:
            await database.run(work)
        except Exception as error:
            if isinstance(error, DatabaseError) and not isinstance(error, StatementTimeout):
                raise
            if not claimed:
                raise  # there is no handoff to blame
            if len(claimed) > 1:
                size = len(claimed) // 2
                continue
            await _put_off(database, step, claimed[0], error)
            done, size = done + 1, limit - done - 1
        else:
            done += len(claimed)
            if len(claimed) < size:
                break
    return done


async def _put_off(database: Database, step: Step, handoff_id: str, error: Exception) -> None:
    async def work(session: Session) -> None:
        await handoffs.put_off(session, handoff_id, step.alarm, await session.now() + PUT_OFF_FOR)

    await database.run(work)
    metrics.handoffs_put_off.labels(database.service, step.name).inc()
    log.error("clocks.put_off", step=step.name, handoff_id=handoff_id, cause=reason_of(error))


async def ring(session: Session, handoff_ids: list[str]) -> None:
    """Reminders and breaches of these handoffs, which are locked."""
    claimed = await handoffs.lock(session, handoff_ids)
    agreements = await load_agreements(session, claimed)
    now = await session.now()
    await save(session, [rung(Case(handoff), terms_in(agreements, handoff), now) for handoff in claimed])


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


RING = Step("ring", handoffs.claim_due, ring, "wake_at")
ROUTE = Step("route", handoffs.waiting, route, "route_at")
