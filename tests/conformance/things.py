"""What the conformance tests of the event log share: a topic of two partitions, and a listener that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shared.bus import Bus, BusError, Consumer, Message, Record, TopicPartition
from shared.partition import partition_of
from shared.topics import Topic

THINGS = Topic(name="test.things.v1", key="thing", types=(), producer="scoring", partitions=2)
OTHERS = replace(THINGS, name="test.others.v1")
FIRST, SECOND = TopicPartition(THINGS.name, 0), TopicPartition(THINGS.name, 1)
BOTH = frozenset({FIRST, SECOND})
GROUP = "baton.test"
WAIT_SECONDS = 15.0  # for a rebalance on a busy machine


def message(key: str, value: bytes = b"{}", topic: str = THINGS.name) -> Message:
    return Message(topic, key.encode(), value, (("ce_id", key.encode()),))


def keys_of(place: TopicPartition, count: int) -> list[str]:
    """Keys that all belong to one partition."""
    keys = (f"lead_{number}" for number in range(1000))
    return [key for key in keys if partition_of(key.encode(), THINGS.partitions) == place.partition][:count]


async def publish(bus: Bus, messages: Sequence[Message]) -> list[BusError | None]:
    producer = await bus.producer()
    try:
        return await producer.publish(messages)
    finally:
        await producer.close()


@dataclass
class Story:
    """A listener that remembers what it was told, and answers with the positions it was given."""

    starts: Mapping[TopicPartition, int] = field(default_factory=dict)
    told: list[tuple[str, frozenset[TopicPartition]]] = field(default_factory=list)
    failure: Exception | None = None

    async def assigned(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.failure is not None:
            raise self.failure
        self.told.append(("assigned", partitions))
        return {place: self.starts.get(place, 0) for place in partitions}

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.told.append(("revoked", partitions))


@asynccontextmanager
async def member(bus: Bus, story: Story, topics: Sequence[str] = (THINGS.name,)) -> AsyncIterator[Consumer]:
    consumer = bus.consumer(GROUP, topics, story)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()


async def fetch(consumer: Consumer, paused: Sequence[TopicPartition] = (), seconds: float = 0.2) -> list[Record]:
    found = await consumer.fetch(paused=paused, max_records=1000, timeout_seconds=seconds)
    return [record for records in found.values() for record in records]


async def fetch_until(consumer: Consumer, count: int, paused: Sequence[TopicPartition] = ()) -> list[Record]:
    """Fetch until there are `count` records; fails after a while."""
    records: list[Record] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(records) < count:
            records += await fetch(consumer, paused)
    return records


async def settled(*consumers: Consumer) -> list[frozenset[TopicPartition]]:
    """Fetch with all of them until every partition is held by somebody, and by one alone; what each holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            await asyncio.gather(*(fetch(consumer, [FIRST, SECOND], 0.1) for consumer in consumers))
            held = [consumer.assignment() for consumer in consumers]
            is_shared = len(consumers) == 1 or all(held)
            if is_shared and sorted(place for places in held for place in places) == [FIRST, SECOND]:
                return held
