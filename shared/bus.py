"""The event log as the rest of the code sees it: what aiokafka offers, and no more.

Two implementations keep the same promises under one conformance suite (`tests/conformance`): `shared/kafka` and
`shared/embedded`. Offsets, keys, headers and positions mean what they mean in Apache Kafka.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from shared.topics import Topic

Headers = tuple[tuple[str, bytes], ...]

MAX_MESSAGE_BYTES = (
    1_048_576  # what Kafka's producers and brokers take unless told otherwise; both implementations refuse more
)


class BusError(Exception):
    """The event log could not do what was asked; the message says what to do."""


class BusUnavailable(BusError):
    """No answer from the event log within the deadline. Nothing is known of what was under way; try again."""


class MessageRefused(BusError):
    """The event log will never take this message (too large, invalid): repeating it is useless."""


class TopicMissing(BusError):
    """A topic does not exist: `baton topics ensure` creates it. Nothing relies on auto-creation."""


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
        that the outcome is unknown: it may still be published later (readers drop repeats by event id). `TopicMissing`
        concerns the messages of that topic.
        """
        ...

    async def close(self) -> None: ...


class Consumer(Protocol):
    """A member of a group. Positions are the caller's: it neither commits by itself nor jumps on a gap."""

    async def start(self) -> None:
        """Join. Keeps no state after a failure: `BusUnavailable`, `TopicMissing` may be answered by calling again."""
        ...

    async def fetch(
        self, *, paused: Collection[TopicPartition], max_records: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Records of the assigned partitions but the paused ones, in offset order, at most `max_records` a partition.

        Returns early with the first records, empty after `timeout_seconds`. Must be called often: it keeps the
        membership alive, also when everything is paused, and it is where the listener is told. Raises what the
        listener raised, `OffsetGap` (again at each call, until a `seek`), and `BusUnavailable` when the log has been
        silent for so long that a new consumer is the better try.
        """
        ...

    async def seek(self, place: TopicPartition, offset: int) -> None:
        """The next fetch of this partition starts at `offset`. Without effect on a partition that is not assigned."""
        ...

    async def hint(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A hint for lag tools: the group's offsets. Bounded in time; the caller may ignore its `BusError`."""
        ...

    def assignment(self) -> frozenset[TopicPartition]: ...

    async def close(self) -> None:
        """Leave the group; the listener is not told: drain first. Bounded in time; never raises for a dead broker."""
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
        """Records from `start` on, without a group (for people, tools); none at the log's end. Raises `OffsetGap`."""
        ...

    async def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """The group's committed offsets (see `Consumer.hint`); partitions without one are absent."""
        ...

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        """The group's member (`member_name`) that holds each partition now; partitions nobody holds are absent.

        The embedded log knows the members of its own process only.
        """
        ...

    async def ensure_topics(self, topics: Sequence[Topic]) -> TopicsReport:
        """Create what is missing, change nothing that exists, report what differs."""
        ...

    async def close(self) -> None: ...


def member_name() -> str:
    """How this process is called among the members of a group: where to look for it."""
    return f"{socket.gethostname()}-{os.getpid()}"


def differences(wanted: Topic, *, partitions: int, retention: timedelta | None) -> tuple[str, ...]:
    """Sentences on how an existing topic differs from the table. `retention` None: kept by compaction."""
    found = []
    if partitions != wanted.partitions:
        found.append(
            f"{wanted.name} has {partitions} partitions, not {wanted.partitions}: keys would move, so the number stays"
        )
    if retention != wanted.retention:
        found.append(f"{wanted.name} is kept {_kept(retention)}, not {_kept(wanted.retention)}")
    return tuple(found)


def _kept(retention: timedelta | None) -> str:
    if retention is None:
        return "by compaction"
    return "for ever" if retention == timedelta.max else f"for {retention.total_seconds() / 86400:g} days"
