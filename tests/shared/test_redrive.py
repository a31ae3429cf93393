"""What a dead letter was, and what becomes of it; and that each goes back once, whoever asks how often."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.bus import Headers, Message, OffsetRange, Record, TopicPartition
from shared.db import Session
from shared.outbox import Death, emit_dead_letter, unpack_headers
from shared.redrive import CAP, REPLAYS, DeadLetter, Verdict, dead_letter, forget, redrive, redriven
from shared.sql import sql
from shared.topics import dead_letter_topic
from tests.support import Databases

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DLQ = dead_letter_topic("scoring")
OWN: Headers = (("ce_id", b"1"), ("odd", b"\xff\x00"), ("twice", b"a"), ("twice", b"b"))
WAITING = sql("SELECT topic, key, value, headers FROM outbox ORDER BY id")
BURIED = sql("DELETE FROM outbox RETURNING topic, key, value, headers")


def record(headers: Headers = OWN, topic: str = "baton.activities.v1", key: bytes | None = b"lead_1") -> Record:
    return Record(topic, 3, 42, NOW, key, b"{}", headers)


async def buried(databases: Databases, *records: Record) -> list[DeadLetter]:
    """These records as dead letters, at the offsets 0, 1, 2 ... of one partition, as the consumer buries them."""
    database = databases.open("scoring")

    async def bury(session: Session) -> None:
        await session.now()
        for one in records:
            emit_dead_letter(session, one, Death("handler-failed", "it broke", 3))

    await database.run(bury)
    rows = await database.run(lambda session: session.execute(BURIED))
    found = [Record(row.topic, 0, offset, NOW, bytes(row.key), bytes(row.value), unpack_headers(row.headers))
             for offset, row in enumerate(rows)]  # fmt: skip
    return [dead_letter("scoring", one) for one in found]


async def test_the_original_is_untouched_but_for_the_count_of_its_replays(databases: Databases) -> None:
    (letter,) = await buried(databases, record())
    assert letter.reason == "handler-failed"
    assert letter.replays == 0
    assert letter.original == Message("baton.activities.v1", b"lead_1", b"{}", (*OWN, (REPLAYS, b"1")))


async def test_a_record_that_died_again_has_one_header_with_a_higher_count(databases: Databases) -> None:
    (letter,) = await buried(databases, record((*OWN, (REPLAYS, b"1"))))
    assert letter.replays == 1
    assert letter.original is not None
    assert [header for header in letter.original.headers if header[0] == REPLAYS] == [(REPLAYS, b"2")]


async def test_headers_that_a_sender_named_like_ours_are_the_records_own(databases: Databases) -> None:
    own = (("x-original-topic", b"elsewhere"), ("baton-reason-code", b"made-up"), *OWN)
    (letter,) = await buried(databases, record(own))
    assert (letter.topic, letter.reason) == ("baton.activities.v1", "handler-failed")
    assert letter.original is not None
    assert letter.original.headers == (*own, (REPLAYS, b"1"))


@pytest.mark.parametrize("died", [record(key=None), record(topic="baton.nurture.v1"), record(topic="somebody.elses")])
async def test_what_cannot_be_published_as_it_was_stays(databases: Databases, died: Record) -> None:
    letters = await buried(databases, died)
    assert letters[0].verdict(frozenset(), CAP) is Verdict.UNPLAYABLE
    assert await redrive(databases.open("scoring"), letters) == 0


async def test_at_the_cap_a_record_stays(databases: Databases) -> None:
    letters = await buried(databases, record((*OWN, (REPLAYS, b"2"))))
    assert letters[0].verdict(frozenset(), CAP) is Verdict.CAPPED
    database = databases.open("scoring")
    assert await redrive(database, letters) == 0
    assert await redrive(database, letters, cap=3) == 1


async def test_each_goes_back_once_in_order_and_a_second_time_has_no_effect(databases: Databases) -> None:
    letters = await buried(databases, *(record(key=f"lead_{number}".encode()) for number in range(3)))
    database = databases.open("scoring")
    assert await redrive(database, letters[:2]) == 2
    assert await redrive(database, letters) == 1
    assert await redrive(database, letters) == 0
    waiting = await database.read(lambda session: session.execute(WAITING))
    assert [(row.topic, bytes(row.key), bytes(row.value)) for row in waiting] == [
        ("baton.activities.v1", f"lead_{number}".encode(), b"{}") for number in range(3)
    ]
    assert unpack_headers(waiting[0].headers) == (*OWN, (REPLAYS, b"1"))
    done = await database.read(lambda session: redriven(session, DLQ))
    assert {letter.verdict(done, CAP) for letter in letters} == {Verdict.DONE}


async def test_what_the_topic_no_longer_holds_is_forgotten(databases: Databases) -> None:
    letters = await buried(databases, *(record() for _ in range(4)))
    database = databases.open("scoring")
    await redrive(database, letters)
    await forget(database, {TopicPartition(DLQ, 0): OffsetRange(1, 3), TopicPartition(DLQ, 1): OffsetRange(0, 0)})
    assert await database.read(lambda session: redriven(session, DLQ)) == {(DLQ, 0, 1), (DLQ, 0, 2)}
