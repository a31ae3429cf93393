"""The file: topics, partitions, records and the groups' offsets in SQLite. Blocking; the bus calls it from its threads.

A record's row id is its partition's number and its offset in one integer, so that a partition is read in the order of
the table itself. Appending is one transaction a batch, on the disk (WAL, synchronous=FULL) before it is answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from shared.bus import (
    MAX_MESSAGE_BYTES,
    BusError,
    BusUnavailable,
    Headers,
    Message,
    MessageRefused,
    OffsetGap,
    OffsetRange,
    Record,
    TopicMissing,
    TopicPartition,
    TopicsReport,
    differences,
)
from shared.partition import partition_of
from shared.topics import Topic

T = TypeVar("T")

OFFSET_BITS = 40  # a million records a second for twelve days, in each of eight million partitions
FETCH_BYTES = 1024 * 1024  # a fetch takes this much of a partition at most, but always one record, as Kafka's does
RECORD_OVERHEAD_BYTES = 100  # what Kafka adds to a batch of one record
DELETED_AT_ONCE = 5000  # records: some ten milliseconds, which is how long publishing waits for the pruning
LOCK_SECONDS = 5.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, retention_seconds REAL);
CREATE TABLE IF NOT EXISTS partitions (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    begin_offset INTEGER NOT NULL DEFAULT 0, end_offset INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition)
);
CREATE TABLE IF NOT EXISTS records (
    place INTEGER PRIMARY KEY, timestamp_milliseconds INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    headers BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS group_offsets (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;
"""
PARTITIONS = "SELECT topic, partition, number, begin_offset, end_offset FROM partitions"
RECORDS = """
SELECT place, timestamp_milliseconds, key, value, headers FROM records
WHERE place >= ? AND place < ? ORDER BY place LIMIT ?
"""
INSERT_RECORD = "INSERT INTO records (place, timestamp_milliseconds, key, value, headers) VALUES (?, ?, ?, ?, ?)"
MOVE_END = "UPDATE partitions SET end_offset = ? WHERE number = ?"
MOVE_BEGIN = "UPDATE partitions SET begin_offset = ? WHERE number = ?"
FIRST_YOUNG = "SELECT min(place) FROM records WHERE place >= ? AND place < ? AND timestamp_milliseconds >= ?"
DELETE = "DELETE FROM records WHERE place >= ? AND place < ?"
COMMIT_OFFSET = """
INSERT INTO group_offsets (group_name, topic, partition, next_offset) VALUES (?, ?, ?, ?)
ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
"""
COMMITTED = "SELECT topic, partition, next_offset FROM group_offsets WHERE group_name = ?"


class Partition:
    """One partition's row, as a transaction sees and moves it."""

    __slots__ = ("begin", "end", "number")

    def __init__(self, number: int, begin: int, end: int) -> None:
        self.number, self.begin, self.end = number, begin, end

    def place(self, offset: int) -> int:
        return self.number << OFFSET_BITS | offset


