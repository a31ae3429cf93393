"""What only Apache Kafka can do to us: records of strangers, small limits, brokers that are gone or say nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.util import calc_crc32c

from shared.bus import BusUnavailable, Message, MessageRefused
from shared.kafka import KafkaBus
from shared.kafka.consumer import KafkaConsumer
from tests.conformance.things import (
    BOTH,
    FIRST,
    GROUP,
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
from tests.support import KAFKA_LIMITS, delete_topics, dev_server, missing

pytestmark = pytest.mark.kafka

PREFIX = "here."
QUICK = replace(KAFKA_LIMITS, request_seconds=1.0, publish_seconds=1.5, stale_seconds=2.0)
CRC_AT, CHECKED_FROM = 17, 21  # in a batch of records


@pytest.fixture
async def log(kafka_server: str) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(kafka_server, prefix=PREFIX, limits=KAFKA_LIMITS)
    await bus.ensure_topics([THINGS])
    yield bus
    await bus.close()
    await delete_topics(kafka_server, PREFIX)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A broker that the test may stop: its address and its process id."""
    with dev_server("kafka", "--directory", str(tmp_path / "kafka")) as address:
        yield address, int((tmp_path / "kafka/pid").read_text())


async def publish_undecodable(kafka: str, place: int, key: str) -> None:
    """A record whose header's name is not UTF-8: any client but ours may write one."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch.append(key=key.encode(), value=b"good", timestamp=None)
        batch.append(key=key.encode(), value=b"{}", timestamp=None, headers=[("zz", b"1")])
        raw = batch._build()
        raw[:] = bytes(raw).replace(b"zz", b"\xff\xfe")
        struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[CHECKED_FROM:])))
        await (await producer.send_batch(batch, PREFIX + THINGS.name, partition=place))
    finally:
        await producer.stop()


@pytest.mark.parametrize("comes_first", [False, True], ids=["behind good records", "at the head"])
async def test_an_undecodable_record_is_handed_out_as_such_and_stops_nobody(
    log: KafkaBus, kafka_server: str, comes_first: bool
) -> None:
    good = [message(key) for place in BOTH for key in keys_of(place, 3)]
    await publish_undecodable(kafka_server, 0, "k")
    await publish_undecodable(kafka_server, 0, "k")
    await publish(log, good)
    async with member(log, Story({FIRST: 1 if comes_first else 0})) as consumer:
        records = await fetch_until(consumer, 9 if comes_first else 10)
        assert await fetch(consumer) == []
        await publish(log, good)
        assert len(await fetch_until(consumer, 6)) == 6
    offsets = [record.offset for record in records if record.place == FIRST]
    assert offsets == list(range(offsets[0], 7))
    unreadable = [record for record in records if record.unreadable]
    assert [record.offset for record in unreadable] == [1, 3]
    assert unreadable[0].unreadable == "the client could not decode it: UnicodeDecodeError"
    assert (unreadable[0].key, unreadable[0].value, unreadable[0].headers) == (None, None, ())
    assert sum(record.place == SECOND for record in records) == 3
    assert [record.offset for record in await log.read(FIRST, 3, max_records=2, timeout_seconds=5)] == [3]


async def test_a_waiting_consumer_survives_an_undecodable_record(log: KafkaBus, kafka_server: str) -> None:
    async with member(log, Story()) as consumer:
        await settled(consumer)
        waiting = asyncio.create_task(fetch_until(consumer, 5))
        await asyncio.sleep(0.3)
        await publish_undecodable(kafka_server, 0, "k")
        await publish(log, [message(key) for key in keys_of(SECOND, 3)])
        records = await waiting
    assert [record.unreadable is None for record in records if record.place == FIRST] == [True, False]
    assert [record.offset for record in records if record.place == SECOND] == [0, 1, 2]


async def test_polling_an_idle_topic_leaves_nothing_behind(log: KafkaBus) -> None:
    async with member(log, Story()) as consumer:
        await settled(consumer)
        for _ in range(20):
            assert await fetch(consumer, seconds=0.02) == []
        assert isinstance(consumer, KafkaConsumer)
        assert len(consumer._client._fetcher._fetch_waiters) <= 1
        assert len(asyncio.all_tasks()) < 20


async def test_a_topic_with_a_smaller_limit_refuses_the_large_message_alone(kafka_server: str) -> None:
    bus = KafkaBus(kafka_server, prefix=PREFIX, limits=KAFKA_LIMITS)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_server)
    await admin.start()
    await admin.create_topics([NewTopic(PREFIX + THINGS.name, 1, 1, topic_configs={"max.message.bytes": "2000"})])
    await admin.close()
    producer = await bus.producer()
    try:
        verdicts = await producer.publish([message("a"), message("a", b"x" * 3000), message("a")])
        assert [type(verdict) for verdict in verdicts] == [type(None), MessageRefused, type(None)]
        assert await producer.publish([message("a")]) == [None]
        assert (await bus.ranges([THINGS.name]))[FIRST].end == 3
    finally:
        await producer.close()
        await bus.close()
        await delete_topics(kafka_server, PREFIX)


async def test_deployments_with_other_prefixes_see_nothing_of_each_other(log: KafkaBus, kafka_server: str) -> None:
    other = KafkaBus(kafka_server, prefix="there.", limits=KAFKA_LIMITS)
    try:
        assert await other.ranges([THINGS.name]) == {}
        assert (await other.ensure_topics([THINGS])).created == (THINGS.name,)
        await publish(log, [message("a")])
        assert [found.end for found in (await other.ranges([THINGS.name])).values()] == [0, 0]
        async with member(log, Story()) as consumer:
            await settled(consumer)
            await consumer.hint({FIRST: 1})
        assert await other.committed(GROUP, [THINGS.name]) == {}
    finally:
        await other.close()
        await delete_topics(kafka_server, "there.")


async def test_kcat_where_installed_reads_a_topic_and_shows_headers_and_json(log: KafkaBus, kafka_server: str) -> None:
    if shutil.which("kcat") is None:
        missing("kcat is missing: it shows that any Kafka tool reads our topics as they are")
    headers = (("ce_id", b"1"), ("ce_type", b"mql.qualified"), ("content-type", b"application/json"))
    await publish(log, [Message(THINGS.name, b"lead_1", b'{"lead_id": "lead_1"}', headers)])
    command = ["kcat", "-C", "-q", "-e", "-J", "-b", kafka_server, "-t", PREFIX + THINGS.name, "-o", "beginning"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=30)
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert record["headers"] == ["ce_id", "1", "ce_type", "mql.qualified", "content-type", "application/json"]
    assert json.loads(record["payload"]) == {"lead_id": "lead_1"}
    assert record["key"] == "lead_1"


async def asked(bus: KafkaBus) -> list[float]:
    """Ask everything that needs a broker; how long each took until it said that there is none."""
    consumer = bus.consumer(GROUP, [THINGS.name], Story())
    seconds = []
    for question in (
        bus.producer(),
        consumer.start(),
        bus.ranges([THINGS.name]),
        bus.committed(GROUP, [THINGS.name]),
        bus.ensure_topics([THINGS]),
        bus.read(FIRST, 0, max_records=1, timeout_seconds=1),
    ):
        started_at = time.monotonic()
        with pytest.raises(BusUnavailable):
            await question
        seconds.append(time.monotonic() - started_at)
    await consumer.close()
    await bus.close()
    return seconds


async def test_without_a_broker_everything_says_so_at_once() -> None:
    assert max(await asked(KafkaBus("127.0.0.1:9", limits=QUICK))) < 1


async def test_a_broker_that_says_nothing_is_given_up_at_the_deadline() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert max(await asked(KafkaBus(f"127.0.0.1:{port}", limits=QUICK))) < 3 * QUICK.request_seconds


async def test_an_outage_is_noticed_and_survived(own_broker: tuple[str, int]) -> None:
    address, pid = own_broker
    bus = KafkaBus(address, limits=QUICK)
    await bus.ensure_topics([THINGS])
    producer = await bus.producer()
    assert await producer.publish([message("a")]) == [None]
    async with member(bus, Story()) as consumer:
        await fetch_until(consumer, 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            await _outage(bus, producer, consumer)
        finally:
            os.kill(pid, signal.SIGCONT)
        await _until_published(bus)
    await producer.close()
    await bus.close()


async def _until_published(bus: KafkaBus) -> None:
    """A broker that slept takes a moment to find itself again."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(BusUnavailable):
                if await publish(bus, [message("b")]) == [None]:
                    return


async def _outage(bus: KafkaBus, producer: Any, consumer: Any) -> None:
    started_at = time.monotonic()
    (verdict,) = await producer.publish([message("a")])
    assert isinstance(verdict, BusUnavailable)
    assert time.monotonic() - started_at < QUICK.publish_seconds + 1
    with pytest.raises(BusUnavailable):
        await consumer.hint({FIRST: 0})
    with pytest.raises(BusUnavailable):
        await bus.ranges([THINGS.name])
    with pytest.raises(BusUnavailable, match="has not answered this consumer"):
        await fetch_until(consumer, 1)
    closing_at = time.monotonic()
    await consumer.close()
    await producer.close()
    assert time.monotonic() - closing_at < 4 * QUICK.close_seconds
