"""A member of a group that reads from the file."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.bus import Listener, OffsetGap, Record, TopicMissing, TopicPartition
from shared.embedded.group import Group, Member

if TYPE_CHECKING:
    from shared.embedded.bus import EmbeddedBus


class EmbeddedConsumer:
    """See `shared.bus.Consumer`. Everything happens in the caller's task, inside `fetch`."""

    def __init__(self, bus: EmbeddedBus, group: str, topics: Sequence[str], listener: Listener) -> None:
        self._bus = bus
        self._name = group
        self._topics = sorted(set(topics))
        self._listener = listener
        self._group: Group = bus.group(group)
        self._member: Member | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._gap: OffsetGap | None = None

    async def start(self) -> None:
        places = (await self._bus.ranges(self._topics)).keys()
        if missing := set(self._topics) - {place.topic for place in places}:
            raise TopicMissing(f"{', '.join(sorted(missing))} does not exist: run `baton topics ensure`")
        self._bus.assert_writes()
        self._member = Member(frozenset(places))
        self._group.join(self._member)

    async def fetch(
        self, *, paused: Collection[TopicPartition], max_records: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while True:
            news = self._bus.news  # taken before reading: what is published meanwhile is not slept through
            await self._follow_group()
            found = await self._read(paused, max_records)
            if found or clock() >= deadline:
                return found
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), deadline - clock())

    async def seek(self, place: TopicPartition, offset: int) -> None:
        if place in self._positions:
            self._positions[place] = offset
            self._gap = None

    async def hint(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._bus.commit_offsets(self._name, offsets)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._positions)

    async def close(self) -> None:
        self._positions.clear()
        if self._member is not None:
            self._group.leave(self._member)
            self._member = None

    async def _follow_group(self) -> None:
        """Give up what must be given up, take what there is to take, and tell the listener of both."""
        member = self._member
        if member is None:
            raise RuntimeError("fetch before start, or after close")
        if self._group.must_give_up(member):
            revoked = frozenset(self._positions)
            self._positions.clear()
            self._gap = None
            if revoked:
                await self._listener.revoked(revoked)
            self._group.give_up(member)
        if share := self._group.take_share(member):
            try:
                positions = await self._listener.assigned(share)
                self._positions = {place: positions[place] for place in share}
            except BaseException:
                self._group.give_up(member)  # asked again at the next fetch, if there is one
                raise

    async def _read(self, paused: Collection[TopicPartition], max_records: int) -> dict[TopicPartition, list[Record]]:
        if self._gap is not None:
            raise self._gap
        wanted = {place: position for place, position in self._positions.items() if place not in paused}
        if not wanted:
            return {}
        found, gap = await self._bus.read_from(wanted, max_records)
        if gap is not None and not found:
            raise gap
        self._gap = gap  # the records of the other partitions first
        for place, records in found.items():
            self._positions[place] = records[-1].offset + 1
        return found
