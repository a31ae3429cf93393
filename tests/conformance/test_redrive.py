"""A dead letter whose cause was mended: applied once, in order, however often it is sent back, on both profiles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.envelope import Received
from shared.events import ActivityRecorded
from shared.outcomes import Reject
from shared.redrive import redrive, send_back
from shared.relay import Relay, RelaySettings
from shared.topics import dead_letter_topic
from tests.conformance.test_consume import CREATE, TOPIC, Ground, activity, expected, many
from tests.support import Stack

pytestmark = pytest.mark.slow

DLQ = dead_letter_topic("scoring")


@pytest.fixture
async def ground(stack: Stack) -> Ground:
    await stack.ensure_topics()
    database = stack.open_database("scoring")
    await database.run(lambda session: session.execute(CREATE))
    return Ground(stack, database)


def refuse_lead_1(received: Received[ActivityRecorded]) -> None:
    if received.event.lead_id == "lead_1":
        raise Reject(received, "not yet")


@asynccontextmanager
async def relaying(ground: Ground) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Relay(ground.database, ground.stack.bus, RelaySettings(poll_seconds=0.05)).run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task


async def records_in(ground: Ground, topic: str) -> int:
    return sum(held.end for held in (await ground.stack.bus.ranges([topic])).values())


async def places(ground: Ground) -> list[tuple[int, int]]:
    ranges = await ground.stack.bus.ranges([DLQ])
    return [(place.partition, offset) for place, held in sorted(ranges.items()) for offset in range(*held)]


async def test_once_the_cause_is_mended_each_is_applied_once_and_in_order(ground: Ground) -> None:
    messages = many(leads=3, each=6)
    await ground.publish(messages)
    async with relaying(ground):
        async with ground.consuming(ground.handler(refuse_lead_1)):
            await ground.until(ground.at_end)
        await ground.until(lambda: is_there(ground, DLQ, 6))
        dead = await places(ground)

        assert await send_back(ground.database, ground.stack.bus, dead[:4]) == 4  # and here it was interrupted
        assert await send_back(ground.database, ground.stack.bus, dead) == 2
        assert await send_back(ground.database, ground.stack.bus, dead) == 0
        await ground.until(lambda: is_there(ground, TOPIC, len(messages) + 6))
        async with ground.consuming(ground.handler()):
            await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)
    replayed = [one for batch in ground.received for one in batch if one.startswith("lead_1-")][-6:]
    assert replayed == [f"lead_1-{number:04}" for number in range(6)]


async def test_two_who_send_back_at_once_send_each_once(ground: Ground) -> None:
    await ground.publish([activity("lead_1", number) for number in range(20)])
    async with relaying(ground):
        async with ground.consuming(ground.handler(refuse_lead_1)):
            await ground.until(ground.at_end)
        await ground.until(lambda: is_there(ground, DLQ, 20))
        dead = await places(ground)
        went = await asyncio.gather(*(send_back(ground.database, ground.stack.bus, dead) for _ in range(3)))
    assert sum(went) == 20


async def test_a_place_that_is_not_there_is_passed_over(ground: Ground) -> None:
    assert await send_back(ground.database, ground.stack.bus, [(0, 0), (1, 99), (7, 0)]) == 0
    assert await redrive(ground.database, []) == 0


async def is_there(ground: Ground, topic: str, records: int) -> bool:
    return await records_in(ground, topic) == records
