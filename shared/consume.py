"""The consumer loop: records in, state and outbox rows out, each record applied once.

Here is the reading: a lane per assigned partition, what waits in them folded into bundles (lanes.py), a few bundles
under way at once, each settled in transactions of its own (settle.py). The database's position is the truth; the
group's offset is committed now and then, as a hint for lag tools. Reading goes on while bundles are under way, because
it keeps the membership alive; a partition with enough in hand is paused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import structlog

from shared.bus import Bus, BusError, BusUnavailable, OffsetGap, OffsetRange, TopicPartition
from shared.bus import Consumer as BusConsumer
from shared.db import Database, DatabaseError
from shared.failpoints import failpoint
from shared.heartbeat import beat
from shared.lanes import Lane, bundles
from shared.positions import resolve
from shared.settle import ConsumerHalted, ConsumeSettings, Handler, Settler
from shared.topics import group, topic
from shared.waiting import pause

log = structlog.get_logger()


class Consumer:
    """The consumer of one service in one process. `run` it once; it is the `Listener` of its bus consumer."""

    def __init__(
        self, database: Database, bus: Bus, handlers: Mapping[str, Handler], settings: ConsumeSettings | None = None
    ) -> None:
        self._database = database
        self._service = database.service
        self._bus = bus
        self._settings = settings or ConsumeSettings()
        self._topics = sorted(handlers)
        self._settler = Settler(database, handlers, self._settings)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish what is in hand. Raises `ConsumerHalted`."""
        while not stop.is_set():
            beat()  # waiting for a broker is progress, too: a restart would not bring it back
            try:
                await self._consume(stop)
            except OffsetGap as error:
                raise ConsumerHalted(
                    f"{self._service}: {error}. Records are missing: restore the log, or decide where to go on and set "
                    "next_offset in the positions table"
                ) from error
            except (BusError, DatabaseError) as error:
                self._failures += 1
                log.warning("consume.waits", service=self._service, cause=type(error).__name__, detail=str(error))
                await pause(stop, self._settings.back_off(self._failures))

    # As the bus consumer's listener

    async def assigned(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the database says that this service is, in each of these partitions."""
        ranges = await self._ranges(partitions)
        starts = {
            place: ranges[place].begin if self._starts_early(place.topic) else ranges[place].end for place in partitions
        }
        positions = await self._database.run(lambda session: resolve(session, starts))
        if any(position > ranges[place].end for place, position in positions.items()):
            ranges = await self._ranges(partitions)  # a member that was pushed out may have gone on in between
        for place, position in positions.items():
            begin, end = ranges[place]
            if not begin <= position <= end:
                raise OffsetGap(f"the next record of {_names([place])} is {position}, the log holds {begin} to {end}")
            self._lanes[place] = Lane(place, position)
        log.info("consume.assigned", service=self._service, partitions=_names(partitions))
        return positions

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Drain first, fence second: let the transactions under way end, then forget the lanes."""
        await self._drain(self._lanes[place] for place in partitions if place in self._lanes)
        for place in partitions:
            self._lanes.pop(place, None)
        log.info("consume.revoked", service=self._service, partitions=_names(partitions))

    async def _ranges(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, OffsetRange]:
        ranges = await self._bus.ranges(sorted({place.topic for place in partitions}))
        if unknown := partitions - ranges.keys():
            raise BusUnavailable(f"no offsets for {_names(unknown)}")
        return ranges

    def _starts_early(self, name: str) -> bool:
        return topic(name).consumers[self._service] == "earliest"

    # The loop

    async def _consume(self, stop: asyncio.Event) -> None:
        consumer = self._bus.consumer(group(self._service), self._topics, self)
        self._failure = None
        try:
            await consumer.start()
            await self._poll(consumer, stop)
        finally:
            await self._drain(self._lanes.values())
            await self._commit(consumer)
            await consumer.close()
            self._lanes.clear()

    async def _poll(self, consumer: BusConsumer, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        commit_at = clock() + self._settings.commit_seconds
        while not stop.is_set():
            beat()
            read = await consumer.fetch(
                paused=[lane.place for lane in self._lanes.values() if len(lane.records) >= self._settings.batch],
                max_records=self._settings.batch,
                timeout_seconds=self._settings.poll_seconds,
            )
            self._failures = 0
            for place, records in read.items():
                if lane := self._lanes.get(place):
                    lane.records.extend(record for record in records if record.offset >= lane.position)
            await self._seek_moved(consumer)
            self._start_ready()
            if self._failure is not None:
                raise self._failure
            if clock() >= commit_at:
                await self._commit(consumer)
                commit_at = clock() + self._settings.commit_seconds

    async def _seek_moved(self, consumer: BusConsumer) -> None:
        """Read on from where somebody else moved a partition to."""
        for lane in self._lanes.values():
            if lane.is_moved:
                lane.records.clear()  # read before the seek
                await consumer.seek(lane.place, lane.position)
                lane.is_moved = False

    def _start_ready(self) -> None:
        """Start settling every bundle that can run, while connections last."""
        if self._failure is not None:
            return
        now = asyncio.get_running_loop().time()
        for bundle in bundles(self._lanes.values(), now=now, size=self._settings.batch):
            if len(self._tasks) >= self._settings.parallel:
                return
            lanes = bundle.lanes
            for lane in lanes:
                lane.is_busy = True
            task = asyncio.create_task(self._settler.settle(bundle))
            self._tasks.add(task)
            task.add_done_callback(partial(self._settled, lanes))

    def _settled(self, lanes: Sequence[Lane], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for lane in lanes:
            lane.is_busy = False
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._start_ready()

    async def _drain(self, lanes: Iterable[Lane]) -> None:
        """Start nothing more for these lanes; let what is under way end, a bounded time, then roll it back."""
        for lane in lanes:
            lane.is_revoked = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("consume.abandoned", service=self._service, transactions=len(late))
            await asyncio.wait(late, timeout=self._settings.drain_seconds)

    async def _commit(self, consumer: BusConsumer) -> None:
        """Tell the group where the database is. A hint: when it is lost, nothing is."""
        moved = [lane for lane in self._lanes.values() if lane.committed != lane.position]
        if not moved:
            return
        try:
            await consumer.hint({lane.place: lane.position for lane in moved})
        except BusError as error:
            log.info("consume.hint_lost", service=self._service, cause=type(error).__name__)
            return
        for lane in moved:
            lane.committed = lane.position
        failpoint(f"{self._service}.consume.after_offset_commit")


def _names(places: Iterable[TopicPartition]) -> list[str]:
    return [f"{place.topic}/{place.partition}" for place in sorted(places)]
