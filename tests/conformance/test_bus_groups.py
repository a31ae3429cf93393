"""What the event log promises to the members of a group, held over Apache Kafka and the embedded one."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared.bus import Bus, OffsetGap, TopicMissing, TopicPartition, member_name
from tests.conformance.things import (
    BOTH,
    FIRST,
    GROUP,
    OTHERS,
    SECOND,
    THINGS,
    WAIT_SECONDS,
    Story,
    fetch,
    fetch_until,
    keys_of,
    member,
    message,
    publish,
    settled,
)

pytestmark = pytest.mark.slow


async def test_two_members_share_the_partitions_and_each_is_told_before_it_loses_any(log: Bus) -> None:
    early, late = Story(), Story()
    async with member(log, early) as first:
        assert await settled(first) == [BOTH]
        async with member(log, late) as second:
            assert sorted(map(len, await settled(first, second))) == [1, 1]
            assert early.told[:2] == [("assigned", BOTH), ("revoked", BOTH)]
            assert late.told[0][0] == "assigned"
            await publish(log, [message(key) for place in (FIRST, SECOND) for key in keys_of(place, 3)])
            assert {record.place for record in await fetch_until(first, 3)} == first.assignment()
            assert {record.place for record in await fetch_until(second, 3)} == second.assignment()
        assert await settled(first) == [BOTH]
    for what, _ in early.told[::2]:
        assert what == "assigned"
    for what, _ in early.told[1::2]:
        assert what == "revoked"


async def test_nobody_gets_a_partition_before_the_one_who_held_it_is_done(log: Bus) -> None:
    story = Story()
    is_done = asyncio.Event()

    class Slow(Story):
        async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
            await asyncio.sleep(1.0)
            assert not story.told
            is_done.set()

    async with member(log, Slow()) as first:
        await settled(first)
        async with member(log, story) as second:
            await settled(first, second)
    assert is_done.is_set()
    assert story.told[0][0] == "assigned"


async def test_reading_starts_where_the_listener_says(log: Bus) -> None:
    await publish(log, [message(key) for place in (FIRST, SECOND) for key in keys_of(place, 5)])
    async with member(log, Story({FIRST: 3, SECOND: 5})) as consumer:
        records = await fetch_until(consumer, 2)
        assert [(record.place, record.offset) for record in records] == [(FIRST, 3), (FIRST, 4)]
        assert await fetch(consumer) == []
        await consumer.seek(SECOND, 4)
        assert [(record.place, record.offset) for record in await fetch_until(consumer, 1)] == [(SECOND, 4)]


async def test_the_groups_own_offsets_are_never_read_from(log: Bus) -> None:
    await publish(log, [message(key) for key in keys_of(FIRST, 3)])
    async with member(log, Story()) as consumer:
        await fetch_until(consumer, 3)
        await consumer.hint({FIRST: 3})
    async with member(log, Story({FIRST: 1})) as consumer:
        assert [record.offset for record in await fetch_until(consumer, 2)] == [1, 2]


async def test_a_paused_partition_hands_out_nothing_and_goes_on_where_it_was(log: Bus) -> None:
    keys = [key for place in (FIRST, SECOND) for key in keys_of(place, 4)]
    await publish(log, [message(key) for key in keys])
    async with member(log, Story()) as consumer:
        await fetch_until(consumer, 8)
        await publish(log, [message(key) for key in keys])
        assert {record.place for record in await fetch_until(consumer, 4, paused=[FIRST])} == {SECOND}
        assert await fetch(consumer, paused=[FIRST]) == []
        assert await fetch(consumer, paused=[FIRST, SECOND]) == []
        rest = await fetch_until(consumer, 4)
    assert [(record.place, record.offset) for record in rest] == [(FIRST, offset) for offset in range(4, 8)]


async def test_a_fetch_takes_no_more_records_of_a_partition_than_asked_for(log: Bus) -> None:
    await publish(log, [message(key) for key in keys_of(FIRST, 10)])
    async with member(log, Story()) as consumer:
        sizes: list[int] = []
        offsets: list[int] = []
        async with asyncio.timeout(WAIT_SECONDS):
            while len(offsets) < 10:
                found = await consumer.fetch(paused=(), max_records=4, timeout_seconds=0.5)
                sizes += map(len, found.values())
                offsets += [record.offset for records in found.values() for record in records]
    assert max(sizes) <= 4
    assert offsets == list(range(10))


async def test_committed_offsets_can_be_asked_for(log: Bus) -> None:
    assert await log.committed(GROUP, [THINGS.name]) == {}
    async with member(log, Story()) as consumer:
        await settled(consumer)
        await consumer.hint({FIRST: 7, SECOND: 2})
        await consumer.hint({FIRST: 8})
        assert await log.committed(GROUP, [THINGS.name]) == {FIRST: 8, SECOND: 2}
    assert await log.committed(GROUP, [OTHERS.name]) == {}
    assert await log.committed("another", [THINGS.name]) == {}


async def test_a_consumer_of_a_missing_topic_does_not_start_and_says_what_to_do(log: Bus) -> None:
    consumer = log.consumer(GROUP, [THINGS.name, "test.unknown.v1"], Story())
    with pytest.raises(TopicMissing, match=r"test\.unknown\.v1 does not exist: run `baton topics ensure`"):
        await consumer.start()
    await consumer.close()


@pytest.mark.parametrize("position", [1, 9], ids=["after the end", "far after the end"])
async def test_a_position_that_the_log_does_not_hold_stops_loudly_until_it_is_corrected(
    log: Bus, position: int
) -> None:
    await publish(log, [message(key) for key in keys_of(SECOND, 2)])
    async with member(log, Story({FIRST: position})) as consumer:
        with pytest.raises(OffsetGap, match=r"test\.things\.v1/0"):
            await fetch_until(consumer, 3)
        with pytest.raises(OffsetGap):
            await fetch_until(consumer, 3)
        await consumer.seek(FIRST, 0)
        await publish(log, [message(key) for key in keys_of(FIRST, 1)])
        assert FIRST in {record.place for record in await fetch_until(consumer, 1)}


async def test_what_a_listener_raises_comes_out_of_fetch(log: Bus) -> None:
    story = Story(failure=ValueError("no position"))
    async with member(log, story) as consumer:
        with pytest.raises(ValueError, match="no position"):
            await fetch_until(consumer, 1)
        assert consumer.assignment() == frozenset()
        story.failure = None
        await settled(consumer)


async def test_a_waiting_fetch_is_woken_by_a_publication(log: Bus) -> None:
    producer = await log.producer()
    async with member(log, Story()) as consumer:
        await settled(consumer)
        waiting = asyncio.create_task(fetch(consumer, seconds=10))
        await asyncio.sleep(0.3)
        published_at = time.monotonic()
        await producer.publish([message("a")])
        assert len(await waiting) == 1
        assert time.monotonic() - published_at < 1
    await producer.close()


async def test_a_fetch_with_nothing_to_read_returns_when_its_time_is_over(log: Bus) -> None:
    async with member(log, Story()) as consumer:
        await settled(consumer)
        started_at = time.monotonic()
        assert await fetch(consumer, seconds=0.5) == []
        assert 0.45 < time.monotonic() - started_at < 1.5


async def test_a_group_reads_everything_that_another_group_reads(log: Bus) -> None:
    await publish(log, [message(f"lead_{number}") for number in range(10)])
    other = log.consumer("baton.other", [THINGS.name], Story())
    await other.start()
    async with member(log, Story()) as consumer:
        assert len(await fetch_until(consumer, 10)) == 10
        assert len(await fetch_until(other, 10)) == 10
    await other.close()


async def test_a_member_that_was_never_started_can_be_closed(log: Bus) -> None:
    await log.consumer(GROUP, [THINGS.name], Story()).close()


async def test_who_holds_a_partition_is_known_by_name_and_nobody_after_it_left(log: Bus) -> None:
    assert await log.owners(GROUP) == {}
    async with member(log, Story()) as first:
        assert await settled(first) == [BOTH]
        assert await log.owners(GROUP) == dict.fromkeys(BOTH, member_name())
    assert await log.owners(GROUP) == {}
