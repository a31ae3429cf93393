"""Dead letters back to where they came from: the original record, untouched, on its original topic.

They leave through the outbox of the service that buried them, in the transaction that remembers which went back. So a
redrive that was interrupted goes on where it was, whatever was chosen the first time, and a second one repeats nothing.
A record that dies again is a new dead letter, with its replays counted in a header; at a cap it stays where it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.bus import Bus, Headers, Message, OffsetRange, Record, TopicPartition
from shared.db import Database, Session
from shared.outbox import emit_as_is
from shared.sql import sql
from shared.topics import consumed_by, dead_letter_topic

REPLAYS: Final = "baton-replays"
CAP: Final = 2
AT_ONCE: Final = 100  # records a transaction
READ_SECONDS: Final = 5.0
FIRST_OF_ORIGIN: Final = "x-original-topic"  # the first header that burying adds; what stands before it is the record's

REMEMBER = sql(
    """
    INSERT INTO redrives (topic, partition, dead_offset, redriven_at)
    SELECT of_topic, of_partition, of_offset, clock_timestamp() FROM {rows} WHERE true
    ON CONFLICT (topic, partition, dead_offset) DO NOTHING
    RETURNING topic, partition, dead_offset
    """,
    of_topic="text",
    of_partition="bigint",
    of_offset="bigint",
)
REDRIVEN = sql("SELECT topic, partition, dead_offset FROM redrives WHERE topic = :topic")
FORGET = sql(
    """
    DELETE FROM redrives WHERE EXISTS (
        SELECT 1 FROM {rows} WHERE of_topic = topic AND of_partition = partition
        AND (dead_offset < of_begin OR dead_offset >= of_end)
    )
    """,
    of_topic="text",
    of_partition="bigint",
    of_begin="bigint",
    of_end="bigint",
)

Place = tuple[str, int, int]  # topic, partition, offset


class Verdict(StrEnum):
    """What a redrive does with a dead letter."""

    REDRIVE = "redrive"
    DONE = "done"  # it went back before
    CAPPED = "capped"  # it went back too often: somebody must look at it
    UNPLAYABLE = "unplayable"  # what died had no key or value, or comes from a topic this service does not read


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, and the message that it was; `original` None: it cannot be published again as it was."""

    record: Record
    reason: str
    topic: str
    replays: int
    original: Message | None

    @property
    def place(self) -> Place:
        return (*self.record.place, self.record.offset)

    def verdict(self, redriven: frozenset[Place], cap: int) -> Verdict:
        if self.place in redriven:
            return Verdict.DONE
        if self.original is None:
            return Verdict.UNPLAYABLE
        return Verdict.CAPPED if self.replays >= cap else Verdict.REDRIVE


def dead_letter(service: str, record: Record) -> DeadLetter:
    """Read a record of the service's dead-letter topic."""
    names = [name for name, _ in record.headers]
    end = len(names) - 1 - names[::-1].index(FIRST_OF_ORIGIN) if FIRST_OF_ORIGIN in names else len(names)
    own, origin = record.headers[:end], dict(record.headers[end:])
    topic = origin.get(FIRST_OF_ORIGIN, b"").decode(errors="replace")
    replays = _count(dict(own).get(REPLAYS))
    is_whole = origin.get("baton-key-missing") == b"0" and origin.get("baton-value-missing") == b"0"
    is_ours = topic in {known.name for known in consumed_by(service)}
    original = None
    if is_whole and is_ours:
        original = Message(topic, record.key or b"", record.value or b"", _counted(own, replays + 1))
    reason = origin.get("baton-reason-code", b"").decode(errors="replace")
    return DeadLetter(record, reason, topic, replays, original)


async def redriven(session: Session, topic: str) -> frozenset[Place]:
    """The dead letters of this topic that went back already."""
    rows = await session.execute(REDRIVEN, topic=topic)
    return frozenset((row.topic, row.partition, row.dead_offset) for row in rows)


async def send_back(database: Database, bus: Bus, places: Sequence[tuple[int, int]], *, cap: int = CAP) -> int:
    """Send the service's dead letters at these (partition, offset) back, in this order; how many went."""
    held = await bus.ranges([dead_letter_topic(database.service)])
    await forget(database, held)
    return await redrive(database, await read_letters(bus, database.service, places, held), cap=cap)


async def redrive(database: Database, letters: Sequence[DeadLetter], *, cap: int = CAP) -> int:
    """Send these back, in this order, in one transaction; how many went. Those that went before do not go again."""
    playable = {
        letter.place: letter.original
        for letter in letters
        if letter.original is not None and letter.verdict(frozenset(), cap) is Verdict.REDRIVE
    }

    async def work(session: Session) -> int:
        await session.now()
        new = {(row.topic, row.partition, row.dead_offset) for row in await session.execute(REMEMBER, list(playable))}
        for place, message in playable.items():
            if place in new:
                emit_as_is(session, message)
        return len(new)

    return await database.run(work) if playable else 0


async def read_letters(
    bus: Bus, service: str, places: Sequence[tuple[int, int]], held: Mapping[TopicPartition, OffsetRange]
) -> list[DeadLetter]:
    """The dead letters at these places that are still held, in this order."""
    topic = dead_letter_topic(service)
    wanted: dict[TopicPartition, set[int]] = defaultdict(set)
    for partition, offset in places:
        offsets = held.get(TopicPartition(topic, partition))
        if offsets is not None and offsets.begin <= offset < offsets.end:
            wanted[TopicPartition(topic, partition)].add(offset)
    found: dict[tuple[int, int], DeadLetter] = {}
    for place, offsets_there in wanted.items():
        position = min(offsets_there)
        while position <= max(offsets_there):
            page = await bus.read(place, position, max_records=AT_ONCE, timeout_seconds=READ_SECONDS)
            if not page:
                break
            mine = (record for record in page if record.offset in offsets_there)
            found.update({(record.partition, record.offset): dead_letter(service, record) for record in mine})
            position = page[-1].offset + 1
    return [found[place] for place in places if place in found]


async def forget(database: Database, held: Mapping[TopicPartition, OffsetRange]) -> None:
    """Forget what the dead-letter topic does not hold: no longer, or, begun anew, not yet."""
    await database.run(lambda session: session.execute(FORGET, [(*place, *offsets) for place, offsets in held.items()]))


def _counted(headers: Headers, replays: int) -> Headers:
    kept = tuple((name, value) for name, value in headers if name != REPLAYS)
    return (*kept, (REPLAYS, str(replays).encode()))


def _count(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
