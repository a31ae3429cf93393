"""The outbox and its relay over a real log and a real database, on both profiles."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from shared.bus import Record
from shared.db import Database, Session
from shared.envelope import decode
from shared.events import ActivityRecorded
from shared.kafka import KafkaBus
from shared.outbox import INSERT, EventTooLarge, emit
from shared.relay import Relay, RelaySettings
from shared.sql import sql
from shared.telemetry import new_traceparent, tracing
from tests.support import Databases, Stack

pytestmark = pytest.mark.slow

TOPIC = "baton.activities.v1"
QUICK = RelaySettings(batch=50, poll_seconds=0.05, lock_seconds=0.1, max_back_off_seconds=0.2)

WAITING = sql("SELECT count(*) AS waiting FROM outbox WHERE published_at IS NULL AND parked_at IS NULL")
ALL = sql("SELECT event_id, published_at, parked_cause FROM outbox ORDER BY id")
KILL_OTHERS = sql(
    """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    """
)


def activity(lead: str, number: int, **properties: str) -> ActivityRecorded:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    return ActivityRecorded(
        lead_id=lead,
        activity_id=f"{lead}-{number:04}",
        kind="page_viewed",
        source="test",
        source_id=f"{lead}-{number}",
        occurred_at=now,
        received_at=now,
        properties=dict(properties),
    )


async def emit_all(database: Database, *events: ActivityRecorded) -> None:
    async def work(session: Session) -> None:
        await session.now()
        for event in events:
            emit(session, event, event_id=event.activity_id)

    await database.run(work)


@asynccontextmanager
async def relaying(database: Database, stack: Stack, settings: RelaySettings = QUICK) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Relay(database, stack.bus, settings).run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


async def drained(database: Database) -> bool:
    ((waiting,),) = await database.read(lambda session: session.execute(WAITING))
    return bool(waiting == 0)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def published(stack: Stack) -> dict[str, list[str]]:
    """Event ids in the topic, by key, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for record in await records(stack):
        found[(record.key or b"").decode()].append(decode(record).id)
    return found


async def records(stack: Stack) -> list[Record]:
    found: list[Record] = []
    for place, held in (await stack.bus.ranges([TOPIC])).items():
        position = held.begin
        while position < held.end:
            read = await stack.bus.read(place, position, max_records=500, timeout_seconds=5.0)
            assert read
            found.extend(read)
            position = read[-1].offset + 1
    return found


@pytest.fixture
async def database(stack: Stack) -> Database:
    await stack.ensure_topics()
    return stack.open_database("scoring")


async def test_what_is_committed_is_published_in_order_per_key_and_what_is_not_is_not(
    stack: Stack, database: Database
) -> None:
    async def failing(session: Session) -> None:
        await session.now()
        emit(session, activity("lead_0", 999))
        raise KeyError

    async with relaying(database, stack):
        for number in range(30):
            await emit_all(database, *(activity(f"lead_{lead}", number) for lead in range(5)))
            with pytest.raises(KeyError):
                await database.run(failing)
        await until(lambda: drained(database))
    assert await published(stack) == {
        f"lead_{lead}": [f"lead_{lead}-{number:04}" for number in range(30)] for lead in range(5)
    }


async def test_an_event_is_published_soon_after_its_commit_because_the_relay_is_woken(
    stack: Stack, database: Database
) -> None:
    slow_poll = RelaySettings(poll_seconds=30.0)
    async with relaying(database, stack, slow_poll):
        await asyncio.sleep(1.0)  # it has looked once, and sleeps
        await emit_all(database, activity("lead_0", 0))
        await until(lambda: drained(database), seconds=10)


async def test_the_trace_and_the_attributes_ride_in_the_row(stack: Stack, database: Database) -> None:
    trace = new_traceparent()
    with tracing(trace):
        await emit_all(database, activity("lead_0", 0))
    async with relaying(database, stack):
        await until(lambda: drained(database))
    (record,) = await records(stack)
    received = decode(record)
    assert (received.traceparent, received.source, received.id) == (trace, "/baton/scoring", "lead_0-0000")
    assert received.event == activity("lead_0", 0)


async def test_an_event_the_broker_would_refuse_is_refused_in_its_transaction(database: Database) -> None:
    with pytest.raises(EventTooLarge, match="allowed 262144"):
        await emit_all(database, activity("lead_0", 0, big="x" * 300_000))
    assert await drained(database)


