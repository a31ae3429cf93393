"""Handlers, clock workers and people at the same leads at once: the books stay right, and nobody waits in a circle."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import pytest

from services.handoff.case import Change
from services.handoff.checks import checks
from services.handoff.handlers import record_sales, route_leads
from services.handoff.lifecycle import Action, IllegalTransition
from services.handoff.transitions import lock_handoff, transition
from services.handoff.watch import one_round
from shared.db import Database, Session
from shared.events import LeadMerged, MqlQualified, TouchRecorded
from shared.sql import sql
from tests.handoff.terms import handle, handoff_id, minutes, mql, publish
from tests.support import Databases

pytestmark = pytest.mark.slow

LEADS = [f"lead_{number:02}" for number in range(40)]
SURVIVORS = LEADS[:10]
DEADLOCKS = sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_runs_at_once_the_books_are_right(databases: Databases, seed: int) -> None:
    database = databases.open("handoff")
    await publish(database)
    chance, start = random.Random(seed), datetime.now(UTC)
    qualified = {lead_id: mql(lead_id, at=start - minutes(chance.choice([1, 11]))) for lead_id in LEADS}
    stop = asyncio.Event()
    workers = [asyncio.create_task(ring_until(stop, database)) for _ in range(2)]
    await asyncio.gather(*(work(database, qualified, random.Random(seed * 10 + place)) for place in range(4)))
    stop.set()
    await asyncio.gather(*workers)
    while await one_round(database):
        pass
    assert await database.read(checks) == []
    if databases.name == "postgresql":
        (row,) = await database.read(lambda session: session.execute(DEADLOCKS))
        assert row.deadlocks == 0


async def work(database: Database, qualified: dict[str, MqlQualified], chance: random.Random) -> None:
    """A partition's consumer and a person, in turns, each at leads that others work on too."""
    for _ in range(8):
        await handle(database, route_leads, [qualified[lead_id] for lead_id in chance.sample(LEADS, 12)])
        now = datetime.now(UTC)
        calls = [call(lead_id, chance.choice(["ana", "bo", "chi"]), now) for lead_id in chance.sample(LEADS, 6)]
        await handle(database, record_sales, calls)
        absorbed, survivor = chance.choice(LEADS[10:]), chance.choice(SURVIVORS)
        await handle(database, route_leads, [LeadMerged(absorbed_id=absorbed, survivor_id=survivor, merged_at=now)])
        with suppress(IllegalTransition):
            await database.run(partial(reject, lead_id=chance.choice(LEADS)))


def call(lead_id: str, by: str, at: datetime) -> TouchRecorded:
    touch_id = f"{lead_id}-{by}-{at.isoformat()}"
    return TouchRecorded(
        lead_id=lead_id,
        touch_id=touch_id,
        kind="call_logged",
        by=by,
        source="hubspot",
        source_id=touch_id,
        occurred_at=at,
        received_at=at,
    )


async def reject(session: Session, lead_id: str) -> None:
    handoff = await lock_handoff(session, handoff_id(lead_id))
    if handoff is not None:
        change = Change(Action.REJECT, handoff.owner or "nobody", "test", reason="wrong_territory")
        await transition(session, handoff, change, now=await session.now())


async def ring_until(stop: asyncio.Event, database: Database) -> None:
    while not stop.is_set():
        await one_round(database, 5)
        await asyncio.sleep(0)
