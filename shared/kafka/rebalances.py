"""What a group's coordinator says, noted until the consumer's own task acts on it.

aiokafka calls this in a task of its own and swallows what it raises. A revocation waits there, a bounded time, until
the consumer is done with it: nobody else gets the partitions before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Revoked:
    """Everything was revoked; `done` lets the rebalance go on."""

    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Assigned:
    places: frozenset[Any]  # of aiokafka's TopicPartition


class Rebalances:
    """The changes nobody has acted on yet, oldest first. `news` is set while there are any."""

    def __init__(self, drain_seconds: float) -> None:
        self.waiting: deque[Revoked | Assigned] = deque()
        self.news = asyncio.Event()
        self._drain_seconds = drain_seconds
        self._is_closed = False

    def take(self) -> Revoked | Assigned:
        change = self.waiting.popleft()
        if not self.waiting:
            self.news.clear()
        return change

    def put_back(self, change: Revoked | Assigned) -> None:
        self.waiting.appendleft(change)
        self.news.set()

    def close(self) -> None:
        """Nobody acts any more: no rebalance waits for us."""
        self._is_closed = True
        for change in self.waiting:
            if isinstance(change, Revoked):
                change.done.set()

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        if not revoked or self._is_closed:
            return
        change = Revoked()
        self.waiting.append(change)
        self.news.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(change.done.wait(), self._drain_seconds)
        if not change.done.is_set():
            log.warning("kafka.revoked_unfinished", waited_seconds=self._drain_seconds, partitions=len(revoked))

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self.waiting.append(Assigned(frozenset(assigned)))
        self.news.set()


ConsumerRebalanceListener.register(Rebalances)  # aiokafka insists; its class has no types to inherit
