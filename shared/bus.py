"""The event log as the rest of the code sees it: what aiokafka offers, and no more.

Two implementations keep the same promises under one conformance suite (`tests/conformance`): `kafka.py` and
`embedded.py`. Offsets, keys, headers and positions mean what they mean in Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from shared.topics import Topic

Headers = tuple[tuple[str, bytes], ...]


class BusError(Exception):
    """The event log could not do what was asked; the message says what to do."""


class BusUnavailable(BusError):
    """No answer from the event log within the deadline. Nothing is known of what was under way; try again."""


class MessageRefused(BusError):
    """The event log will never take this message (too large, invalid): repeating it is useless."""


class OffsetGap(BusError):
    """The log no longer holds, or does not yet hold, the offset a position names: records are missing."""


class TopicPartition(NamedTuple):
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Message:
    """What a producer is given. The key chooses the partition, as Kafka's default partitioner does (murmur2)."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Record:
    """What a consumer is given. `unreadable`: why the client could not decode it (value and headers are empty then)."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes | None
    headers: Headers
    unreadable: str | None = None

    @property
    def place(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class OffsetRange(NamedTuple):
    """`begin`: first offset still held; `end`: the offset the next record will get."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """What `ensure_topics` did: names it created, names that were right, and sentences on what differs."""

    created: tuple[str, ...]
    present: tuple[str, ...]
    differences: tuple[str, ...]


class Listener(Protocol):
    """Told of changes of assignment, in the consumer's own task, before any record of a new partition is handed out."""

    async def assigned(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset to read from, for each newly assigned partition. An exception stops the consumer."""
        ...

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Finish or drop what is under way for these partitions; called before anybody else gets them."""
        ...


class Producer(Protocol):
    async def publish(self, messages: Sequence[Message]) -> list[BusError | None]:
        """Publish in order; one verdict a message, None when every in-sync replica has it.

        Returns within the deadline of the bus. `MessageRefused` concerns that message alone. `BusUnavailable` means
        that the outcome is unknown: it may still be published later (readers drop repeats by event id).
        """
        ...

    async def close(self) -> None: ...


class Consumer(Protocol):
    """A member of a group. Positions are the caller's: it neither commits by itself nor jumps on a gap."""

    async def start(self) -> None:
        """Join. Keeps no state after a failure: `BusUnavailable` may be answered by calling again."""
        ...

    async def fetch(
        self, *, paused: Collection[TopicPartition], max_records: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Records of the assigned partitions but the paused ones, in offset order, at most `max_records` a partition.

        Returns early with the first records, empty after `timeout_seconds`. Must be called often: it keeps the
        membership alive, also when everything is paused. Raises what a listener raised, and `OffsetGap`.
        """
        ...

    async def seek(self, place: TopicPartition, offset: int) -> None:
        """The next fetch of this partition starts at `offset`."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A hint for lag tools: the group's offsets. Bounded in time; the caller may ignore its `BusError`."""
        ...

    def assignment(self) -> frozenset[TopicPartition]: ...

    async def close(self) -> None:
        """Leave the group. Bounded in time; never raises for a dead broker."""
        ...


class Bus(Protocol):
    async def producer(self) -> Producer:
        """A started producer: idempotent, acknowledged by all replicas. Raises `BusUnavailable`."""
        ...

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer: ...

    async def ranges(self, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
        """Held offsets of every partition of these topics; unknown topics are absent. Raises `BusUnavailable`."""
        ...

    async def read(
        self, place: TopicPartition, start: int, *, max_records: int, timeout_seconds: float
    ) -> list[Record]:
        """Records from `start` on, without a group (for people and tools). Empty at the end of the log."""
        ...

    async def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """The group's committed offsets (the hint of `Consumer.commit`); partitions without one are absent."""
        ...

    async def ensure_topics(self, topics: Sequence[Topic]) -> TopicsReport:
        """Create what is missing, change nothing that exists, report what differs."""
        ...

    async def close(self) -> None: ...