class Log:
    """One connection to the file. Used by one thread at a time."""

    def __init__(self, path: Path, *, writes: bool, creates: bool = False) -> None:
        if creates:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise BusUnavailable(f"{path} does not exist: no server has run on this data yet")
        self._connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous=FULL")
        if creates:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.executescript(SCHEMA)
        if not writes:
            self._connection.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        self._connection.close()

    def ensure_topics(self, topics: Sequence[Topic]) -> TopicsReport:
        with self._writing():
            kept = self._connection.execute("SELECT name, partitions, retention_seconds FROM topics").fetchall()
            known = {name: (partitions, retention) for name, partitions, retention in kept}
            missing = [topic for topic in topics if topic.name not in known]
            for topic in missing:
                self._create(topic)
        present = [topic for topic in topics if topic.name in known]
        found = [
            sentence
            for topic in present
            for sentence in differences(
                topic, partitions=known[topic.name][0], retention=_retention(known[topic.name][1])
            )
        ]
        return TopicsReport(
            created=tuple(topic.name for topic in missing),
            present=tuple(topic.name for topic in present),
            differences=tuple(found),
        )

    def append(self, messages: Sequence[Message], now: datetime) -> list[BusError | None]:
        """Write a batch; one verdict a message. Raises `sqlite3.Error`: then nothing of it is written."""
        verdicts: list[BusError | None] = []
        rows: list[tuple[int, int, bytes, bytes, bytes]] = []
        milliseconds = int(now.timestamp() * 1000)
        with self._writing():
            partitions = self._partitions({message.topic for message in messages})
            counts = _counts(partitions)
            for message in messages:
                verdict = _refusal(message, counts)
                verdicts.append(verdict)
                if verdict is None:
                    place = TopicPartition(message.topic, partition_of(message.key, counts[message.topic]))
                    row = partitions[place]
                    headers = msgspec.msgpack.encode(message.headers)
                    rows.append((row.place(row.end), milliseconds, message.key, message.value, headers))
                    row.end += 1
            self._connection.executemany(INSERT_RECORD, rows)
            self._connection.executemany(MOVE_END, [(row.end, row.number) for row in partitions.values()])
        return verdicts

    def read(
        self, positions: Mapping[TopicPartition, int], max_records: int
    ) -> tuple[dict[TopicPartition, list[Record]], OffsetGap | None]:
        """Records from each position on, at most `max_records` a partition, and the first gap that was met."""
        found: dict[TopicPartition, list[Record]] = {}
        gap: OffsetGap | None = None
        with self._reading():
            partitions = self._partitions({place.topic for place in positions})
            for place, position in positions.items():
                row = partitions.get(place)
                if row is None or not row.begin <= position <= row.end:
                    gap = gap or _gap(place, position, row)
                elif position < row.end:
                    found[place] = self._records(place, row, position, max_records)
        return found, gap

    def ranges(self, topics: Collection[str]) -> dict[TopicPartition, OffsetRange]:
        found = self._partitions(set(topics))
        return {place: OffsetRange(row.begin, row.end) for place, row in found.items()}

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        with self._writing():
            self._connection.executemany(COMMIT_OFFSET, [(group, *place, offset) for place, offset in offsets.items()])

    def committed(self, group: str, topics: Collection[str]) -> dict[TopicPartition, int]:
        found = self._connection.execute(COMMITTED, (group,)).fetchall()
        return {TopicPartition(topic, partition): offset for topic, partition, offset in found if topic in topics}

    def delete_expired(self, now: datetime) -> int:
        """Delete some of what is older than its topic's retention; how many records: 0 when nothing is left."""
        kept = self._connection.execute(
            "SELECT name, retention_seconds FROM topics WHERE retention_seconds IS NOT NULL"
        )
        for name, seconds in kept.fetchall():
            limit = int((now - timedelta(seconds=seconds)).timestamp() * 1000)
            for row in self._partitions({name}).values():
                if deleted := self._delete_older(row, limit):
                    return deleted
        return 0

    def _delete_older(self, row: Partition, limit: int) -> int:
        """One step of one partition, from its beginning on."""
        step = min(row.begin + DELETED_AT_ONCE, row.end)
        (first_young,) = self._connection.execute(
            FIRST_YOUNG, (row.place(row.begin), row.place(step), limit)
        ).fetchone()
        until = step if first_young is None else first_young - row.place(0)
        if until > row.begin:
            with self._writing():
                self._connection.execute(DELETE, (row.place(row.begin), row.place(until)))
                self._connection.execute(MOVE_BEGIN, (until, row.number))
        return until - row.begin

    def _create(self, topic: Topic) -> None:
        seconds = None if topic.retention is None else topic.retention.total_seconds()
        self._connection.execute("INSERT INTO topics VALUES (?, ?, ?)", (topic.name, topic.partitions, seconds))
        self._connection.executemany(
            "INSERT INTO partitions (topic, partition) VALUES (?, ?)",
            [(topic.name, partition) for partition in range(topic.partitions)],
        )

    def _partitions(self, topics: Collection[str]) -> dict[TopicPartition, Partition]:
        rows = self._connection.execute(PARTITIONS).fetchall()  # a few dozen: cheaper than choosing
        return {
            TopicPartition(topic, partition): Partition(number, begin, end)
            for topic, partition, number, begin, end in rows
            if topic in topics
        }

    def _records(self, place: TopicPartition, row: Partition, position: int, max_records: int) -> list[Record]:
        cursor = self._connection.execute(RECORDS, (row.place(position), row.place(row.end), max_records))
        return list(_within(FETCH_BYTES, (_record(place, row, found) for found in cursor)))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        yield from self._transaction("BEGIN IMMEDIATE", "COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        yield from self._transaction("BEGIN", "ROLLBACK")

    def _transaction(self, begin: str, end: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute(end)
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def answered(work: Callable[[], T]) -> T:
    """What `work` gives; trouble of the file (locked, full, broken) becomes `BusUnavailable`."""
    try:
        return work()
    except (sqlite3.Error, OSError) as error:
        raise BusUnavailable(f"the event log's file: {error}") from error


def _refusal(message: Message, counts: Mapping[str, int]) -> BusError | None:
    if message.topic not in counts:
        return TopicMissing(f"{message.topic} does not exist: run `baton topics ensure`")
    headers = sum(len(name) + len(value) for name, value in message.headers)
    size = len(message.key) + len(message.value) + headers + RECORD_OVERHEAD_BYTES
    if size > MAX_MESSAGE_BYTES:
        return MessageRefused(f"{size} bytes with its headers; the event log takes {MAX_MESSAGE_BYTES} at most")
    return None


def _counts(places: Collection[TopicPartition]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for place in places:
        counts[place.topic] = counts.get(place.topic, 0) + 1
    return counts


def _gap(place: TopicPartition, position: int, row: Partition | None) -> OffsetGap:
    held = "nothing" if row is None else f"{row.begin} to {row.end}"
    return OffsetGap(f"{place.topic}/{place.partition}: the next record is {position}, the log holds {held}")


def _record(place: TopicPartition, row: Partition, found: tuple[int, int, bytes, bytes, bytes]) -> Record:
    number, milliseconds, key, value, headers = found
    return Record(
        topic=place.topic,
        partition=place.partition,
        offset=number - row.place(0),
        timestamp=datetime.fromtimestamp(milliseconds / 1000, UTC),
        key=key,
        value=value,
        headers=msgspec.msgpack.decode(headers, type=Headers),
    )


def _within(size: int, records: Iterator[Record]) -> Iterator[Record]:
    """The first records, as many as fit into `size` bytes, but at least one."""
    for record in records:
        yield record
        size -= len(record.value or b"") + RECORD_OVERHEAD_BYTES
        if size <= 0:
            return


def _retention(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
