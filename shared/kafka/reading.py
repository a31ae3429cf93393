"""Records out of partitions, one lane each, so that what cannot be decoded stops nobody else.

Asked for several partitions at once, aiokafka raises for ever when one of them begins with a record that it cannot
decode, and forgets what it had already taken from the others. So each partition is asked by itself; after an error it
is read record by record up to the one that is to blame, which is handed out as unreadable and stepped over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from aiokafka import TopicPartition as Place
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnsupportedCodecError,
)

from shared.bus import BusError, BusUnavailable, OffsetGap, Record, TopicPartition
from shared.kafka.client import within

UNDECODABLE = (CorruptRecordException, UnsupportedCodecError)
NOWHERE = Place("baton.nowhere", 0)  # asking aiokafka for no partition means all of them
POSITION_SECONDS = 5.0
EPOCH = datetime.fromtimestamp(0, UTC)

Found = dict[TopicPartition, list[Record]]


class Reading:
    """What is read through one of aiokafka's consumers; topic names without the prefix, outside."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._careful: set[TopicPartition] = set()  # undecodable records are ahead: one record at a time
        self._is_suspicious = False  # a partition begins with an undecodable record, but which?
        self._failure: BusError | None = None

    def physical(self, place: TopicPartition) -> Any:
        return Place(self._prefix + place.topic, place.partition)

    def logical(self, place: Any) -> TopicPartition:
        return TopicPartition(place.topic.removeprefix(self._prefix), place.partition)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._client.seek(self.physical(place), offset)
        self._careful.discard(place)
        self._failure = None

    def forget(self) -> None:
        """The partitions were revoked."""
        self._careful.clear()
        self._is_suspicious = False
        self._failure = None

    async def taken(self, places: Iterable[TopicPartition], max_records: int) -> Found:
        """What has arrived of these partitions, without waiting. Raises `BusError` when that is all there is to say."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        found: Found = {}
        if max_records < 1:
            return found
        for place in places:
            try:
                if records := await self._lane(place, max_records):
                    found[place] = records
            except BusError as error:
                self._failure = error
        if self._failure is not None and not found:
            return await self.taken((), max_records)  # which raises it
        return found

    async def awaited(self, places: Collection[TopicPartition], seconds: float) -> Found:
        """Wait until something arrives; at most one record, taken with it. Never raises for undecodable records."""
        if self._is_suspicious:
            return await self._awaited_apart(places, seconds)
        try:
            wanted = (*map(self.physical, places), NOWHERE)
            answer = await self._client.getmany(*wanted, timeout_ms=int(seconds * 1000), max_records=1)
        except NoOffsetForPartitionError:
            return {}  # of a partition whose position is not set yet
        except OffsetOutOfRangeError as error:
            self._failure = _gap(error, self._prefix)
            return {}
        except Exception as error:
            if isinstance(error, KafkaError) and not isinstance(error, UNDECODABLE):
                raise BusUnavailable(f"Kafka: {type(error).__name__}: {error}") from error
            self._is_suspicious = True
            return {}
        return {
            self.logical(place): [_record(self.logical(place), raw) for raw in raws] for place, raws in answer.items()
        }

    async def _awaited_apart(self, places: Collection[TopicPartition], seconds: float) -> Found:
        """The same, each partition asked by itself, to see which one fails."""
        asked = {asyncio.create_task(self._one(place, seconds)): place for place in places}
        if not asked:
            return {}
        try:
            await asyncio.wait(asked, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
        found: Found = {}
        for task, place in asked.items():
            if task.cancelled():
                continue
            if isinstance(error := task.exception(), BusError):
                self._failure = error
            elif error is not None:
                raise error
            elif records := task.result():
                found[place] = records
                self._is_suspicious = self._is_suspicious and not any(record.unreadable for record in records)
        return found

    async def _lane(self, place: TopicPartition, max_records: int) -> list[Record]:
        if place not in self._careful:
            try:
                return await self._asked(place, max_records, 0.0)
            except _Undecodable:
                self._careful.add(place)  # nothing was taken: the position stands before the good ones
                return []
        records: list[Record] = []
        while len(records) < max_records:
            one = await self._one(place, 0.0)
            records.extend(one)
            if not one or one[0].unreadable:
                break
        if records and records[-1].unreadable:
            self._careful.discard(place)
        return records

    async def _one(self, place: TopicPartition, seconds: float) -> list[Record]:
        """The next record of a partition, if there is one; what cannot be decoded is stepped over."""
        try:
            return await self._asked(place, 1, seconds)
        except _Undecodable as error:
            position = await within(POSITION_SECONDS, self._client.position(self.physical(place)), "asking a position")
            self._client.seek(self.physical(place), position + 1)
            return [_unreadable(place, position, error.cause)]

    async def _asked(self, place: TopicPartition, max_records: int, seconds: float) -> list[Record]:
        try:
            answer = await self._client.getmany(
                self.physical(place), timeout_ms=int(seconds * 1000), max_records=max_records
            )
        except NoOffsetForPartitionError:
            return []
        except OffsetOutOfRangeError as error:
            raise _gap(error, self._prefix) from error
        except UNDECODABLE as error:
            raise _Undecodable(error) from error
        except KafkaError as error:
            raise BusUnavailable(f"Kafka: {type(error).__name__}: {error}") from error
        except Exception as error:  # whatever decoding raises, e.g. UnicodeDecodeError
            raise _Undecodable(error) from error
        return [_record(place, raw) for raws in answer.values() for raw in raws]


class _Undecodable(Exception):
    """The record at the partition's position, or one soon after it, cannot be decoded."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


def _record(place: TopicPartition, raw: Any) -> Record:
    return Record(
        topic=place.topic,
        partition=place.partition,
        offset=raw.offset,
        timestamp=datetime.fromtimestamp(raw.timestamp / 1000, UTC),
        key=raw.key,
        value=raw.value,
        headers=tuple((name, value if value is not None else b"") for name, value in raw.headers),
    )


def _unreadable(place: TopicPartition, offset: int, cause: Exception) -> Record:
    reason = f"the client could not decode it: {type(cause).__name__}"  # its text may hold a lead's data
    return Record(place.topic, place.partition, offset, EPOCH, None, None, (), reason)


def _gap(error: OffsetOutOfRangeError, prefix: str) -> OffsetGap:
    ((place, offset),) = error.args[0].items()
    return OffsetGap(f"{place.topic.removeprefix(prefix)}/{place.partition}: the log does not hold the offset {offset}")


def merged(first: Found, more: Found) -> Found:
    """Both, `first` first."""
    return {place: first.get(place, []) + more.get(place, []) for place in first | more}
