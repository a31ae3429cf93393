"""A member of a consumer group on Kafka.

The listener is told in the caller's task, inside `fetch`. Nothing is handed out of a partition before its position was
asked for and sought; the group's own offsets are a hint for lag tools and never read from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError

from shared.bus import BusUnavailable, Listener, Record, TopicMissing, TopicPartition
from shared.kafka.client import KafkaLimits, Topics, end, within
from shared.kafka.reading import Found, Reading, merged
from shared.kafka.rebalances import Assigned, Rebalances, Revoked

GRACE_SECONDS = 0.1  # for aiokafka to end its waiting itself: cut short, it keeps a waiter until something arrives


class KafkaConsumer:
    """See `shared.bus.Consumer`. `existing` tells which topics there are: aiokafka would wait in vain for another."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Sequence[str],
        listener: Listener,
        *,
        prefix: str,
        limits: KafkaLimits,
        existing: Topics,
    ) -> None:
        self._settings = settings
        self._topics = sorted(set(topics))
        self._listener = listener
        self._prefix = prefix
        self._limits = limits
        self._existing = existing
        self._client: Any = None
        self._reading = Reading(None, prefix)
        self._rebalances = Rebalances(limits.drain_seconds)
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._heard_at = 0.0
        self._newest_answer = 0

    async def start(self) -> None:
        if missing := set(self._topics) - await self._existing():
            raise TopicMissing(f"{', '.join(sorted(missing))} does not exist: run `baton topics ensure`")
        client = AIOKafkaConsumer(**self._settings)
        try:
            await within(self._limits.request_seconds, client.start(), "starting a consumer")
            self._rebalances = Rebalances(self._limits.drain_seconds)
            client.subscribe([self._prefix + topic for topic in self._topics], listener=self._rebalances)
        except BaseException:
            await end(client, self._limits.close_seconds)
            raise
        self._client, self._reading = client, Reading(client, self._prefix)
        self._heard_at = asyncio.get_running_loop().time()

    async def fetch(
        self, *, paused: Collection[TopicPartition], max_records: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        if self._client is None:
            raise RuntimeError("fetch before start, or after close")
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while True:
            await self._follow_rebalances()
            places = [place for place in self._assigned if place not in paused]
            found = await self._reading.taken(places, max_records)
            seconds = deadline - clock()
            if not found and seconds > 0:
                first = await self._awaited(places, seconds)
                if self._rebalances.waiting:
                    continue  # revoked: positions are asked again, so what was taken is dropped
                found = merged(first, await self._reading.taken(places, max_records - 1)) if first else {}
            if found or clock() >= deadline:
                self._assert_heard(is_busy=bool(found or paused))
                return found

    async def seek(self, place: TopicPartition, offset: int) -> None:
        if place in self._assigned:
            with suppress(IllegalStateError):  # revoked, and we are about to hear of it
                self._reading.seek(place, offset)

    async def hint(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self._client is None:
            raise BusUnavailable("the consumer is closed")
        physical = {self._reading.physical(place): offset for place, offset in offsets.items()}
        await within(self._limits.request_seconds, self._client.commit(physical), "committing offsets")

    def assignment(self) -> frozenset[TopicPartition]:
        return self._assigned

    async def close(self) -> None:
        self._assigned = frozenset()
        self._rebalances.close()
        if self._client is not None:
            client, self._client = self._client, None
            await end(client, self._limits.close_seconds)

    async def _follow_rebalances(self) -> None:
        while self._rebalances.waiting:
            match self._rebalances.take():
                case Revoked(done):
                    await self._give_up(done)
                case Assigned() as change:
                    await self._take(change)

    async def _give_up(self, done: asyncio.Event) -> None:
        revoked, self._assigned = self._assigned, frozenset()
        self._reading.forget()
        try:
            if revoked:
                await self._listener.revoked(revoked)
        finally:
            done.set()

    async def _take(self, change: Assigned) -> None:
        places = frozenset(map(self._reading.logical, change.places))
        if not places:
            return
        try:
            positions = await self._listener.assigned(places)
        except BaseException:
            self._rebalances.put_back(change)  # asked again at the next fetch, if there is one
            raise
        self._assigned = places
        self._heard_at = asyncio.get_running_loop().time()
        for place in places:
            await self.seek(place, positions[place])

    async def _awaited(self, places: Collection[TopicPartition], seconds: float) -> Found:
        """Wait for records, at most one of them taken, or for a rebalance."""
        reading = asyncio.create_task(self._reading.awaited(places, seconds))
        rebalance = asyncio.create_task(self._rebalances.news.wait())
        try:
            until = seconds + GRACE_SECONDS
            await asyncio.wait({reading, rebalance}, timeout=until, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            rebalance.cancel()
            await asyncio.wait({reading, rebalance})
        return {} if reading.cancelled() else reading.result()

    def _assert_heard(self, *, is_busy: bool) -> None:
        """To a consumer an outage looks like silence: tell them apart by the answers, empty ones too."""
        now = asyncio.get_running_loop().time()
        if is_busy or not self._assigned or self._rebalances.waiting:
            self._heard_at = now
            return
        answers = (self._client.last_poll_timestamp(self._reading.physical(place)) for place in self._assigned)
        newest = max(answer or 0 for answer in answers)
        if newest > self._newest_answer:
            self._newest_answer, self._heard_at = newest, now
        if now - self._heard_at > self._limits.stale_seconds:
            raise BusUnavailable(f"Kafka has not answered this consumer for {self._limits.stale_seconds:g} s")
