"""What only the embedded event log has: a file that outlives its process, readers beside it, and its own pruning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.bus import BusError, BusUnavailable, OffsetGap, OffsetRange
from shared.embedded import EmbeddedBus
from shared.embedded.log import DELETED_AT_ONCE
from tests.conformance.things import (
    FIRST,
    GROUP,
    SECOND,
    THINGS,
    Story,
    fetch,
    fetch_until,
    keys_of,
    member,
    message,
    publish,
    settled,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "data" / "log.sqlite")
    await bus.ensure_topics([THINGS])
    yield bus
    await bus.close()


async def test_records_and_offsets_outlive_the_process(log: EmbeddedBus, tmp_path: Path) -> None:
    await publish(log, [message(key) for key in keys_of(FIRST, 3)])
    async with member(log, Story()) as consumer:
        await settled(consumer)
        await consumer.hint({FIRST: 2})
    await log.close()
    again = EmbeddedBus(tmp_path / "data" / "log.sqlite")
    assert (await again.ranges([THINGS.name]))[FIRST] == OffsetRange(0, 3)
    assert await again.committed(GROUP, [THINGS.name]) == {FIRST: 2}
    async with member(again, Story({FIRST: 1})) as consumer:
        assert [record.offset for record in await fetch_until(consumer, 2)] == [1, 2]
    await again.close()


async def test_the_command_line_reads_while_the_server_writes(log: EmbeddedBus, tmp_path: Path) -> None:
    reader = EmbeddedBus(tmp_path / "data" / "log.sqlite", read_only=True)
    for count in (1, 2):
        await publish(log, [message(key) for key in keys_of(FIRST, 1)])
        assert len(await reader.read(FIRST, 0, max_records=10, timeout_seconds=5)) == count
    assert await log.ranges([THINGS.name]) == await reader.ranges([THINGS.name])
    await reader.close()


async def test_the_command_line_cannot_write(log: EmbeddedBus, tmp_path: Path) -> None:
    reader = EmbeddedBus(tmp_path / "data" / "log.sqlite", read_only=True)
    with pytest.raises(BusError, match="write through the running server"):
        await reader.producer()
    with pytest.raises(BusError, match="write through the running server"):
        await reader.consumer(GROUP, [THINGS.name], Story()).start()
    with pytest.raises(BusError, match="write through the running server"):
        await reader.ensure_topics([THINGS])
    await reader.close()


async def test_reading_where_no_server_ever_ran_says_so(tmp_path: Path) -> None:
    reader = EmbeddedBus(tmp_path / "log.sqlite", read_only=True)
    with pytest.raises(BusUnavailable, match="no server has run on this data yet"):
        await reader.ranges([THINGS.name])
    await reader.close()


async def test_a_directory_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BusUnavailable, match="file"):
        EmbeddedBus(tmp_path / "file" / "log.sqlite")


async def test_after_closing_everything_says_that_the_log_is_closed(log: EmbeddedBus) -> None:
    producer = await log.producer()
    await log.close()
    (verdict,) = await producer.publish([message("a")])
    assert isinstance(verdict, BusUnavailable)
    with pytest.raises(BusUnavailable, match="closed"):
        await log.ranges([THINGS.name])


async def test_what_is_older_than_its_topics_retention_is_deleted_and_a_reader_of_it_meets_a_gap(
    tmp_path: Path,
) -> None:
    now = NOW
    log = EmbeddedBus(tmp_path / "log.sqlite", clock=lambda: now)
    await log.ensure_topics([THINGS])
    for days in (0, 5, 13):
        now = NOW + timedelta(days=days)
        await publish(log, [message(key) for key in keys_of(FIRST, 2)])
    assert await log.delete_expired() == 0
    now = NOW + timedelta(days=15)
    assert await log.delete_expired() == 2
    assert await log.ranges([THINGS.name]) == {FIRST: OffsetRange(2, 6), SECOND: OffsetRange(0, 0)}
    async with member(log, Story({FIRST: 2})) as consumer:
        assert [record.offset for record in await fetch_until(consumer, 4)] == [2, 3, 4, 5]
        await consumer.seek(FIRST, 0)
        with pytest.raises(OffsetGap, match="the next record is 0, the log holds 2 to 6"):
            await fetch(consumer)
    now = NOW + timedelta(days=90)
    assert await log.delete_expired() == 4
    assert (await log.ranges([THINGS.name]))[FIRST] == OffsetRange(6, 6)
    await publish(log, [message(key) for key in keys_of(FIRST, 1)])
    assert (await log.ranges([THINGS.name]))[FIRST] == OffsetRange(6, 7)
    await log.close()


async def test_publishing_goes_between_the_steps_of_the_pruning(tmp_path: Path) -> None:
    now = NOW
    log = EmbeddedBus(tmp_path / "log.sqlite", clock=lambda: now)
    await log.ensure_topics([THINGS])
    many = [message(key) for key in keys_of(FIRST, 3 * DELETED_AT_ONCE)]
    await publish(log, many)
    now = NOW + timedelta(days=90)
    pruning = asyncio.create_task(log.delete_expired())
    await asyncio.sleep(0)
    await publish(log, many[:1])
    assert not pruning.done()
    assert await pruning == len(many)
    assert (await log.ranges([THINGS.name]))[FIRST] == OffsetRange(len(many), len(many) + 1)
    await log.close()


async def test_thousands_of_records_a_second_are_durable_and_read(log: EmbeddedBus) -> None:
    producer = await log.producer()
    batches = [[message(f"lead_{n}", b"x" * 600) for n in range(1000)] for _ in range(5)]
    started_at = time.monotonic()
    for batch in batches:
        assert not any(await producer.publish(batch))
    async with member(log, Story()) as consumer:
        await fetch_until(consumer, 5000)
    assert time.monotonic() - started_at < 5  # 0.1 s on a quiet machine
