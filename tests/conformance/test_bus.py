"""What the event log promises to who publishes and who asks, held over Apache Kafka and the embedded one."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.bus import Bus, Message, MessageRefused, OffsetGap, OffsetRange, TopicMissing
from shared.partition import partition_of
from shared.topics import MAX_RECORD_BYTES
from tests.conformance.things import (
    FIRST,
    GROUP,
    OTHERS,
    SECOND,
    THINGS,
    Story,
    fetch_until,
    keys_of,
    member,
    message,
    publish,
    settled,
)


async def test_a_key_goes_to_the_partition_that_kafkas_default_partitioner_gives_it(log: Bus) -> None:
    keys = [f"lead_{number}" for number in range(50)] + ["", "é", "a" * 300]
    assert await publish(log, [message(key) for key in keys]) == [None] * len(keys)
    async with member(log, Story()) as consumer:
        records = await fetch_until(consumer, len(keys))
    for record in records:
        assert record.key is not None
        assert record.partition == partition_of(record.key, 2)
    assert {record.partition for record in records} == {0, 1}


async def test_records_of_a_key_are_read_in_the_order_in_which_they_were_published(log: Bus) -> None:
    producer = await log.producer()
    for start in range(0, 300, 50):
        batch = [message(f"lead_{n % 7}", str(n).encode()) for n in range(start, start + 50)]
        assert await producer.publish(batch) == [None] * 50
    await producer.close()
    async with member(log, Story()) as consumer:
        records = await fetch_until(consumer, 300)
    for key in {record.key for record in records}:
        numbers = [int(record.value or b"") for record in records if record.key == key]
        assert numbers == sorted(numbers)
        assert len(numbers) in (42, 43)
    for place in (FIRST, SECOND):
        offsets = [record.offset for record in records if record.place == place]
        assert offsets == list(range(len(offsets)))


async def test_headers_keys_and_values_come_back_as_they_were_sent(log: Bus) -> None:
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("empty", b""), ("bytes", b"\x00\xff"), ("é", "ü".encode()))
    sent = Message(THINGS.name, b"\x00\xff key", b"\x00 value \xff", headers)
    before = datetime.now(UTC)
    assert await publish(log, [sent, replace(sent, value=b"")]) == [None, None]
    async with member(log, Story()) as consumer:
        first, second = await fetch_until(consumer, 2)
    assert (first.topic, first.key, first.value, first.headers) == (sent.topic, sent.key, sent.value, headers)
    assert (second.value, second.unreadable) == (b"", None)
    assert before - timedelta(seconds=1) < first.timestamp < before + timedelta(seconds=30)


async def test_ranges_say_what_the_log_holds(log: Bus) -> None:
    assert await log.ranges([THINGS.name, "test.unknown.v1"]) == {FIRST: OffsetRange(0, 0), SECOND: OffsetRange(0, 0)}
    await publish(log, [message(key) for key in keys_of(SECOND, 3)])
    assert await log.ranges([THINGS.name]) == {FIRST: OffsetRange(0, 0), SECOND: OffsetRange(0, 3)}


async def test_people_and_tools_read_without_a_group(log: Bus) -> None:
    await publish(log, [message(key) for key in keys_of(FIRST, 5)])
    some = await log.read(FIRST, 1, max_records=2, timeout_seconds=5)
    assert [record.offset for record in some] == [1, 2]
    assert [record.offset for record in await log.read(FIRST, 3, max_records=100, timeout_seconds=5)] == [3, 4]
    assert await log.read(FIRST, 5, max_records=100, timeout_seconds=0.2) == []
    with pytest.raises(OffsetGap, match=r"test\.things\.v1/0"):
        await log.read(FIRST, 6, max_records=1, timeout_seconds=5)


async def test_a_message_that_is_too_large_is_refused_alone(log: Bus) -> None:
    (key,) = keys_of(FIRST, 1)
    largest, larger = message(key, b"x" * MAX_RECORD_BYTES), message(key, b"x" * 1_048_576)
    verdicts = await publish(log, [message(key), larger, largest, message(key)])
    assert [type(verdict) for verdict in verdicts] == [type(None), MessageRefused, type(None), type(None)]
    async with member(log, Story()) as consumer:
        assert [len(record.value or b"") for record in await fetch_until(consumer, 3)] == [2, MAX_RECORD_BYTES, 2]


async def test_a_message_for_a_missing_topic_is_refused_alone_and_at_once(log: Bus) -> None:
    started_at = time.monotonic()
    verdicts = await publish(log, [message("a"), message("a", topic="test.unknown.v1"), message("a")])
    assert [type(verdict) for verdict in verdicts] == [type(None), TopicMissing, type(None)]
    assert "baton topics ensure" in str(verdicts[1])
    assert time.monotonic() - started_at < 3


async def test_ensuring_topics_twice_creates_them_once_and_reports_what_differs(bus: Bus) -> None:
    kept = replace(OTHERS, retention=None)
    first = await bus.ensure_topics([THINGS, kept])
    assert (first.created, first.present, first.differences) == ((THINGS.name, kept.name), (), ())
    again = await bus.ensure_topics([THINGS, kept])
    assert (again.created, again.present, again.differences) == ((), (THINGS.name, kept.name), ())
    wanted = [replace(THINGS, partitions=3, retention=timedelta(days=1)), replace(kept, retention=timedelta(days=14))]
    different = await bus.ensure_topics(wanted)
    assert different.differences == (
        "test.things.v1 has 2 partitions, not 3: keys would move, so the number stays",
        "test.things.v1 is kept for 14 days, not for 1 days",
        "test.others.v1 is kept by compaction, not for 14 days",
    )
    assert len(await bus.ranges([THINGS.name])) == 2


async def test_closing_is_quick_and_may_be_repeated(log: Bus) -> None:
    producer = await log.producer()
    consumer = log.consumer(GROUP, [THINGS.name], Story())
    await consumer.start()
    await settled(consumer)
    started_at = time.monotonic()
    for closes in (consumer.close, producer.close, log.close) * 2:
        await closes()
    assert time.monotonic() - started_at < 3
