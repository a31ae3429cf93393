"""The consumer over a real log and a real database, on both profiles: each record applied once, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.bus import Message, OffsetRange, Record, TopicPartition
from shared.consume import Consumer
from shared.db import Database, DatabaseUnavailable, Session, StatementTimeout
from shared.embedded import EmbeddedBus
from shared.envelope import Received, encode
from shared.events import ActivityRecorded
from shared.outbox import unpack_headers
from shared.outcomes import Reject, RetryLater
from shared.positions import resolve
from shared.settle import ConsumerHalted, ConsumeSettings, Handler
from shared.sql import sql
from shared.telemetry import new_traceparent
from shared.topics import MAX_RECORD_BYTES
from tests.support import Databases, Stack

pytestmark = pytest.mark.slow

TOPIC = "baton.activities.v1"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
QUICK = ConsumeSettings(batch=50, back_off_seconds=0.01, max_back_off_seconds=0.05, poll_seconds=0.1, drain_seconds=3.0)

CREATE = sql("CREATE TABLE effects (lead_id text, activity_id text, topic_offset bigint)")
APPLY = sql(
    "INSERT INTO effects SELECT lead_id, activity_id, topic_offset FROM {rows} WHERE true",
    lead_id="text",
    activity_id="text",
    topic_offset="bigint",
)
EFFECTS = sql("SELECT lead_id, activity_id FROM effects ORDER BY lead_id, topic_offset")
DEAD = sql("SELECT key, value, headers FROM outbox WHERE topic = 'baton.scoring.dlq.v1' ORDER BY id")
POSITIONS = sql("SELECT topic, partition, next_offset, dead_in_row FROM positions")
SET_POSITION = sql("UPDATE positions SET next_offset = :next WHERE topic = :topic AND partition = :partition")

Judge = Callable[[Received[ActivityRecorded]], None]


def activity(lead: str, number: int) -> Message:
    event = ActivityRecorded(
        lead_id=lead,
        activity_id=f"{lead}-{number:04}",
        kind="page_viewed",
        source="test",
        source_id=f"{lead}-{number}",
        occurred_at=NOW,
        received_at=NOW,
    )
    return encode(event, event_id=event.activity_id, source="/test", time=NOW, traceparent=new_traceparent())


def many(leads: int, each: int) -> list[Message]:
    return [activity(f"lead_{lead}", number) for number in range(each) for lead in range(leads)]


@dataclass
class Ground:
    """A log with the topic, a database with the table of effects, and what a test does with them."""

    stack: Stack
    database: Database
    received: list[list[str]] = field(default_factory=list)

    async def publish(self, messages: Sequence[Message]) -> None:
        producer = await self.stack.bus.producer()
        try:
            assert await producer.publish(messages) == [None] * len(messages)
        finally:
            await producer.close()

    def handler(self, judge: Judge = lambda received: None) -> Handler:
        """Writes an effect for each record, unless `judge` raises."""

        async def apply(records: Sequence[Received[Any]], *, session: Session, now: datetime) -> None:
            self.received.append([received.event.activity_id for received in records])
            rows = [(each.event.lead_id, each.event.activity_id, each.record.offset) for each in records]
            await session.execute(APPLY, rows)
            for received in records:
                judge(received)

        return apply

    @asynccontextmanager
    async def consuming(self, handler: Handler, settings: ConsumeSettings = QUICK) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        consumer = Consumer(self.database, self.stack.bus, {TOPIC: handler}, settings)
        task = asyncio.create_task(consumer.run(stop))
        try:
            yield task
        finally:
            stop.set()
            async with asyncio.timeout(20):
                with suppress(ConsumerHalted):
                    await task

    async def effects(self) -> list[tuple[str, str]]:
        return [tuple(row) for row in await self.database.read(lambda session: session.execute(EFFECTS))]

    async def dead(self) -> list[dict[str, str]]:
        rows = await self.database.read(lambda session: session.execute(DEAD))
        return [{name: value.decode() for name, value in unpack_headers(row.headers)} for row in rows]

    async def positions(self) -> dict[TopicPartition, tuple[int, int]]:
        rows = await self.database.read(lambda session: session.execute(POSITIONS))
        return {TopicPartition(row.topic, row.partition): (row.next_offset, row.dead_in_row) for row in rows}

    async def at_end(self) -> bool:
        ranges = await self.stack.bus.ranges([TOPIC])
        positions = await self.positions()
        return all(positions.get(place, (-1, 0))[0] == held.end for place, held in ranges.items())

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.02)


@pytest.fixture
async def ground(stack: Stack) -> Ground:
    await stack.ensure_topics()
    database = stack.open_database("scoring")
    await database.run(lambda session: session.execute(CREATE))
    return Ground(stack, database)


def expected(messages: Sequence[Message], *but: str) -> list[tuple[str, str]]:
    ids = [dict(message.headers)["ce_id"].decode() for message in messages]
    return sorted((one.rsplit("-", 1)[0], one) for one in ids if one not in but)


async def test_every_record_is_applied_once_in_order_per_lead(ground: Ground) -> None:
    messages = many(leads=7, each=40)
    await ground.publish(messages)
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)


async def test_a_restart_goes_on_where_the_database_is(ground: Ground) -> None:
    first, second = many(leads=3, each=5), [activity("lead_0", number) for number in range(100, 105)]
    for messages in (first, second):
        await ground.publish(messages)
        async with ground.consuming(ground.handler()):
            await ground.until(ground.at_end)
    assert await ground.effects() == expected([*first, *second])


async def test_a_record_that_no_handler_can_apply_is_dead_lettered_and_the_partition_goes_on(ground: Ground) -> None:
    messages = many(leads=5, each=20)
    await ground.publish(messages)

    def judge(received: Received[ActivityRecorded]) -> None:
        if received.event.activity_id == "lead_2-0007":
            raise ValueError("someone@example.com is in this text")

    async with ground.consuming(ground.handler(judge)):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages, "lead_2-0007")
    (headers,) = await ground.dead()
    assert headers["ce_id"] == "lead_2-0007"
    assert headers["x-original-topic"] == TOPIC
    assert headers["baton-reason-code"] == "handler-failed"
    said = headers["kafka_dlt-exception-message"]
    assert said.startswith("ValueError at ")
    assert "test_consume.py:" in said
    assert "@" not in said


async def test_a_rejected_record_is_dead_lettered_with_the_handlers_reason(ground: Ground) -> None:
    messages = many(leads=3, each=4)
    await ground.publish(messages)

    def judge(received: Received[ActivityRecorded]) -> None:
        if received.event.lead_id == "lead_1":
            raise Reject(received, "no such thing")

    async with ground.consuming(ground.handler(judge)):
        await ground.until(ground.at_end)
    assert await ground.effects() == [effect for effect in expected(messages) if effect[0] != "lead_1"]
    assert [headers["kafka_dlt-exception-message"] for headers in await ground.dead()] == ["no such thing"] * 4


async def test_a_record_that_must_wait_holds_its_lane_and_nobody_else(ground: Ground) -> None:
    messages = many(leads=12, each=3)
    await ground.publish(messages)
    is_there = asyncio.Event()

    def judge(received: Received[ActivityRecorded]) -> None:
        if received.event.activity_id == "lead_4-0001" and not is_there.is_set():
            raise RetryLater(received, "not there yet", timedelta(milliseconds=50))

    async def others_are_through() -> bool:
        positions, ranges = await ground.positions(), await ground.stack.bus.ranges([TOPIC])
        return sum(positions.get(place, (0, 0))[0] == held.end for place, held in ranges.items()) == len(ranges) - 1

    async with ground.consuming(ground.handler(judge)):
        await ground.until(others_are_through)
        assert not await ground.at_end()
        is_there.set()
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)
    assert await ground.dead() == []


async def test_a_record_that_waited_in_vain_is_dead_lettered(ground: Ground) -> None:
    messages = many(leads=2, each=3)
    await ground.publish(messages)

    def judge(received: Received[ActivityRecorded]) -> None:
        if received.event.activity_id == "lead_1-0001":
            raise RetryLater(received, "never there", timedelta(milliseconds=20))

    settings = ConsumeSettings(poll_seconds=0.05, wait_seconds=0.2)
    async with ground.consuming(ground.handler(judge), settings):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages, "lead_1-0001")
    assert [headers["baton-reason-code"] for headers in await ground.dead()] == ["waited-in-vain"]


async def test_what_is_no_event_of_ours_is_dead_lettered_untouched(ground: Ground) -> None:
    messages = many(leads=2, each=2)
    stray = Message(TOPIC, b"lead_0", b"\xff\x00 no json", (("who", b"\xfe"), ("ce_id", b"x")))
    await ground.publish([*messages, stray, activity("lead_0", 9)])
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected([*messages, activity("lead_0", 9)])
    (row,) = await ground.database.read(lambda session: session.execute(DEAD))
    assert (bytes(row.key), bytes(row.value)) == (stray.key, stray.value)
    assert unpack_headers(row.headers)[:2] == stray.headers


async def test_too_many_dead_letters_in_a_row_stop_the_consumer_also_after_a_restart(ground: Ground) -> None:
    await ground.publish([activity("lead_0", number) for number in range(30)])

    def judge(received: Received[ActivityRecorded]) -> None:
        raise ValueError

    settings = ConsumeSettings(attempts=1, dead_in_row=5, back_off_seconds=0.01, poll_seconds=0.05)
    for _ in range(2):
        async with ground.consuming(ground.handler(judge), settings) as task:
            async with asyncio.timeout(20):
                with pytest.raises(ConsumerHalted, match="5 dead letters in a row"):
                    await asyncio.shield(task)
        assert len(await ground.dead()) == 5
    assert (5, 5) in (await ground.positions()).values()


async def test_trouble_of_the_database_is_never_poison(ground: Ground) -> None:
    messages = many(leads=3, each=3)
    await ground.publish(messages)
    troubles = iter([DatabaseUnavailable("gone"), StatementTimeout("slow"), *[DatabaseUnavailable("gone")] * 20])

    def judge(received: Received[ActivityRecorded]) -> None:
        if trouble := next(troubles, None):
            raise trouble

    async with ground.consuming(ground.handler(judge)):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)
    assert await ground.dead() == []


async def test_a_record_that_always_times_out_while_the_database_is_well_is_poison(ground: Ground) -> None:
    messages = many(leads=3, each=3)
    await ground.publish(messages)

    def judge(received: Received[ActivityRecorded]) -> None:
        if received.event.activity_id == "lead_0-0001":
            raise StatementTimeout("slow")

    async with ground.consuming(ground.handler(judge)):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages, "lead_0-0001")
    assert [headers["baton-reason-code"] for headers in await ground.dead()] == ["statement-timeout"]


async def test_records_that_another_process_applied_are_not_applied_again(ground: Ground) -> None:
    await ground.publish([activity("lead_0", number) for number in range(10)])
    (place,) = [place for place, held in (await ground.stack.bus.ranges([TOPIC])).items() if held.end]

    def judge(received: Received[ActivityRecorded]) -> None:
        raise AssertionError("applied by somebody else already")

    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
        ground.received.clear()
        await ground.database.run(
            lambda session: session.execute(SET_POSITION, next=15, topic=place.topic, partition=place.partition)
        )
        await ground.publish([activity("lead_0", number) for number in range(10, 20)])
        await ground.until(ground.at_end)
    assert [one for batch in ground.received for one in batch] == [f"lead_0-{number:04}" for number in range(15, 20)]


async def test_two_members_share_the_work_and_rebalances_apply_nothing_twice(ground: Ground) -> None:
    messages = many(leads=20, each=30)

    async def publish_slowly() -> None:
        for start in range(0, len(messages), 20):
            await ground.publish(messages[start : start + 20])
            await asyncio.sleep(0.02)

    publishing = asyncio.create_task(publish_slowly())
    async with ground.consuming(ground.handler()):
        for _ in range(3):
            async with ground.consuming(ground.handler()):
                await asyncio.sleep(0.3)
        await publishing
        await ground.until(ground.at_end, seconds=60)
    assert await ground.effects() == expected(messages)


async def test_a_position_the_log_does_not_hold_stops_the_consumer_loudly(ground: Ground) -> None:
    await ground.publish(many(leads=2, each=2))
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    (place, *_) = await ground.positions()
    await ground.database.run(
        lambda session: session.execute(SET_POSITION, next=999, topic=place.topic, partition=place.partition)
    )
    async with ground.consuming(ground.handler()) as task:
        async with asyncio.timeout(20):
            with pytest.raises(ConsumerHalted, match="999"):
                await asyncio.shield(task)


async def test_a_stop_lets_the_transaction_under_way_end(ground: Ground) -> None:
    await ground.publish([activity("lead_0", 0)])
    started = asyncio.Event()
    apply = ground.handler()

    async def slowly(records: Sequence[Received[Any]], *, session: Session, now: datetime) -> None:
        started.set()
        await asyncio.sleep(0.5)
        await apply(records, session=session, now=now)

    async with ground.consuming(slowly):
        await started.wait()
    assert await ground.effects() == [("lead_0", "lead_0-0000")]


async def test_the_groups_offset_follows_as_a_hint(ground: Ground) -> None:
    await ground.publish(many(leads=4, each=4))
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    committed = await ground.stack.bus.committed("baton.scoring", [TOPIC])
    ends = {place: held.end for place, held in (await ground.stack.bus.ranges([TOPIC])).items() if held.end}
    assert {place: committed.get(place) for place in ends} == ends


def test_a_record_is_known_by_its_place() -> None:
    assert Record(TOPIC, 3, 7, NOW, None, None, ()).place == TopicPartition(TOPIC, 3)


async def test_a_strangers_nul_in_an_id_is_dead_lettered_like_anything_unreadable(ground: Ground) -> None:
    messages = many(leads=2, each=2)
    stray = Message(TOPIC, b"lead_0", b"{}", (("ce_id", b"a\x00b"), ("ce_type", b"\x00")))
    await ground.publish([stray, *messages])
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)
    assert [headers["ce_id"] for headers in await ground.dead()] == ["a\x00b"]


async def test_a_record_too_large_for_a_dead_letter_goes_without_its_value_and_names_its_origin(ground: Ground) -> None:
    messages = many(leads=2, each=2)
    await ground.publish([Message(TOPIC, b"lead_0", b"x" * (MAX_RECORD_BYTES - 100), ()), *messages])
    async with ground.consuming(ground.handler()):
        await ground.until(ground.at_end)
    assert await ground.effects() == expected(messages)
    (headers,) = await ground.dead()
    assert headers["baton-value-dropped"] == "1"
    assert (headers["kafka_dlt-original-topic"], headers["kafka_dlt-original-offset"]) == (TOPIC, "0")


class StaleLog(EmbeddedBus):
    """Its first answer on what it holds is older than what another member has applied since."""

    is_stale = True

    async def ranges(self, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
        held = await super().ranges(topics)
        if self.is_stale:
            self.is_stale = False
            return {place: OffsetRange(0, 0) for place in held}
        return held


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
async def test_a_position_ahead_of_a_stale_answer_is_no_gap(databases: Databases, tmp_path: Path) -> None:
    log = StaleLog(tmp_path / "log.sqlite")
    stack = Stack("embedded", log, databases)
    await stack.ensure_topics()
    ground = Ground(stack, stack.open_database("scoring"))
    await ground.database.run(lambda session: session.execute(CREATE))
    await ground.publish(many(leads=2, each=2))
    log.is_stale = False
    ends = {place: held.end for place, held in (await log.ranges([TOPIC])).items()}
    log.is_stale = True
    await ground.database.run(lambda session: resolve(session, ends))
    async with ground.consuming(ground.handler()) as task:
        await asyncio.sleep(0.5)
        assert not task.done()
    await log.close()
