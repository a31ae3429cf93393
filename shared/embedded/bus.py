"""The embedded event log: `shared.bus.Bus` over one SQLite file, within one process.

The server opens it for writing; its data directory's lock makes it the only one. The command line opens it
`read_only`, while the server runs or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from shared.bus import (
    BusError,
    BusUnavailable,
    Listener,
    Message,
    OffsetGap,
    OffsetRange,
    Record,
    TopicPartition,
    TopicsReport,
    member_name,
)
from shared.clock import Clock, system_clock
from shared.embedded.consumer import EmbeddedConsumer
from shared.embedded.group import Group
from shared.embedded.log import Log, answered
from shared.topics import Topic

T = TypeVar("T")

POLL_SECONDS = 0.1  # how soon a read-only opening sees what the server wrote


class EmbeddedBus:
    """One thread writes and one reads, each with its own connection: a reader never waits for a commit."""

    def __init__(
        self, path: Path, *, read_only: bool = False, deadline_seconds: float = 10.0, clock: Clock = system_clock
    ) -> None:
        self.news = asyncio.Event()
        self._path = path
        self._is_read_only = read_only
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self._writer: _Thread | None = None
        if not read_only:
            log = answered(lambda: Log(path, writes=True, creates=True))  # now: the reader needs the tables
            self._writer = _Thread(lambda: log)
        self._reader = _Thread(lambda: Log(path, writes=False))

    async def producer(self) -> EmbeddedProducer:
        self.assert_writes()
        return EmbeddedProducer(self)

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> EmbeddedConsumer:
        return EmbeddedConsumer(self, group, topics, listener)

    async def ranges(self, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
        return await self._read(lambda log: log.ranges(topics))

    async def read(
        self, place: TopicPartition, start: int, *, max_records: int, timeout_seconds: float
    ) -> list[Record]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while True:
            news = self.news
            found, gap = await self.read_from({place: start}, max_records)
            if gap is not None:
                raise gap
            if found or clock() >= deadline:
                return found.get(place, [])
            seconds = deadline - clock()
            await _passed(news, min(POLL_SECONDS, seconds) if self._is_read_only else seconds)

    async def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, int]:
        return await self._read(lambda log: log.committed(group, topics))

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        members = self._groups[group].members if group in self._groups else []
        return {place: member_name() for member in members for place in member.held or ()}

    async def ensure_topics(self, topics: Sequence[Topic]) -> TopicsReport:
        return await self._write(lambda log: log.ensure_topics(topics))

    async def delete_expired(self) -> int:
        """Delete records older than their topic's retention; how many. The server calls this now and then."""
        now = self._clock()
        deleted = 0
        while step := await self._write(lambda log: log.delete_expired(now)):  # what is to be appended goes between
            deleted += step
        return deleted

    async def close(self) -> None:
        for thread in (self._writer, self._reader):
            if thread is not None:
                await thread.close(self._deadline_seconds)

    # For the producer and the consumers

    def assert_writes(self) -> None:
        if self._is_read_only:
            raise BusError(f"{self._path} was opened read-only: write through the running server")

    def group(self, name: str) -> Group:
        return self._groups.setdefault(name, Group(self.announce))

    def announce(self) -> None:
        """Wake every fetch that waits."""
        self.news.set()
        self.news = asyncio.Event()

    async def append(self, messages: Sequence[Message]) -> list[BusError | None]:
        now = self._clock()
        verdicts = await self._write(lambda log: log.append(messages, now))
        self.announce()
        return verdicts

    async def read_from(
        self, positions: Mapping[TopicPartition, int], max_records: int
    ) -> tuple[dict[TopicPartition, list[Record]], OffsetGap | None]:
        return await self._read(lambda log: log.read(positions, max_records))

    async def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        await self._write(lambda log: log.commit_offsets(group, offsets))

    async def _read(self, work: Callable[[Log], T]) -> T:
        return await self._reader.run(work, self._deadline_seconds)

    async def _write(self, work: Callable[[Log], T]) -> T:
        self.assert_writes()
        assert self._writer is not None
        return await self._writer.run(work, self._deadline_seconds)


class EmbeddedProducer:
    """See `shared.bus.Producer`."""

    def __init__(self, bus: EmbeddedBus) -> None:
        self._bus = bus

    async def publish(self, messages: Sequence[Message]) -> list[BusError | None]:
        try:
            return await self._bus.append(messages)
        except BusUnavailable as error:
            return [error for _ in messages]

    async def close(self) -> None:
        """Nothing of it is left: what was published is on the disk."""


class _Thread:
    """A thread with the connection it opened at its first work."""

    def __init__(self, opens: Callable[[], Log]) -> None:
        self._opens = opens
        self._log: Log | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="event-log")
        self._is_closed = False

    async def run(self, work: Callable[[Log], T], deadline_seconds: float) -> T:
        """What `work` gives. Raises `BusUnavailable` after the deadline: the work may still be done."""
        if self._is_closed:
            raise BusUnavailable("the event log is closed")
        done = asyncio.get_running_loop().run_in_executor(self._executor, answered, lambda: work(self._opened()))
        try:
            return await asyncio.wait_for(done, deadline_seconds)
        except TimeoutError as error:
            raise BusUnavailable(f"the event log's file did not answer within {deadline_seconds:g} s") from error

    async def close(self, deadline_seconds: float) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown(wait=False)
        await asyncio.wait([closing], timeout=deadline_seconds)

    def _opened(self) -> Log:
        if self._log is None:
            self._log = self._opens()
        return self._log

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()


async def _passed(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but not longer."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