async def test_a_row_refused_all_the_same_is_parked_with_its_cause_and_the_others_go_on(
    stack: Stack, database: Database
) -> None:
    async def by_hand(session: Session) -> None:
        now = await session.now()
        await session.execute(INSERT, [("too-large", TOPIC, 3, b"lead_0", b"x" * 3_000_000, "[]", now)])

    await emit_all(database, activity("lead_0", 0))
    await database.run(by_hand)
    await emit_all(database, activity("lead_0", 1))
    async with relaying(database, stack):
        await until(lambda: drained(database))
    rows = await database.read(lambda session: session.execute(ALL))
    assert [row.event_id for row in rows if row.published_at] == ["lead_0-0000", "lead_0-0001"]
    assert [bool(row.parked_cause) for row in rows] == [False, True, False]
    assert await published(stack) == {"lead_0": ["lead_0-0000", "lead_0-0001"]}


@pytest.mark.parametrize(
    "stack", [pytest.param("cluster", marks=[pytest.mark.kafka, pytest.mark.postgres])], indirect=True
)
async def test_two_relays_that_lose_their_connections_keep_the_order_per_key(stack: Stack, database: Database) -> None:
    async with relaying(database, stack), relaying(database, stack):
        for number in range(60):
            await emit_all(database, *(activity(f"lead_{lead}", number) for lead in range(5)))
            if number % 15 == 7:
                await database.run(lambda session: session.execute(KILL_OTHERS))
        await until(lambda: drained(database))
    for lead, ids in (await published(stack)).items():
        first_occurrences = list(dict.fromkeys(ids))
        assert first_occurrences == [f"{lead}-{number:04}" for number in range(60)]


@pytest.mark.parametrize(
    "stack", [pytest.param("cluster", marks=[pytest.mark.kafka, pytest.mark.postgres])], indirect=True
)
async def test_a_relay_takes_over_from_one_that_died(stack: Stack, database: Database) -> None:
    dead = asyncio.create_task(Relay(database, stack.bus, QUICK).run(asyncio.Event()))
    await emit_all(database, activity("lead_0", 0))
    await until(lambda: drained(database))
    async with relaying(database, stack):
        await emit_all(database, activity("lead_0", 1))
        dead.cancel()
        await asyncio.wait([dead])
        await emit_all(database, activity("lead_0", 2))
        await until(lambda: drained(database))
    assert await published(stack) == {"lead_0": [f"lead_0-{number:04}" for number in range(3)]}


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
async def test_without_a_broker_the_relay_keeps_trying_and_the_outbox_keeps_everything(databases: Databases) -> None:
    database = databases.open("scoring")
    bus = KafkaBus("127.0.0.1:1")
    await emit_all(database, activity("lead_0", 0))
    stop = asyncio.Event()
    task = asyncio.create_task(Relay(database, bus, QUICK).run(stop))
    await asyncio.sleep(1.0)
    assert not task.done()
    assert not await drained(database)
    stop.set()
    async with asyncio.timeout(10):
        await task
    await bus.close()


async def test_pruning_keeps_up_while_there_is_always_something_to_publish(stack: Stack, database: Database) -> None:
    settings = RelaySettings(batch=10, poll_seconds=0.05, keep=timedelta(0), prune_seconds=0.01)
    async with relaying(database, stack, settings):
        for number in range(20):
            await emit_all(database, *(activity("lead_0", 20 * number + one) for one in range(20)))
        rows = await database.read(lambda session: session.execute(ALL))
        assert len(rows) < 400
        await until(lambda: drained(database))


async def test_published_rows_are_pruned_after_the_setting_and_waiting_ones_never(
    stack: Stack, database: Database
) -> None:
    await emit_all(database, *(activity("lead_0", number) for number in range(5)))
    settings = RelaySettings(poll_seconds=0.05, keep=timedelta(0), prune_seconds=0.05)

    async def is_empty() -> bool:
        return await database.read(lambda session: session.execute(ALL)) == []

    async with relaying(database, stack, settings):
        await until(is_empty)
    assert await published(stack) == {"lead_0": [f"lead_0-{number:04}" for number in range(5)]}
